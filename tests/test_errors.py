import errno
import sys

import pytest

from blackswan.errors import InputError, run


@pytest.fixture(autouse=True)
def script(tmp_path, monkeypatch):
    path = tmp_path / "stage.py"
    path.touch()
    monkeypatch.setattr(sys, "argv", [str(path)])


def ends_with(error):
    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        run(main)
    return ended.value.code


def test_what_a_person_can_mend_ends_in_one_sentence():
    assert ends_with(InputError("a.png is empty; remove it")) == "error: a.png is empty; remove it"
    denied = PermissionError(errno.EACCES, "Permission denied", "data/x.mp4")
    assert ends_with(denied).startswith("error: no permission for data/x.mp4; make it readable")
    full = OSError(errno.ENOSPC, "No space left on device")
    assert ends_with(full).startswith("error: the disk is full; free some space")
    said = RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert ends_with(said).startswith("error: the disk is full")


def test_under_dvc_it_says_where_the_last_outputs_are(monkeypatch):
    monkeypatch.setenv("DVC_STAGE", "label")
    first, second = ends_with(InputError("a.png is empty; remove it")).splitlines()
    assert first == "error: a.png is empty; remove it"
    assert second.startswith("`dvc checkout` brings back")


def test_a_bug_keeps_its_traceback():
    def main():
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run(main)


def test_a_script_that_succeeds_says_nothing(capsys):
    done = []
    run(lambda: done.append(1))
    assert done == [1]
    assert capsys.readouterr() == ("", "")
