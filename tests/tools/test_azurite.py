"""Sharing through Azure Blob, against Azure's own emulator: nothing is lost, nothing hangs."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from tools import azurite

ROOT = Path(__file__).resolve().parents[2]
FILES = 400  # enough small ones that a push or pull takes seconds and can be killed in the middle
PIPELINE = """
stages:
  draw:
    cmd: python draw.py
    deps: [draw.py]
    outs: [tiles, model.bin]
"""
DRAW = f"""
import random
from pathlib import Path
rng = random.Random(0)
Path("tiles").mkdir()
for i in range({FILES}):
    Path(f"tiles/{{i:04}}.bin").write_bytes(rng.randbytes(20_000))
Path("model.bin").write_bytes(rng.randbytes(20_000_000))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("azurite"),  # one emulator, one port
    pytest.mark.skipif(not shutil.which("npm"), reason="npm is missing, which installs Azurite"),
]


def run(*command, cwd, check=True):
    """Run a command in `cwd` and return what it did."""
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Return a small DVC repository whose default remote is an emulator of its own."""
    folder = tmp_path_factory.mktemp("azurite")
    root = folder / "origin"
    root.mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_NO_ANALYTICS": "true",
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "PYTHONPATH": str(ROOT),
        **{
            f"GIT_{who}_{what}": "tests@localhost"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    with socket.socket() as free, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        (root / "dvc.yaml").write_text(PIPELINE)
        (root / "draw.py").write_text(DRAW)
        run("git", "init", "--quiet", cwd=root)
        run("dvc", "init", "--quiet", cwd=root)
        run("dvc", "repro", "--quiet", cwd=root)
        run("git", "add", ".", cwd=root)
        run("git", "commit", "--quiet", "--message", "A small pipeline", cwd=root)
        tool = [sys.executable, str(ROOT / "tools" / "azurite.py")]
        where = ["--folder", str(folder / "emulator"), "--port", str(port)]
        run(*tool, "start", *where, cwd=root)
        try:
            yield root, port
        finally:
            stopped = run(*tool, "stop", *where, cwd=root)
            assert stopped.stdout == "Azurite is stopped.\n"
            assert "azurite" not in (root / ".dvc" / "config.local").read_text()


def use_prefix(root, prefix):
    """Send what follows to a part of the container that is still empty."""
    run(
        "dvc",
        "remote",
        "modify",
        "--local",
        "azurite",
        "url",
        f"azure://blackswan/{prefix}",
        cwd=root,
    )


def clone(root, to):
    """Clone as a colleague does, and tell the clone where the emulator is."""
    run("git", "clone", "--quiet", str(root), str(to), cwd=to.parent)
    shutil.copy(root / ".dvc" / "config.local", to / ".dvc" / "config.local")
    return to


def content(root):
    """Return name and bytes of everything the pipeline made."""
    paths = [*sorted((root / "tiles").iterdir()), root / "model.bin"]
    return {path.name: path.read_bytes() for path in paths}


def kill_midway(command, cwd, count, total):
    """Kill `command` and its children once count() lies between a tenth and all of `total`."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while count() < total // 10:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert total // 10 <= count() < total


def test_push_clone_pull_leaves_nothing_to_do(origin, tmp_path):
    root, _ = origin
    use_prefix(root, "whole")
    asked = run(sys.executable, str(ROOT / "tools/remote.py"), cwd=root)
    assert "container blackswan" in asked.stdout
    run("dvc", "push", cwd=root)
    copy = clone(root, tmp_path / "clone")
    run("dvc", "pull", cwd=copy)
    assert "up to date" in run("dvc", "status", cwd=copy).stdout
    assert "didn't change, skipping" in run("dvc", "repro", cwd=copy).stdout
    assert run("git", "status", "--porcelain", cwd=copy).stdout == ""
    assert content(copy) == content(root)


