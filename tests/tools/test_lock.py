"""DVC killed at any byte of dvc.lock, and whatever else a kill leaves half written."""

import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import chdir
from pathlib import Path

import pytest
import yaml
from dvc.cli import main as dvc_main
from dvc.lock import Lock
from dvc.utils.serialize import _common
from kills import run_forked

from blackswan.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
SPEC = importlib.util.spec_from_file_location("lock", Path(__file__).parents[2] / "tools/lock.py")
lock = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(lock)

STAGES = """
stages:
  copy: {cmd: cp source copied, deps: [source], outs: [copied]}
  count:
    cmd: wc -c < copied > count.txt
    deps: [copied]
    params: [times]
    metrics: [count.txt: {cache: false}]
  split: {cmd: mkdir -p parts && split -b 9 copied parts/, deps: [copied, count.txt], outs: [parts]}
"""


def dvc(root: Path, *words: str) -> int:
    """Run DVC in this process: the children that are killed then find all imported."""
    with chdir(root):
        return dvc_main([*words, "-q"])


def git(root: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", *identity, *words], cwd=root, check=True, capture_output=True)


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of three small stages in which nothing has run; read only."""
    root = tmp_path_factory.mktemp("unused") / "project"
    root.mkdir()
    os.environ["DVC_SITE_CACHE_DIR"] = str(root.parent / "site")
    git(root, "init", "-q")
    assert dvc(root, "init") == 0
    (root / "dvc.yaml").write_text(STAGES)
    (root / "params.yaml").write_text("times: 3\n")
    (root / "source").write_text("a swan among swans\n")
    (root / ".gitignore").write_text("/copied\n/parts\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


@pytest.fixture(scope="module")
def finished(unused: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository after an undisturbed run; read only."""
    root = tmp_path_factory.mktemp("finished") / "project"
    shutil.copytree(unused, root)
    assert dvc(root, "repro") == 0
    return root


@pytest.fixture
def project(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "project")
    return tmp_path / "project"


def outputs(root: Path) -> dict[str, bytes]:
    paths = [root / "dvc.lock", root / "copied", root / "count.txt", *(root / "parts").iterdir()]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def repro_killed_after(count: int, root: Path) -> int:
    """Run `dvc repro` and kill it once it has written so many bytes of dvc.lock, over all writes.

    Returns how many bytes it wrote when it was not killed.
    """
    sizes = root.parent / "sizes"
    sizes.unlink(missing_ok=True)

    def killed() -> None:
        written, dump_data = 0, _common._dump_data

        def dump(path, data, dumper, fs=None, **options):  # noqa: ANN001, ANN003, ANN202
            nonlocal written
            if Path(path).name != "dvc.lock":
                return dump_data(path, data, dumper, fs, **options)
            stream = io.StringIO()
            dumper(data, stream, **options)
            content = stream.getvalue().encode()
            if count < written + len(content):
                Path(path).write_bytes(content[: count - written])
                os.kill(os.getpid(), signal.SIGKILL)
            written += len(content)
            sizes.write_text(str(written))
            return dump_data(path, data, dumper, fs, **options)

        _common._dump_data = dump
        assert dvc(root, "repro") == 0

    code = run_forked(killed)
    assert code in (0, -signal.SIGKILL)
    return int(sizes.read_text()) if code == 0 else 0


SLOW = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("kills", "committed"),
    [
        (3, False),
        pytest.param(100, False, marks=SLOW),
        pytest.param(100, True, marks=SLOW),
    ],
)
def test_killed_at_any_byte_of_the_lock_the_next_run_ends_as_an_undisturbed_one(
    unused: Path, finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture,
    kills: int, committed: bool,
) -> None:  # fmt: skip
    start = finished if committed else unused
    root = tmp_path / "start"
    shutil.copytree(start, root)
    if committed:
        git(root, "add", "-A")
        git(root, "commit", "-qm", "run")
        (root / "params.yaml").write_text("times: 4\n")
        (root / "source").write_text("a black swan among swans\n")
    shutil.copytree(root, tmp_path / "whole")
    total = repro_killed_after(10**9, tmp_path / "whole")
    undisturbed = outputs(tmp_path / "whole")
    for number in range(kills):
        project = tmp_path / str(number)
        shutil.copytree(root, project)
        assert repro_killed_after(total * number // kills, project) == 0
        lock.mend(project)
        assert dvc(project, "repro") == 0
        assert outputs(project) == undisturbed
        shutil.rmtree(project)
    assert "Traceback" not in capfd.readouterr().err


def entries(text: bytes) -> dict:
    return yaml.safe_load(text)["stages"]


@pytest.mark.parametrize("git_is_there", [True, False])
def test_whole_entries_are_kept_and_the_commit_gives_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch, git_is_there: bool
) -> None:
    git(project, "add", "dvc.lock")
    git(project, "commit", "-qm", "run")
    if not git_is_there:
        monkeypatch.setenv("PATH", "/nowhere")
    path = project / "dvc.lock"
    committed = path.read_bytes()
    newer = committed.replace(b"size: 19", b"size: 20")
    cut = newer[: newer.index(b"split:") + 40]
    path.write_bytes(cut)
    [sentence] = lock.mend(project)
    kept = {name: entries(newer)[name] for name in ("copy", "count")}
    if git_is_there:
        assert entries(path.read_bytes()) == {**entries(committed), **kept}
        source = "2 whole entries of it are kept, 1 come from the last commit"
    else:
        assert entries(path.read_bytes()) == kept
        source = "2 whole entries of it are kept"
    assert sentence == f"dvc.lock was cut by a kill and is restored: {source}"
    assert (project / ".dvc/tmp/dvc.lock.cut").read_bytes() == cut
    assert lock.mend(project) == []


