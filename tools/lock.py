"""Mend what a kill of DVC left half written, so that the next `dvc repro` starts.

    python tools/lock.py

DVC writes dvc.lock in place: killed in that moment it is cut or empty, and every later command ends
in "validation failed". Entries that are whole are kept, the last commit gives the others; what is
still missing the run cache restores.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import psutil
from dvc.config import Config, ConfigError
from dvc.exceptions import DvcException
from dvc.lock import Lock, LockError
from dvc.rwlock import SCHEMA as BUSY_SCHEMA
from dvc.schema import COMPILED_LOCKFILE_SCHEMA, COMPILED_SINGLE_STAGE_SCHEMA
from dvc.utils.serialize import dump_yaml, parse_yaml_for_update
from dvc.utils.strictyaml import validate

from blackswan.errors import InputError, run
from blackswan.outputs import replace_file

LOCK = Path("dvc.lock")
MARKER = re.compile(rb"^(<{7}|\|{7}|={7}|>{7})( |\r?$)", re.MULTILINE)
STAGE = re.compile(r"^  \S.*:\s*$", re.MULTILINE)  # where the entry of a stage begins


def mend(root: Path) -> list[str]:
    """Mend dvc.lock and .dvc/tmp/rwlock of the DVC repository at `root`; say what was done.

    Raises InputError where only a person can choose: for conflict markers, and for a configuration
    or a .dvc file that cannot be read. Does nothing while another DVC writes.
    """
    if not (root / ".dvc").is_dir():
        return []
    (root / ".dvc/tmp").mkdir(exist_ok=True)
    try:
        with Lock(str(root / ".dvc/tmp/lock")):  # the one that DVC holds while it writes
            said = [_mend_lock(root), _forget_the_dead(root / ".dvc/tmp/rwlock")]
    except LockError:
        return []
    _check_config(root)
    _check_data_files(root)
    return [sentence for sentence in said if sentence]


def _mend_lock(root: Path) -> str:
    path = root / LOCK
    if not path.exists():
        return ""
    written = path.read_bytes()
    if _is_whole(written):
        return ""
    if MARKER.search(written):
        raise InputError(
            f"{LOCK} holds conflict markers of git; take one side with `git checkout --ours {LOCK}`"
            f" or `git checkout --theirs {LOCK}`, then run again"
        )
    committed, kept = _committed(root), _whole_stages(written)
    stages = committed | kept
    path.replace(root / ".dvc/tmp" / f"{LOCK}.cut")
    if not stages:
        return f"{LOCK} was cut by a kill and is removed; `dvc repro` writes it anew"
    with replace_file(path) as partial:
        dump_yaml(partial, {"schema": "2.0", "stages": stages})
    missing = len(stages) - len(kept)
    sources = [f"{len(kept)} whole entries of it are kept"] * bool(kept)
    sources += [f"{missing} come from the last commit"] * bool(missing)
    return f"{LOCK} was cut by a kill and is restored: {', '.join(sources)}"


def _is_whole(text: bytes) -> bool:
    """Tell whether DVC can read a lock, and whether it wrote it to its end."""
    try:
        content = parse_yaml_for_update(text.decode(), LOCK)
        validate(content, COMPILED_LOCKFILE_SCHEMA)
    except (DvcException, UnicodeDecodeError):
        return False
    if not text.endswith(b"\n"):
        return False
    # Of a dependency or an output the hash comes first: cut behind it nothing looks wrong.
    entries = list(content.get("stages", {}).values())
    last = entries[-1] if entries else {}
    items = last.get("outs") or (not last.get("params") and last.get("deps")) or [{}]
    md5 = items[-1].get("md5", "")
    return not md5 or "size" in items[-1] and ("nfiles" in items[-1] or not md5.endswith(".dir"))


def _whole_stages(text: bytes) -> dict[str, Any]:
    """Return the entries of a cut lock that are whole: all but the last."""
    begun = text.decode(errors="ignore")
    starts = [match.start() for match in STAGE.finditer(begun)]
    whole = begun[: starts[-1]].encode() if starts else b""
    return _stages(whole) if _is_whole(whole) else {}


def _committed(root: Path) -> dict[str, Any]:
    """Return the entries of the lock in the last commit; none where git or the commit lacks it."""
    command = ["git", "show", f"HEAD:./{LOCK}"]
    try:
        shown = subprocess.run(command, cwd=root, capture_output=True, check=False)
    except FileNotFoundError:  # no git
        return {}
    whole = shown.returncode == 0 and _is_whole(shown.stdout)
    return _stages(shown.stdout) if whole else {}


def _stages(text: bytes) -> dict[str, Any]:
    return dict(parse_yaml_for_update(text.decode(), LOCK).get("stages") or {})


def _forget_the_dead(path: Path) -> str:
    """Delete DVC's record of busy paths where it is cut, or where no process in it lives on."""
    if not path.exists():
        return ""
    try:
        busy = validate(json.loads(path.read_text(encoding="utf-8")), BUSY_SCHEMA)
    except (ValueError, DvcException):
        path.unlink()
        return f"{path} was cut by a kill and is removed"
    users = [*busy["write"].values(), *(user for users in busy["read"].values() for user in users)]
    if users and not any(_is_at_work(user["pid"], path.stat().st_mtime) for user in users):
        path.unlink()
    return ""


def _is_at_work(pid: int, entered: float) -> bool:
    """Tell whether the process that was entered at that time is alive: ids are used again."""
    try:
        process = psutil.Process(pid)
        return process.create_time() <= entered and "dvc" in " ".join(process.cmdline())
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def _check_config(root: Path) -> None:
    def works(local: Path) -> bool:
        try:
            Config(str(root / ".dvc"), local_dvc_dir=str(local))
        except ConfigError:
            return False
        return True

    if works(root / ".dvc"):
        return
    if works(root / ".dvc/tmp"):  # where no config.local lies
        raise InputError(
            ".dvc/config.local cannot be read; mend it, or delete it and enter your remote again"
        )
    raise InputError(".dvc/config cannot be read; mend it, or `git checkout .dvc/config`")


def _check_data_files(root: Path) -> None:
    for path in sorted((root / "data/raw").rglob("*.dvc")):
        try:
            content = parse_yaml_for_update(path.read_text("utf-8"), path)
            validate(content, COMPILED_SINGLE_STAGE_SCHEMA)
        except (DvcException, UnicodeDecodeError):
            name = path.relative_to(root)
            raise InputError(
                f"{name} cannot be read; delete it and `dvc add {name.with_suffix('')}`"
            ) from None


def main() -> None:
    """Mend the repository in the working directory."""
    for sentence in mend(Path()):
        print(sentence)


if __name__ == "__main__":
    run(main)
