import tracemalloc
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, ValidationError

from blackswan.errors import InputError
from blackswan.params import InputPath, Section, Size, block_name, load_section


class Inner(Section):
    ratio: float = Field(ge=0, le=1)
    name: str


class Outer(Section):
    seed: int
    inner: Inner
    mode: Literal["none"] | tuple[int, int]


class Clip(Section):
    path: InputPath


class Sized(Section):
    size: Size


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


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
PASTED = "AccountKey"  # what a person pasted into the wrong file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "more than 10,000 values, counting those of aliases (line 5, column 8)"),
        (MERGES, "more than 10,000 values, counting those of aliases (line 5, column 21)"),
        (f"a: [{'1, ' * 20_000}]", "more than 10,000 values"),
        (f"a: {'[' * 3000}{']' * 3000}", "more than 100 levels (line 1, column 103)"),
        (f"a:\n  {'- ' * 3000}1\n", "more than 100 levels (line 2, column 201)"),
        (f"a: {'{a: ' * 3000}", "more than 100 levels"),
        ("a: &a [*a]\n", "an alias of what it stands in (line 1, column 8)"),
        ("a: &a {<<: *a}\n", "an alias of what it stands in (line 1, column 12)"),
        ("a:\n  seed: 1\n  seed: 2\n", "the key seed stands twice (line 3, column 3)"),
        ("a: 1\na: 2\n", "the key a stands twice (line 2, column 1)"),
        ("a: 1\n---\na: 2\n", "expected a single document in the stream but found another"),
        ("a: {? [1] : 2}\n", "found unhashable key (line 1, column 7)"),
        (f"a: !!python/object/apply:os.system [{PASTED}]\n", "constructor for the tag what stands"),
        (f"a: !{PASTED} 1\n", "could not determine a constructor for the tag what stands there"),
        (f"a: *{PASTED}\n", "found undefined alias what stands there (line 1, column 4)"),
        (f"a: b\n  {PASTED}: x: y\n", "mapping values are not allowed here (line 2, column"),
        (f"a: '{PASTED}\n", "unexpected end of stream (line 2, column 1)"),
        ("a: 2001-99-99\n", "a value that YAML cannot read (line 1, column 4)"),
        (f"a: {'1' * 5000}\n", "a value that YAML cannot read (line 1, column 4)"),
        ("a: !!float x\n", "a value that YAML cannot read (line 1, column 4)"),
        ("a: !!bool x\n", "a value that YAML cannot read (line 1, column 4)"),
        ("a: !!timestamp x\n", "a value that YAML cannot read (line 1, column 4)"),
        (f"{PASTED}: \0\n", "character 12 may not stand there; remove it"),
    ],
)
def test_yaml_that_is_no_page_of_params_is_one_short_sentence(load, text, message):
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            load(text, key="a")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    said = str(caught.value)
    assert "p.yaml is not valid YAML: " in said
    assert message in said
    assert PASTED not in said
    assert "\n" not in said
    assert len(said) < 300


def test_anchors_and_merges_of_a_person_are_read(load):
    text = "base: &base\n  ratio: 0.5\n  name: x\na:\n  seed: 3\n  mode: none\n  inner:\n"
    assert load(text + "    <<: *base\n    name: z\n", key="a").inner == Inner(ratio=0.5, name="z")
    assert load(text + "    *base\n", key="a").inner == Inner(ratio=0.5, name="x")


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_a_number_is_finite(load, value):
    class Rate(Section):
        rate: float

    with pytest.raises(InputError, match=r"a.rate = -?(inf|nan): Input should be a finite number"):
        load(f"a:\n  rate: {value}\n", Rate, "a")


def test_a_long_value_or_key_is_cut(load):
    long = "x" * 100_000
    for old, new in (("seed: 3", f"seed: {long}"), ("seed: 3", f"{long[:1000]}: 3"),
                     ("mode: none", f"mode: [{long}, [{long}]]")):  # fmt: skip
        with pytest.raises(InputError) as caught:
            load(GOOD.replace(old, new))
        assert "xxx...xxx" in str(caught.value)
        assert len(str(caught.value)) < 700
    with pytest.raises(InputError, match=r"has no block xxx.*\.\.\..*xxx; add it"):
        load(GOOD, key=long)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("2024", r"a.path = 2024: YAML reads no text here; begin a name like 2024 with \./"),
        ("2024-01-02", r"a.path = datetime.date\(2024, 1, 2\): YAML reads no text here"),
        ("", "a.path = None: YAML reads no text here"),
        ("~/clip.mp4", "a.path = '~/clip.mp4': ~ is the home folder to a shell alone; write the w"),
    ],
)
def test_a_path_that_is_read_as_something_else_is_named(load, written, message):
    with pytest.raises(InputError, match=message):
        load(f"a:\n  path: {written}\n", Clip, "a")


@pytest.mark.parametrize("written", ["'2024'", "./2024", "a~b", "two words (1)"])
def test_a_path_that_is_text_is_taken(load, written):
    assert load(f"a:\n  path: {written}\n", Clip, "a").path == Path(written.strip("'"))


def test_a_file_too_large_or_of_another_encoding_is_named(load, tmp_path):
    with pytest.raises(InputError, match=r"has 1,000,00\d bytes, the limit is 1,000,000; shorten"):
        load(f"a: {'x' * 1_000_000}")
    (tmp_path / "p.yaml").write_bytes(b"a: caf\xe9\n")
    with pytest.raises(InputError, match="p.yaml is not UTF-8 at byte 6; save it as UTF-8"):
        load_section(Outer, "a", tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("stage", "name"),
    [
        ("fit_detector@padim", "padim"),
        ("../dvc.yaml:fit_detector@padim", "padim"),
        ("padim", "padim"),
        ("fetch_weights@google/vit-base-patch16-224", "google/vit-base-patch16-224"),
    ],
)
def test_a_name_is_that_of_a_stage_or_alone(stage, name):
    assert block_name("detectors", stage) == name


@pytest.mark.parametrize(
    "name",
    ["org/model-v1.5", "..", "../up", "a//b", "/a", "a/", "", "two words", "a;b", "$(a)", "`a`",
     "a'b", 'a"b', "a\n", "a|b", "-x", "ä", "x" * 1000 + "!"],
)  # fmt: skip
def test_a_name_that_dvc_or_a_folder_cannot_have_is_refused(name):
    with pytest.raises(InputError, match=r"^fetch_weights: the name .* may hold only") as caught:
        block_name("fetch_weights", f"fetch_weights@{name}")
    assert "rename the block and what names it" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("written", "size", "short"),
    [("224", (224, 224), 224), ("[320, 128]", (320, 128), [320, 128]), ("[64, 64]", (64, 64), 64)],
)
def test_a_size_is_a_square_or_height_and_width(load, written, size, short):
    found = load(f"a:\n  size: {written}\n", Sized, "a")
    assert found.size == size
    assert found.model_dump() == {"size": short}  # as it stands in a model folder


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("8", "a.size = 8: must be at least 16 pixels"),
        ("[320, 0]", "a.size = [320, 0]: must be at least 16 pixels"),
        ("[1, 2, 3]", "takes the side of a square, 224, or height and width, [320, 128]"),
        ("[]", "takes the side of a square"),
        ("224.0", "takes the side of a square"),
        ("true", "takes the side of a square"),
        ("null", "takes the side of a square"),
    ],
)
def test_what_is_no_size_is_refused(load, written, message):
    with pytest.raises(InputError) as caught:
        load(f"a:\n  size: {written}\n", Sized, "a")
    assert message in str(caught.value)
