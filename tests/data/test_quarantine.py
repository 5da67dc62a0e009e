import pytest

from blackswan.data.quarantine import Failure, Quarantine, attempt
from blackswan.errors import InputError


def fail(kind):
    raise kind("x.png is broken; replace it")


def test_the_fault_of_an_image_is_kept_and_any_other_ends_the_run():
    assert attempt("x.png", lambda: 3) == 3
    failed = attempt("x.png", lambda: fail(InputError))
    assert failed == Failure("x.png", "x.png is broken; replace it")
    with pytest.raises(MemoryError):
        attempt("x.png", lambda: fail(MemoryError))


def test_without_a_share_the_first_failure_is_what_the_run_ends_with():
    with pytest.raises(InputError, match=r"^x.png is broken$"):
        Quarantine(10, 0.09, "a.b").add(Failure("x.png", "x.png is broken"))


def test_a_share_may_fail_and_one_more_may_not(tmp_path):
    quarantine = Quarantine(10, 0.25, "build_dataset.max_failed_share")
    for name in ("b.png", "a,b.png", "b.png"):
        quarantine.add(Failure(name, f"{name} is broken"))
    quarantine.write(tmp_path)
    assert (tmp_path / "quarantine.csv").read_text() == (
        'path,reason\n"a,b.png","a,b.png is broken"\nb.png,b.png is broken\n'
    )
    assert quarantine.told(tmp_path) == (
        f"; 2 of 10 images failed, see {tmp_path / 'quarantine.csv'}"
    )
    with pytest.raises(InputError, match=r"more than 2 of 10 images fail.*b.png is broken"):
        quarantine.add(Failure("c.png", "c.png is broken"))


def test_nothing_that_failed_is_a_header_and_no_word(tmp_path):
    quarantine = Quarantine(10, 0, "a.b")
    quarantine.write(tmp_path)
    assert (tmp_path / "quarantine.csv").read_text() == "path,reason\n"
    assert quarantine.told(tmp_path) == ""
