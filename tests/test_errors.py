import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import httpx
import numpy as np
import pyarrow as pa
import pytest
from azure.core.exceptions import HttpResponseError
from conftest import ROOT
from dvc.config import ConfigError
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from blackswan.errors import InputError, cause, run, shown, without_secrets


@pytest.fixture(autouse=True)
def script(tmp_path, monkeypatch):
    path = tmp_path / "stage.py"
    path.touch()
    monkeypatch.setattr(sys, "argv", [str(path)])


def ends_with(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code


def test_what_a_person_can_mend_ends_in_one_sentence():
    assert ends_with(InputError("a.png is empty; remove it")) == "error: a.png is empty; remove it"
    denied = PermissionError(errno.EACCES, "Permission denied", "data/x.mp4")
    assert ends_with(denied).startswith("error: no permission for data/x.mp4; make it readable")
    full = OSError(errno.ENOSPC, "No space left on device")
    assert ends_with(full).startswith("error: the disk is full; free some space")
    said = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert ends_with(said).startswith("error: the disk is full")


def test_under_dvc_it_says_where_the_last_outputs_are(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "label")
    first, second = ends_with(InputError("a.png is empty; remove it")).splitlines()
    assert first == "error: a.png is empty; remove it"
    assert second.startswith("`dvc checkout` brings back")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**6, 10**6), np.dtype(float)),
        pa.lib.ArrowMemoryError("malloc of size 64 failed"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 64 bytes."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 64 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("std::bad_alloc"),
        cv2.error(
            "OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 64 "
            "bytes in function 'OutOfMemoryError'"
        ),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_full_memory_ends_in_one_sentence(error):
    assert ends_with(error) == (
        "error: the memory is full; close other programs, or lower the sizes of images and "
        "batches in params.yaml, run again"
    )


@pytest.mark.parametrize(
    "work",
    [
        "import numpy; numpy.ones(2 << 28)",
        "import torch; torch.ones(2 << 28)",
        "import cv2, numpy; cv2.resize(numpy.ones((9, 9), numpy.uint8), (60_000, 60_000))",
        "import pyarrow; pyarrow.allocate_buffer(2 << 30)",
        "bytes(2 << 31)",
    ],
    ids=["numpy", "torch", "opencv", "pyarrow", "python"],
)
def test_what_the_libraries_raise_without_memory(tmp_path, work):
    module = work.removeprefix("import ").split(";")[0] if ";" in work else "os"
    (tmp_path / "stage.py").write_text(
        f"import resource\nimport {module}\nfrom blackswan.errors import run\n"
        "def main():\n"
        "    pages = int(open('/proc/self/statm').read().split()[0])\n"
        "    limit = pages * resource.getpagesize() + (1 << 30)\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        f"    {work}\n"
        "run(main)\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "stage.py")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: the memory is full; ")
    assert len(done.stderr.splitlines()) == 1


def test_a_name_that_is_too_long():
    error = OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300)
    said = ends_with(error)
    assert said == f"error: the name {shown('x' * 300)} is too long; shorten it"


def test_a_bug_keeps_its_traceback():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run(main)


def test_a_script_that_succeeds_says_nothing(capsys):
    done = []
    run(lambda: done.append(1))
    assert done == [1]
    assert capsys.readouterr() == ("", "")


SECRET = "hunter2"  # pragma: allowlist secret
TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"  # pragma: allowlist secret
KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA=="  # pragma: allowlist secret
RESPONSE = httpx.Response(403, request=httpx.Request("GET", f"https://me:{SECRET}@hub/x?sig={KEY}"))
LEAKS = [
    httpx.LocalProtocolError(f"Illegal header value b'Bearer {TOKEN}\\r'"),
    httpx.InvalidURL(f"Invalid port: '{SECRET}'"),
    ValueError(f"Port could not be cast to integer value as '{SECRET}'"),
    httpx.ConnectError(f"cannot reach https://me:{SECRET}@index.example/simple"),
    httpx.ConnectError(f"cannot reach http://me:p@{SECRET}/x@index.example/simple?token={SECRET}"),
    HfHubHTTPError(f"403 for https://hub/x?token={SECRET} with {TOKEN}", response=RESPONSE),
    HttpResponseError(f"Max retries exceeded with url: /dvc?sv=2024&sig={KEY}"),
    HttpResponseError(f"signature of {KEY} is wrong"),
    HttpResponseError(f"SharedAccessSignature=sv&sig={SECRET}"),
    ConfigError(f"Invalid line ('connection_string DefaultEndpointsProtocol={SECRET}') at line 5."),
    ConfigError(f"extra keys not allowed @ data['remote']['azure']['{SECRET} x']"),
    subprocess.CalledProcessError(1, ["dvc", "modify", f"AccountName=a;AccountKey={SECRET}"]),
    OSError(f"proxy said: Proxy-Authorization: Basic {SECRET}"),
    ValueError(f"https://{SECRET}:x@index.example/"),  # pragma: allowlist secret
    ValueError(f"{{'password': '{SECRET}'}}"),
]


