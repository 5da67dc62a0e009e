"""What is refused before training is what a fit or an evaluation would refuse, and no more."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT

from blackswan.data.records import Frame
from blackswan.data.shortages import Shortage
from blackswan.detectors import dino_memory, patchcore
from blackswan.errors import InputError
from blackswan.evaluation import support
from blackswan.evaluation.support import Fit
from blackswan.evaluation.thresholds import conformal_threshold
from blackswan.params import load_section

SETTINGS = {"alpha": 0.05, "choice": "auto", "guard_seconds": 0.0, "seed": 0}


def never(images):
    return None


def photos(train, validation):
    splits = ["train"] * train + ["validation"] * validation
    rows = [(split, f"{number}", None) for number, split in enumerate(splits)]
    return pd.DataFrame(rows, columns=["split", "group", "timestamp_s"])


def clip(train, validation):
    facts = photos(train, validation)
    return facts.assign(group="clip/" + facts.group, timestamp_s=np.arange(len(facts)) / 10)


@pytest.mark.parametrize("count", [1, 2, 9, 18, 19, 48, 97])
def test_the_alpha_it_names_is_the_smallest_that_both_ways_of_calibrating_can_have(count):
    fits = [Fit("vit", False, never), Fit("padim", True, never)]
    normals = photos(3, count)
    [shortage] = support.unsupported(normals, fits, **SETTINGS | {"alpha": 0.001})
    alpha = float(shortage.setting.removeprefix("evaluate.alpha="))
    assert support.unsupported(normals, fits, **SETTINGS | {"alpha": alpha}) == []
    conformal_threshold(np.arange(count), alpha)
    with pytest.raises(InputError):
        conformal_threshold(np.arange(count), alpha - 2e-6)
    assert f"{count} normal validation images that calibrate vit" in shortage.problem
    assert f"{count + 3} normal images that calibrate padim" in shortage.problem


@pytest.mark.parametrize(
    ("choice", "refits", "learnt"),
    [("auto", True, 19), ("auto", False, 14), ("split", True, 14)],
)
def test_a_rule_is_asked_of_the_smallest_fit_that_will_be_made(choice, refits, learnt):
    asked = []
    fits = [Fit("memory", refits, asked.append)]
    support.unsupported(photos(14, 6), fits, **SETTINGS | {"choice": choice})
    assert asked == [learnt]  # of 20, each of 20 folds leaves out 1


def test_a_clip_too_short_for_blocks_gets_the_split_and_an_alpha_for_it():
    fits = [Fit("padim", True, never)]
    normals = clip(8, 4)
    settings = SETTINGS | {"guard_seconds": 3.0, "alpha": 0.1}
    blocks, alpha = support.unsupported(normals, fits, **settings)
    assert "12 normal frames and split.guard_seconds = 3 leave no 5 blocks" in blocks.problem
    assert (blocks.setting, alpha.setting) == ("evaluate.calibration=split", "evaluate.alpha=0.2")
    assert support.unsupported(normals, fits, **settings | {"choice": "split", "alpha": 0.2}) == []


def test_photos_of_one_group_cannot_be_dealt_into_folds():
    fits = [Fit("padim", True, never)]
    normals = photos(10, 30).assign(group="one")
    [shortage] = support.unsupported(normals, fits, **SETTINGS)
    assert "at least 2 groups, there is 1" in shortage.problem


def test_only_normals_of_train_and_validation_count(tmp_path):
    splits, labels = ("train", "validation", "test"), ("normal", "anomalous")
    records = [
        Frame(f"{split}{label}{number}", "", group=f"{split}{number}", split=split, label=label)
        for split in splits for label in labels for number in range(10)
    ]  # fmt: skip
    blocks = yaml.safe_load((ROOT / "params.yaml").read_text())
    blocks["detectors"] = {"padim": blocks["detectors"]["padim"]}
    blocks["compare"]["references"] = {}
    path = tmp_path / "params.yaml"
    blocks["evaluate"]["alpha"] = 1 / 21
    path.write_text(yaml.safe_dump(blocks))
    support.check(records, 0.0, path)
    blocks["evaluate"]["alpha"] = 1 / 22
    path.write_text(yaml.safe_dump(blocks))
    with pytest.raises(InputError, match="too small for 20 normal images that calibrate padim"):
        support.check(records, 0.0, path)


def test_where_only_more_images_help_no_setting_is_said_to_work():
    said = support.described([Shortage("one is none"), Shortage("b = 2 is much", "b=1")])
    assert said == "too few images: one is none; b = 2 is much; add normal images"


def test_every_detector_of_the_table_is_asked_and_those_alone():
    fits = support.fits_of([], ["vit", "median_residual"])
    assert [(fit.name, fit.refits) for fit in fits] == [("vit", False), ("median_residual", True)]
    with pytest.raises(InputError, match="no detector crystal_ball"):
        support.fits_of(["crystal_ball"], [])
    with pytest.raises(InputError, match="median_residual has a stage of its own; take it out"):
        support.fits_of(["median_residual"], [])


def params_of(module, name, **changes):
    block = load_section(module.Params, f"detectors.{name}").model_dump()
    return module.Params(**block | changes)


def test_the_references_that_dino_memory_names_are_enough():
    rule = partial(dino_memory.shortage, 7)
    shortage = rule(params_of(dino_memory, "dino_memory", references=16))
    assert shortage.setting == "detectors.dino_memory.references=7"
    assert rule(params_of(dino_memory, "dino_memory", references=7)) is None
    more = rule(params_of(dino_memory, "dino_memory", references=8))
    assert more.setting == "detectors.dino_memory.references=7"


@pytest.mark.parametrize("changes", [{"neighbors": 9}, {"top_fraction": None}])
def test_the_ratio_that_patchcore_names_is_enough(changes):
    rule = partial(patchcore.shortage, 9)  # at most 230,400 patches
    shortage = rule(params_of(patchcore, "patchcore", **changes, coreset_ratio=1e-5))
    assert shortage.setting == "detectors.patchcore.coreset_ratio=0.000040"
    assert rule(params_of(patchcore, "patchcore", **changes, coreset_ratio=4e-5)) is None
    less = rule(params_of(patchcore, "patchcore", **changes, coreset_ratio=3e-5))
    assert "keeps 7 of 230400 patches, fewer than" in less.problem


def test_of_fewer_patches_than_neighbors_only_more_images_help():
    params = params_of(patchcore, "patchcore", coreset_ratio=1.0, top_fraction=None)
    assert patchcore.bank_too_small(9, params) is None
    assert patchcore.bank_too_small(8, params).setting == ""
