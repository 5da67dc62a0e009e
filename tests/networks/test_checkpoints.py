import itertools
from pathlib import Path

import pytest
from kills import killed_at

from blackswan.networks.checkpoints import (
    COMPLETE,
    is_complete,
    last_complete,
    mark_complete,
    remove,
)


def write(checkpoint: Path, complete: bool = True) -> Path:
    for name in ("model", "deep/state"):
        (checkpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (checkpoint / name).write_text(f"{name} of {checkpoint.name}")
    if complete:
        mark_complete(checkpoint)
    return checkpoint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_half_written_checkpoint_and_those_of_other_runs_are_deleted(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for name in ("checkpoint-3", "checkpoint-12"):
        write(own / name)
    write(own / "checkpoint-15", complete=False)
    write(other / "checkpoint-1")
    assert last_complete(own) == own / "checkpoint-12"
    assert names(own) == ["checkpoint-12", "checkpoint-3"]
    assert not other.exists()


def test_without_a_complete_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert last_complete(tmp_path / "runs/none") is None


@pytest.mark.parametrize("name", ["model", "deep/state", COMPLETE])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_a_checkpoint_whose_files_are_not_whole_is_not_resumed(
    tmp_path: Path, name: str, damage: str
) -> None:
    first = write(tmp_path / "run/checkpoint-1")
    path = write(tmp_path / "run/checkpoint-2") / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[:-2] if damage == "cut" else content[::-1])
    if (name, damage) == (COMPLETE, "cut"):
        path.write_bytes(b"")  # with some lines gone it is still true of the others
    assert last_complete(tmp_path / "run") == first
    assert names(tmp_path / "run") == ["checkpoint-1"]


def test_a_checkpoint_is_not_resumed_without_the_one_it_needs(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for step in (1, 2, 3):
        write(run / f"checkpoint-{step}")

    def needs(checkpoint: Path) -> set[Path]:
        return {run / "checkpoint-2"} if checkpoint.name == "checkpoint-3" else set()

    assert last_complete(run, needs) == run / "checkpoint-3"
    (run / "checkpoint-2/model").unlink()
    assert last_complete(run, needs) == run / "checkpoint-1"
    assert names(run) == ["checkpoint-1"]


def test_killed_anywhere_in_its_removal_no_half_checkpoint_counts(tmp_path: Path) -> None:
    for number in itertools.count(1):
        folder = tmp_path / str(number)
        checkpoints = [write(folder / f"run/checkpoint-{step}") for step in (1, 2)]
        killed = killed_at(number, lambda folder=folder: remove(folder))
        for checkpoint in checkpoints:
            files = [checkpoint / "model", checkpoint / "deep/state"]
            assert all(path.exists() for path in files) or not (checkpoint / COMPLETE).exists()
            assert not is_complete(checkpoint) or all(path.exists() for path in files)
        remove(folder)
        assert not folder.exists()
        if not killed:
            break
    assert number > 10
