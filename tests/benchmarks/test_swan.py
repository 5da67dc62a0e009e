"""The picture of the README: what is changed for it, and what is committed."""

from pathlib import Path

import yaml
from conftest import ROOT
from PIL import Image

from benchmarks import swan


def test_the_clip_and_no_more_than_the_changes_replace_params():
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    changed = swan.params_of(Path("/clips/../clips/swan.mp4"), params)
    assert changed["source"]["path"] == "/clips/swan.mp4"
    assert changed["evaluate"] == params["evaluate"] | {"alpha": 0.1}
    differing = {block for block in params if changed[block] != params[block]}
    assert differing == {"source", *swan.CHANGES}
    for block, values in swan.CHANGES.items():
        assert changed[block].keys() == params[block].keys()  # no key that no stage knows
        assert values.items() <= changed[block].items()


def test_the_committed_picture_is_small_and_has_three_panels():
    assert swan.PICTURE.stat().st_size < 200_000
    with Image.open(swan.PICTURE) as image:
        assert image.width == 3 * swan.WIDTH + 2 * 6


def test_the_readme_shows_the_picture_and_credits_the_clip():
    head = (ROOT / "README.md").read_text()[:2000]
    assert "](benchmarks/swan.jpg)" in head
    assert "CC BY 4.0" in head
    assert "DAVIS 2016" in head
