from typing import Literal

import pytest
from pydantic import Field, ValidationError

from blackswan.errors import InputError
from blackswan.params import Section, load_section


class Inner(Section):
    ratio: float = Field(ge=0, le=1)
    name: str


class Outer(Section):
    seed: int
    inner: Inner
    mode: Literal["none"] | tuple[int, int]


GOOD = "a:\n  b:\n    seed: 3\n    inner:\n      ratio: 0.5\n      name: x\n    mode: none\n"


@pytest.fixture
def load(tmp_path):
    def load(text, kind=Outer, key="a.b"):
        path = tmp_path / "p.yaml"
        path.write_text(text)
        return load_section(kind, key, path)

    return load


def test_a_dotted_key_leads_to_its_block(load):
    section = load(GOOD)
    assert section == Outer(seed=3, inner=Inner(ratio=0.5, name="x"), mode="none")
    with pytest.raises(ValidationError, match="frozen"):
        section.seed = 4


def test_an_empty_block_is_a_block_without_keys(load):
    class Empty(Section):
        pass

    assert load("a:\n  b:\n", Empty) == Empty()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed: 3", "sede: 3", "a.b.sede is not a known key; did you mean seed?"),
        ("ratio: 0.5", "ratoi: 0.5", "a.b.inner.ratoi is not a known key; did you mean ratio?"),
        ("seed: 3", "seed: 3\n    zzz: 1", "a.b.zzz is not a known key; remove it"),
        ("seed: 3\n    ", "", "a.b.seed is missing; add it"),
        ("ratio: 0.5", "ratio: 2", "a.b.inner.ratio = 2: Input should be less than or equal to 1"),
        ("seed: 3", "seed: x", "a.b.seed = 'x': Input should be a valid integer"),
        ("mode: none", "mode: 3", "a.b.mode = 3: "),
        ("a:", "c:", "has no block a.b; add it"),
        ("a:", "a: 3\nc:", "has no block a.b; add it"),
        ("a:", "a: [", "is not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_in_full(load, old, new, message):
    with pytest.raises(InputError) as caught:
        load(GOOD.replace(old, new))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^params.yaml is missing; run from the top"):
        load_section(Outer, "a")
    with pytest.raises(
        InputError, match="detector.json is missing; make it again with `dvc repro`"
    ):
        load_section(Outer, "a", tmp_path / "detector.json")
