"""The real stage on the tiny project."""

import shutil

import pandas as pd
import pytest
from conftest import Project

from blackswan.drift.corruptions import NAMES

NAME = "median_residual"
WRITTEN = [f"data/drift/{NAME}.parquet", f"metrics/drift/{NAME}.csv", f"metrics/drift/{NAME}.png"]


@pytest.fixture(scope="module")
def drifted(finished, tmp_path_factory):
    """The project after the stage, and what was there before."""
    project = Project(tmp_path_factory.mktemp("drifted") / "project")
    shutil.copytree(finished.root, project.root)
    project.set(simulate_drift__images=4)
    before = project.outputs()
    said = project.run("simulate_drift", f"drift/dvc.yaml:simulate_drift_reference@{NAME}")
    return project, before, said


def test_it_adds_a_table_a_picture_and_scores_and_changes_nothing(drifted):
    project, before, said = drifted
    after = project.outputs()
    assert before.items() <= after.items()
    assert sorted(after.keys() - before.keys()) == WRITTEN
    assert said.startswith(f"{NAME}: the promise on false alarms is never void under ")
    table = pd.read_csv(project.root / WRITTEN[1])
    assert table.drift.unique().tolist() == list(NAMES)
    steps = table[table.kind == "step"]
    assert steps.severity.tolist() == list(range(6)) * len(NAMES)
    assert (steps[["n_normal", "n_anomalous"]] == 4).all(axis=None)
    assert (table[table.kind == "ramp"].n_normal == 4).all()
    none = steps[steps.severity == 0].drop(columns=["drift", "breaks_at"])
    assert len(none.drop_duplicates()) == 1


def test_what_has_not_drifted_scores_as_in_the_evaluation(drifted):
    project, _, _ = drifted
    scores = pd.read_parquet(project.root / WRITTEN[0])
    judged = pd.read_parquet(project.root / f"data/scores/{NAME}/scores.parquet")
    none = scores[scores.drift == "none"].merge(judged, on="path", suffixes=("", "_judged"))
    assert len(none) == 8
    assert (none.image_score == none.image_score_judged).all()


def test_the_same_bytes_twice(drifted):
    project, _, _ = drifted
    before = project.outputs()
    project.run("simulate_drift", NAME)
    assert project.outputs() == before


def test_bad_input_ends_in_one_sentence(tiny_project):
    assert "no detector nothing" in tiny_project.refuse("simulate_drift", "nothing")
    tiny_project.set(simulate_drift__images=0)
    assert "simulate_drift.images" in tiny_project.refuse("simulate_drift", NAME)
