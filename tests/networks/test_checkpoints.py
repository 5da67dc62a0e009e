from pathlib import Path

from blackswan.networks.checkpoints import COMPLETE, last_complete


def test_a_half_written_checkpoint_and_those_of_other_runs_are_deleted(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own / "checkpoint-3", own / "checkpoint-12", own / "checkpoint-15", other):
        folder.mkdir(parents=True)
    for name in ("checkpoint-3", "checkpoint-12"):
        (own / name / COMPLETE).touch()
    assert last_complete(own) == own / "checkpoint-12"
    assert sorted(path.name for path in own.iterdir()) == ["checkpoint-12", "checkpoint-3"]
    assert not other.exists()


def test_without_a_complete_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    assert last_complete(tmp_path / "runs/none") is None