@pytest.mark.parametrize("left", [b"", b"schema: '2.0'\nsta", b"schema: '2.0'\nstages:\n  copy:\n"])
def test_a_lock_without_a_whole_entry_is_removed_or_that_of_the_commit(
    project: Path, left: bytes
) -> None:
    path = project / "dvc.lock"
    whole = path.read_bytes()
    path.write_bytes(left)
    assert lock.mend(project) == [
        "dvc.lock was cut by a kill and is removed; `dvc repro` writes it anew"
    ]
    assert not path.exists()
    path.write_bytes(whole)
    git(project, "add", "dvc.lock")
    git(project, "commit", "-qm", "run")
    path.write_bytes(left)
    assert len(lock.mend(project)) == 1
    assert path.read_bytes() == whole


def test_a_whole_lock_stays_as_it_is(project: Path, tmp_path: Path) -> None:
    before = outputs(project)
    assert lock.mend(project) == []
    (project / "dvc.lock").unlink()
    assert lock.mend(project) == []
    (project / "dvc.lock").write_bytes(before["dvc.lock"])
    assert outputs(project) == before
    assert lock.mend(tmp_path) == []  # no DVC repository


@pytest.mark.parametrize("line", ["size", "nfiles"])
def test_a_cut_that_can_be_read_is_found(project: Path, line: str) -> None:
    """DVC compares hashes alone and would leave what follows one as it is."""
    path = project / "dvc.lock"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(f"      {line}:".encode())])
    entries(path.read_bytes())
    [sentence] = lock.mend(project)
    assert sentence.endswith("restored: 2 whole entries of it are kept")
    assert dvc(project, "repro") == 0
    assert path.read_bytes() == whole


def test_conflict_markers_are_left_to_a_person(project: Path) -> None:
    path = project / "dvc.lock"
    conflict = path.read_bytes().replace(
        b"  count:", b"<<<<<<< HEAD\n=======\n>>>>>>> other\n  count:"
    )
    path.write_bytes(conflict)
    with pytest.raises(InputError, match="dvc.lock holds conflict markers of git; take one side"):
        lock.mend(project)
    assert path.read_bytes() == conflict


def test_another_dvc_at_work_is_not_disturbed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0)
    (project / "dvc.lock").write_bytes(b"")
    with Lock(str(project / ".dvc/tmp/lock")):
        assert lock.mend(project) == []
    assert (project / "dvc.lock").read_bytes() == b""


def busy(pid: int) -> str:
    user = {"pid": pid, "cmd": "dvc repro"}
    return json.dumps({"write": {"/x/copied": user}, "read": {"/x/source": [user]}})


def test_busy_paths_of_processes_that_are_gone_are_forgotten(
    project: Path, capsys: pytest.CaptureFixture
) -> None:
    record = project / ".dvc/tmp/rwlock"
    for cut in ("", '{"write": {"/x', "[]"):
        record.write_text(cut)
        [sentence] = lock.mend(project)
        assert sentence.endswith(".dvc/tmp/rwlock was cut by a kill and is removed")
        assert not record.exists()
    program = project / "dvc"
    program.write_text("import time\ntime.sleep(600)\n")
    process = subprocess.Popen([shutil.which("python"), str(program), "repro"])
    try:
        record.write_text(busy(process.pid))
        assert lock.mend(project) == []
        assert record.exists()  # it is at work
        before = time.time() - 1000
        os.utime(record, (before, before))  # entered before this process began: an id used again
        assert lock.mend(project) == []
        assert not record.exists()
        record.write_text(busy(process.pid))
    finally:
        process.kill()
        process.wait()
    assert lock.mend(project) == []
    assert not record.exists()
    record.write_text(busy(os.getpid()).replace("dvc repro", "pytest"))
    assert lock.mend(project) == []
    assert not record.exists()  # a process that is no DVC


def test_what_only_a_person_can_mend_ends_in_a_sentence(project: Path) -> None:
    local, repository = project / ".dvc/config.local", project / ".dvc/config"
    local.write_text("['remote \"azure\"']\n    connection_string = secret\n['rem")
    with pytest.raises(InputError, match=r"^.dvc/config.local cannot be read; mend it, or delete"):
        lock.mend(project)
    local.unlink()
    whole = repository.read_text()
    repository.write_text("['remote \"azu")
    with pytest.raises(InputError, match=r"^.dvc/config cannot be read; mend it, or `git checkout"):
        lock.mend(project)
    repository.write_text(whole)
    data = project / "data/raw/swan.mp4.dvc"
    data.parent.mkdir(parents=True)
    data.write_text("outs:\n- md")
    with pytest.raises(InputError, match="swan.mp4.dvc cannot be read; delete it and `dvc add dat"):
        lock.mend(project)
    data.write_text("outs:\n- md5: d3b07384d113edec49eaa6238ad5ff00\n  size: 4\n  path: swan.mp4\n")
    assert lock.mend(project) == []
