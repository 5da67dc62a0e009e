"""The check of what the benchmarks measured: a move makes nothing stale, a change does."""

import json
import re

import pytest
from conftest import ROOT

from benchmarks import measured

SCRIPT = """
from blackswan.detectors.bank import nearest

K = 3

def score(x):
    return nearest(x, K)
"""
MODULE = '''
FLOOR = 0

def nearest(x, k):
    """Return the nearest."""
    return x[FLOOR:k]

def farthest(x):
    return x[-1]
'''


@pytest.fixture
def tree(tmp_path):
    """A script and the module that it imports."""
    write(tmp_path, "benchmarks/run.py", SCRIPT)
    write(tmp_path, "blackswan/detectors/bank.py", MODULE)
    write(tmp_path, "blackswan/unused.py", "A = 1\n")
    return tmp_path


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def code(root):
    return measured.Code(root).hash(["benchmarks/run.py"])


def test_what_a_script_does_not_import_does_not_count(tree):
    before = code(tree)
    write(tree, "blackswan/unused.py", "A = 2\n")
    assert code(tree) == before


def test_moving_and_explaining_code_makes_nothing_stale(tree):
    before = code(tree)
    (tree / "blackswan/detectors/bank.py").unlink()
    write(tree, "blackswan/memory/nearest.py", MODULE.replace("the nearest", "what is near"))
    write(tree, "benchmarks/run.py", SCRIPT.replace("detectors.bank", "memory.nearest") + "# why\n")
    assert code(tree) == before


@pytest.mark.parametrize(
    ("file", "text", "other"),
    [
        ("benchmarks/run.py", "K = 3", "K = 4"),
        ("blackswan/detectors/bank.py", "FLOOR:k", "k:FLOOR"),
        ("blackswan/detectors/bank.py", "FLOOR = 0", "FLOOR = 1"),
    ],
)
def test_another_value_or_another_line_does(tree, file, text, other):
    before = code(tree)
    write(tree, file, (tree / file).read_text().replace(text, other))
    assert code(tree) != before


def test_of_a_module_counts_what_is_used(tree):
    before = code(tree)
    write(tree, "blackswan/detectors/bank.py", MODULE.replace("x[-1]", "x[-2]"))
    assert code(tree) == before
    write(tree, "benchmarks/run.py", SCRIPT.replace("bank import nearest", "bank import farthest"))
    assert code(tree) != before


@pytest.mark.parametrize(
    ("use", "counts"), [("bank.nearest(x, K)", False), ("fit(bank)", True), ("bank.farthest", True)]
)
def test_of_a_module_that_is_handed_on_counts_all(tree, use, counts):
    script = SCRIPT.replace("detectors.bank import nearest", "detectors import bank")
    write(tree, "benchmarks/run.py", script.replace("nearest(x, K)", use))
    before = code(tree)
    write(tree, "blackswan/detectors/bank.py", MODULE.replace("x[-1]", "x[-2]"))
    assert (code(tree) != before) == counts


def test_a_name_that_a_module_hands_on_counts_where_it_is_defined(tree):
    write(tree, "blackswan/patches.py", "from blackswan.detectors.bank import nearest, farthest\n")
    script = SCRIPT.replace(".detectors.bank import nearest", " import patches")
    write(tree, "benchmarks/run.py", script.replace("nearest(", "patches.nearest("))
    before = code(tree)
    write(tree, "blackswan/detectors/bank.py", MODULE.replace("x[-1]", "x[-2]"))
    assert code(tree) == before
    write(tree, "blackswan/detectors/bank.py", MODULE.replace("FLOOR:k", "k:FLOOR"))
    assert code(tree) != before


def test_of_a_script_that_is_imported_its_own_run_does_not_count(tree):
    main = "def main():\n    return farthest([1])\n\nif __name__ == '__main__':\n    main()\n"
    write(
        tree, "benchmarks/other.py", f"from blackswan.detectors.bank import farthest\nN = 1\n{main}"
    )
    write(tree, "benchmarks/run.py", f"from other import N\n{SCRIPT}\nM = N\n")
    before = code(tree)
    write(tree, "blackswan/detectors/bank.py", MODULE.replace("x[-1]", "x[-2]"))
    assert code(tree) == before


def test_how_work_is_divided_counts_for_speeds_alone(tree):
    write(tree, "blackswan/parallel.py", "def spread(x):\n    return x\n")
    write(tree, "benchmarks/run.py", "from blackswan.parallel import spread\nspread([1])\n")
    speed = ["benchmarks/run.py", *measured.SPEED]
    before, before_of_speed = code(tree), measured.Code(tree).hash(speed)
    write(tree, "blackswan/parallel.py", "def spread(x):\n    return [*x]\n")
    assert code(tree) == before
    assert measured.Code(tree).hash(speed) != before_of_speed


def test_a_pipeline_counts_its_params_but_not_their_comments(tree):
    write(tree, "params.yaml", "a: 1  # one\n")
    entries = ["benchmarks/run.py", "params.yaml"]
    before = measured.Code(tree).hash(entries)
    write(tree, "params.yaml", "a: 1\n")
    assert measured.Code(tree).hash(entries) == before
    write(tree, "params.yaml", "a: 2\n")
    assert measured.Code(tree).hash(entries) != before


def test_the_settings_of_a_shell_script_count_but_not_its_comments(tree):
    entries = ["benchmarks/run.sh"]
    write(tree, "benchmarks/run.sh", "# a\nsize=336\n")
    before = measured.Code(tree).hash(entries)
    write(tree, "benchmarks/run.sh", "# b\nsize=336\n")
    assert measured.Code(tree).hash(entries) == before
    write(tree, "benchmarks/run.sh", "# b\nsize=448\n")
    assert measured.Code(tree).hash(entries) != before


def test_stale_results_are_listed_until_they_are_measured_again(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(ROOT)
    hashes = json.loads(measured.HASHES.read_bytes())
    monkeypatch.setattr(measured, "HASHES", tmp_path / "measured.json")
    watched = {name: measured.RESULTS[name] for name in ("photos.json", "intervals.json")}
    monkeypatch.setattr(measured, "RESULTS", watched)
    measured.HASHES.write_text(json.dumps({**hashes, "photos.json": "of other code"}))
    monkeypatch.setattr("sys.argv", ["measured.py"])
    measured.main()
    assert "benchmarks/photos.json: its code has changed since" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["measured.py", "photos.json"])
    measured.main()
    assert "photos.json" not in measured.stale()


def test_every_result_that_the_readme_cites_is_watched():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    said = "".join(page.read_text() for page in pages)
    cited = set(re.findall(r"\]\((?:\.\./)?benchmarks/([^)]+\.(?:json|csv|md))\)", said))
    others = {"screw/teacher_losses.csv", "screw/efficient_ad_losses.csv"}  # of the same run
    assert len(cited) >= 5
    assert cited - others <= set(measured.RESULTS)
    assert set(json.loads((ROOT / measured.HASHES).read_bytes())) == set(measured.RESULTS)
    for result, entries in measured.RESULTS.items():
        assert (ROOT / "benchmarks" / result).exists()
        assert [entry for entry in entries if not (ROOT / entry).exists()] == []