def test_a_push_and_a_pull_that_were_killed_lose_nothing(origin, tmp_path):
    root, port = origin
    use_prefix(root, "killed")
    container = ContainerClient.from_connection_string(azurite.connection_string(port), "blackswan")
    total = FILES + 2  # the model, and the list of the folder's files

    def pushed():
        return sum(1 for _ in container.list_blobs(name_starts_with="killed/"))

    kill_midway(["dvc", "push"], root, pushed, total)
    run("dvc", "push", cwd=root)
    assert pushed() == total
    copy = clone(root, tmp_path / "clone")
    cache = copy / ".dvc" / "cache" / "files"

    def pulled():
        return sum(path.is_file() for path in cache.rglob("*"))

    kill_midway(["dvc", "pull"], copy, pulled, total)
    run("dvc", "pull", cwd=copy)
    assert "up to date" in run("dvc", "status", cwd=copy).stdout
    assert content(copy) == content(root)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda secret, port: secret.replace("Key=Eby8", "Key=AAAA"), "refuses the credentials"),
        (lambda secret, port: secret.replace(f":{port}/", ":9/"), "does not answer"),
    ],
    ids=["wrong key", "dead endpoint"],
)
def test_a_remote_that_cannot_work_ends_fast_in_one_sentence(origin, change, says):
    root, port = origin
    secret = change(azurite.connection_string(port), port)
    run("dvc", "remote", "add", "--local", "--force", "broken", "azure://blackswan/dvc", cwd=root)
    run("dvc", "remote", "modify", "--local", "broken", "connection_string", secret, cwd=root)
    begin = time.monotonic()
    done = run(sys.executable, str(ROOT / "tools/remote.py"), "broken", cwd=root, check=False)
    assert time.monotonic() - begin < 15
    assert done.returncode == 1
    assert done.stderr.startswith("error: remote broken: http://127.0.0.1:")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert secret.split("AccountKey=")[1] not in done.stderr


def test_a_missing_container_names_its_remedy(origin):
    root, port = origin
    secret = azurite.connection_string(port)
    run("dvc", "remote", "add", "--local", "--force", "astray", "azure://nowhere/dvc", cwd=root)
    run("dvc", "remote", "modify", "--local", "astray", "connection_string", secret, cwd=root)
    done = run(sys.executable, str(ROOT / "tools/remote.py"), "astray", cwd=root, check=False)
    assert done.returncode == 1
    assert "has no container nowhere; mend the url" in done.stderr


def test_starting_twice_and_from_a_second_clone(origin, tmp_path):
    root, port = origin
    tool = [sys.executable, str(ROOT / "tools" / "azurite.py"), "start", "--port", str(port)]
    copy = clone(root, tmp_path / "clone")
    (copy / ".dvc/config.local").unlink()
    joined = run(*tool, cwd=copy)
    assert joined.stdout.startswith("Joining the emulator that another clone has started.\n")
    assert not (copy / ".azurite").exists()
    asked = run(sys.executable, str(ROOT / "tools/remote.py"), cwd=copy)
    assert "remote azurite answers: container blackswan" in asked.stdout
    left = run(*tool[:2], "stop", cwd=copy)
    assert left.stdout == "This clone had started no Azurite.\n"
    assert azurite.answers(port)
    again = run(*tool, "--folder", str(root.parent / "emulator"), cwd=root)
    assert f"Azurite runs on 127.0.0.1:{port}" in again.stdout


def test_a_port_that_something_else_has_taken_is_told(origin, tmp_path):
    root, _ = origin
    tool = [sys.executable, str(ROOT / "tools" / "azurite.py"), "start"]
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        threading.Thread(target=hang_up, args=[other], daemon=True).start()
        taken = run(*tool, "--folder", str(tmp_path), "--port", str(port), cwd=root, check=False)
    assert taken.returncode == 1
    assert f"error: port {port} is taken by something that is no Azurite" in taken.stderr


def hang_up(server):
    """Accept every connection and say nothing."""
    with suppress(OSError):
        while True:
            server.accept()[0].close()
