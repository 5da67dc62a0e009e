"""A model is the one that was registered, byte by byte, or it is not loaded."""

import pytest

from blackswan.errors import InputError
from blackswan.tracking import manifest


@pytest.fixture
def packed(tmp_path):
    (tmp_path / "fitted").mkdir()
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "fitted/weights.safetensors").write_bytes(b"weights")
    manifest.write(tmp_path, "code")
    return tmp_path


def test_the_manifest_is_known_by_what_it_lists(packed):
    manifest.check(packed)
    digest = manifest.digest(packed / manifest.MANIFEST)
    assert manifest.write(packed, "code") == digest
    assert manifest.write(packed, "other code") != digest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: (path / "model.json").unlink(), r"model\.json is missing, so this is not"),
        (lambda path: (path / "model.json").write_text("{ }"), r"model\.json differs from .*"),
        (lambda path: (path / "fitted/more").touch(), r"fitted/more is not listed in .*manifest"),
        (lambda path: (path / "manifest.json").unlink(), r"manifest\.json is missing"),
        (lambda path: (path / "manifest.json").write_text("[]"), r"manifest\.json: "),
    ],
)
def test_what_was_changed_is_named(packed, change, said):
    change(packed)
    with pytest.raises(InputError, match=said):
        manifest.check(packed)
