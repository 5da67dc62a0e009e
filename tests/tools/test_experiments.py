"""The table of experiments: what was changed first, and no wider than a terminal."""

import io
import json

import pytest

from tools import experiments


def run(name, rate, vit, padim=0.9, kernel=3):
    params = {"train_vit": {"learning_rate": rate, "seed": 0}, "fit_baseline": {"kernel": kernel}}
    summary = {
        "padim": {"image_auroc": padim, "recall": 1.0, "unseen": {"blur": 0.5}},
        "vit": {"image_auroc": vit, "recall": vit / 2, "unseen": {"blur": vit / 3, "noise": 0.1}},
    }
    return {
        "rev": "1" * 40,
        "name": name,
        "data": {
            "params": {"params.yaml": {"data": params}},
            "metrics": {"metrics/summary.json": {"data": summary}},
        },
    }


def shown(*runs):
    first, *others = runs
    queued = {"revs": [{"rev": "7654321", "data": None}]}
    return [
        {**run("", 5, 0.1), "rev": "workspace"},
        {**first, "experiments": [queued, *({"revs": [each]} for each in others)]},
    ]


def printed(monkeypatch, capsys, *runs):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(shown(*runs))))
    experiments.main()
    return capsys.readouterr().out


def test_what_was_changed_comes_first_then_what_moved(monkeypatch, capsys):
    text = printed(monkeypatch, capsys, run("main", 2e-5, 0.9), run("soapy-gulf", 1e-5, 0.95))
    assert [line.split() for line in text.splitlines()] == [
        ["vit."],
        ["train_vit.", "vit.", "unseen.", "vit."],
        ["experiment", "learning_rate", "image_auroc", "blur", "recall"],
        ["main", "2e-05", "0.9", "0.3", "0.45"],
        ["soapy-gulf", "1e-05", "0.95", "0.3167", "0.475"],
    ]


def test_it_fits_a_terminal_and_keeps_every_changed_param(monkeypatch, capsys):
    runs = [run(f"an-experiment-{n}", 1e-5 * n, 0.7 + n / 100, n / 10, n) for n in range(1, 4)]
    text = printed(monkeypatch, capsys, *runs)
    assert max(map(len, text.splitlines())) <= 80
    head = next(line for line in text.splitlines() if line.startswith("experiment")).split()
    assert head[:3] == ["experiment", "learning_rate", "kernel"]
    assert len(head) >= 5


def test_without_metrics_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps([])))
    with pytest.raises(SystemExit, match="no experiment has metrics yet; run some"):
        experiments.main()