@pytest.mark.parametrize("error", LEAKS, ids=lambda error: type(error).__name__)
def test_no_secret_is_in_what_another_library_says(error):
    said = cause(error)
    assert said
    for secret in (SECRET, TOKEN, KEY):
        assert secret not in said


@pytest.mark.parametrize("error", LEAKS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: ExceptionGroup("all", [one])])
def test_a_bug_with_a_secret_in_it_shows_no_traceback(error, wrap, capsys):
    def main():
        try:
            raise wrap(error)
        except Exception as inner:
            raise ValueError("a bug") from inner

    with pytest.raises(SystemExit) as ended:
        run(main)
    said = ended.value.code + "".join(capsys.readouterr())
    assert said.startswith("error: ValueError at ")
    assert "test_errors.py:" in said
    assert SECRET not in said
    assert TOKEN not in said
    assert KEY not in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (httpx.ConnectError("[Errno 111] Connection refused"), "[Errno 111] Connection refused"),
        (httpx.ReadTimeout(""), "ReadTimeout"),
        (OfflineModeIsEnabled("see HF_HUB_OFFLINE\n of  it"), "see HF_HUB_OFFLINE of it"),
        (ValueError("no https://me@index.example/a?c=d here"), "no https://index.example/a here"),
        (KeyError("image_mean"), "'image_mean'"),
        (RuntimeError("Error(s) in Dinov2ForImageClassification: Missing key(s): 'a.b'"),
         "Error(s) in Dinov2ForImageClassification: Missing key(s): 'a.b'"),
    ],
)  # fmt: skip
def test_what_helps_is_kept(error, said):
    assert cause(error) == said


def test_a_long_value_is_cut_and_stands_on_one_line():
    assert shown("a" * 200) == "a" * 200
    assert shown("a" * 10**6) == "a" * 98 + "..." + "a" * 98
    assert shown(["x\ny"]) == "['x\\ny']"
    assert shown("x\ny\x1b[31m") == "x\\ny\\x1b[31m"
    assert len(without_secrets("word " * 100, "")) <= 200


def test_a_message_is_one_short_line_whatever_it_was_given():
    name = "n" * 5000
    said = str(InputError(f"data/{name}.png is\nempty \udce9; remove it"))
    assert said.startswith("data/nnn")
    assert said.endswith(".png is\\nempty \\udce9; remove it")
    assert len(said) < 240
    said = str(InputError("key = " + "[1, 2] " * 5000 + "is too long; shorten it"))
    assert len(said) <= 1500
    assert said.startswith("key = [1, 2]")
    assert said.endswith("; shorten it")


INTERRUPTED = "interrupted; the same command goes on from here\n"
SCRIPT = """
import sys, time
from pathlib import Path
from blackswan.errors import run
from blackswan.parallel import parallel_map

def work(number):
    print(f"at work on {number}", flush=True)
    time.sleep(0.05)
    return number

def main():
    for number in parallel_map(work, range(10_000), workers=2):
        pass

run(main)
"""


def interrupt(command, folder):
    """Press Ctrl-C once the work has begun; return the exit code and what was printed."""
    process = subprocess.Popen(
        command, cwd=folder, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # DVC leaves a process behind that looks for updates and holds the pipes open.
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "true", "CI": "true"},
    )  # fmt: skip
    while "at work" not in process.stdout.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    printed, errors = process.communicate()
    return process.returncode, printed, errors


def test_ctrl_c_ends_in_one_line_and_drops_what_has_not_begun(tmp_path):
    (tmp_path / "stage.py").write_text(SCRIPT)
    code, printed, errors = interrupt([sys.executable, "stage.py"], tmp_path)
    assert (code, errors) == (130, INTERRUPTED)
    assert len(printed.splitlines()) < 100


@pytest.mark.slow
def test_ctrl_c_under_dvc_repro_shows_no_traceback(tmp_path):
    (tmp_path / "stage.py").write_text(SCRIPT)
    (tmp_path / "dvc.yaml").write_text("stages: {a: {cmd: python stage.py, outs: [b]}}")
    dvc = [sys.executable, "-m", "dvc"]
    subprocess.run([*dvc, "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    code, _, errors = interrupt([*dvc, "repro"], tmp_path)
    assert code == 255
    failed = "ERROR: failed to reproduce 'a': failed to run: python stage.py, exited with "
    of_bash, of_dash = 130, -2  # which of them is the shell of DVC depends on the machine
    assert errors in [f"{INTERRUPTED}{failed}{code}\n" for code in (of_bash, of_dash)]
