"""Detectors from where they lie: a folder, a revision of a DVC repository, or a URI of MLflow.

Each is known by the hash that DVC gives its files, wherever they came from.
"""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import yaml

from blackswan.data.files import state_of
from blackswan.errors import InputError, cause, shown
from blackswan.evaluation.model import Model
from blackswan.export.runtime import Graph, load
from blackswan.tracking.runs import dvc_hash

MLFLOW = ("models:/", "runs:/")
LOCK = "dvc.lock"


@dataclass(frozen=True)
class Loaded:
    """A detector that is ready, and where it came from."""

    model: Model
    source: str  # as it was named
    hash: str  # of DVC, of its files
    version: str | None  # a commit, or a version of MLflow's registry; a folder has none
    added: tuple[str, ...] = ()  # sha256 of normal images that joined its bank while it was served
    base: str = ""  # hash of the detector that they were added to
    held: ExitStack | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The kind of detector, such as padim."""
        return self.model.facts.detector

    @property
    def fitted(self) -> str:
        """The hash of the detector of `dvc repro` that it is, grew from or is an export of."""
        if isinstance(self.model.detector, Graph):
            return self.model.detector.exported.detector_md5
        return self.base or self.hash


class Source(Protocol):
    """Where a detector comes from, now and later."""

    @property
    def name(self) -> str:
        """What the command line called it."""

    def stamp(self) -> str:
        """Return what changes when there is another detector."""

    def fetched(self) -> AbstractContextManager[tuple[Path, str | None]]:
        """Yield the folder of the detector, its files checked, and its version."""


def open_source(detector: str, rev: str | None = None, remote: str | None = None) -> Source:
    """Return the source that a command line names; raises InputError where it is of two kinds."""
    if detector.startswith(MLFLOW):
        if rev:
            raise InputError(f"{detector} is a URI of MLflow, which has no revision; omit --rev")
        return Registered(detector)
    return Revision(detector, rev, remote) if rev else Folder(detector)


def load_detector(source: Source) -> Loaded:
    """Fetch, check and load a detector; raises InputError where it is not complete."""
    with ExitStack() as held:
        folder, version = held.enter_context(source.fetched())
        model, hash_ = load(folder), dvc_hash(folder)
        # What was fetched lasts as long as the detector: a bank that grows copies its backbone.
        return Loaded(model, source.name, hash_, version, held=held.pop_all())


@dataclass(frozen=True)
class Folder:
    """A folder such as data/detectors/padim; in a DVC repository, what its dvc.lock lists."""

    name: str

    def stamp(self) -> str:
        """Return a hash of the names, sizes and times of the files."""
        folder = Path(self.name)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        lock = _lock_above(folder)
        return state_of([*files, lock] if lock else files)

    @contextmanager
    def fetched(self) -> Iterator[tuple[Path, str | None]]:
        """Yield the folder; raises InputError where it is not the one of dvc.lock."""
        folder = Path(self.name)
        if not folder.is_dir():
            raise InputError(
                f"{folder} is no folder; name one such as data/detectors/patchcore, which `dvc "
                "repro` or `dvc pull` writes"
            )
        lock = _lock_above(folder)
        expected = _recorded(lock, folder) if lock else None
        if expected and expected != (found := dvc_hash(folder)):
            raise InputError(
                f"{folder} has the hash {found}, {lock} lists {expected}; bring that one back by "
                "`dvc checkout`, or make a new one by `dvc repro`"
            )
        yield folder, None


@dataclass(frozen=True)
class Revision:
    """A folder of a revision of the DVC repository here, fetched from its remote."""

    path: str  # below the top of the repository
    rev: str
    remote: str | None = None

    @property
    def name(self) -> str:
        """The path and the revision."""
        return f"{self.path}@{self.rev}"

    def stamp(self) -> str:
        """Return the commit that the revision names now."""
        return self._commit()

    @contextmanager
    def fetched(self) -> Iterator[tuple[Path, str | None]]:
        """Yield a copy; raises InputError where the remote does not have it."""
        from dvc.api import DVCFileSystem  # a second to import
        from dvc.exceptions import DvcException
        from dvc_data.index import DataIndexError

        commit = self._commit()
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place, "detector")
            try:
                files = DVCFileSystem(".", rev=commit, remote=self.remote)
                expected = files.info(self.path)["dvc_info"]["md5"]
                files.get(self.path, str(folder), recursive=True)
            except (FileNotFoundError, KeyError, DataIndexError):
                raise InputError(
                    f"revision {self.rev} has no {self.path}, or it is in neither the cache nor the"
                    " remote; see `dvc ls`, `dvc push` it, or name the remote with --remote"
                ) from None
            except DvcException as error:
                raise InputError(
                    f"{self.name} cannot be fetched ({cause(error)}); check the remote"
                ) from None
            if expected != (found := dvc_hash(folder)):
                raise InputError(
                    f"{self.name} has the hash {found}, dvc.lock lists {expected}; push it again"
                )
            yield folder, commit

    def _commit(self) -> str:
        command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options"]
        found = subprocess.run(
            [*command, f"{self.rev}^{{commit}}"], capture_output=True, text=True, check=False
        )
        if found.returncode:
            raise InputError(f"--rev {shown(self.rev)} is no revision here; see `git log --all`")
        return found.stdout.strip()


@dataclass(frozen=True)
class Registered:
    """A model of MLflow."""

    name: str

    def stamp(self) -> str:
        """Return the version that the URI names now."""
        from blackswan.tracking import registry  # pandas and more, which no folder needs

        return registry.version_of(self.name)

    @contextmanager
    def fetched(self) -> Iterator[tuple[Path, str | None]]:
        """Yield a copy whose files are those of its manifest."""
        from blackswan.tracking import registry

        version = registry.version_of(self.name)
        with registry.fetched(self.name) as folder:
            yield folder, version


def _lock_above(folder: Path) -> Path | None:
    locks = (parent / LOCK for parent in folder.absolute().parents)
    return next((lock for lock in locks if lock.is_file()), None)


def _recorded(lock: Path, folder: Path) -> str | None:
    """Return the hash that dvc.lock lists for a folder, None where it lists no such output."""
    path = folder.absolute().relative_to(lock.parent).as_posix()
    try:
        stages = yaml.load(lock.read_text(encoding="utf-8"), yaml.CSafeLoader)["stages"]
        outs = [out for stage in stages.values() for out in stage.get("outs", [])]
        return next((str(out["md5"]) for out in outs if out["path"] == path), None)
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{lock} cannot be read ({cause(error)}); bring it back by `git checkout {LOCK}`"
        ) from None
