"""Agreement by hand-computed values; the interval is the same for one seed."""

import pytest
from drawn_proposals import row

from blackswan.errors import InputError
from blackswan.proposals.agreement import DRAWS, kappa, report
from blackswan.proposals.table import opened

N, A = "normal", "anomalous"


def test_kappa_by_hand():
    # 20 images: 9 both normal, 6 both anomalous, 5 differ; chance (0.6 * 0.55 + 0.4 * 0.45) = 0.51
    truth = [N] * 12 + [A] * 8
    said = [N] * 9 + [A] * 3 + [N] * 2 + [A] * 6
    found = kappa(truth, said, 0)
    assert found["kappa"] == pytest.approx((0.75 - 0.51) / 0.49)
    assert -1 <= found["low"] < found["kappa"] < found["high"] <= 1
    assert kappa(truth, said, 0) == found
    assert kappa(truth, said, 1)["low"] != found["low"]


def test_kappa_of_one_label_is_not_defined():
    assert kappa([N] * 3, [N] * 3, 0) == {
        "kappa": None, "low": None, "high": None, "undefined_draws": DRAWS,
    }  # fmt: skip
    assert kappa([], [], 0)["kappa"] is None
    found = kappa([N, N, A], [N, N, A], 0)
    assert found["kappa"] == 1
    assert 0 < found["undefined_draws"] < DRAWS


def test_a_report_counts_what_each_model_said(tmp_path):
    path = tmp_path / "proposals.csv"
    with opened(path) as table:
        table.add(row(1))
        table.add(row(2, label=A, defect="hole", disagrees=True))
        table.add(row(3, status="disputed", verdict=A, disagrees=True))
        table.add(row(4, status="abstained", label="", defect="", reason="the model refused"))
        table.add(row(5))
        table.add(row(1, model="other", label=A, defect="new", cost=0.5))
    labels = {"1.png": N, "2.png": A, "3.png": A, "4.png": A, "8.png": N}
    found = report(path, labels, 0)
    gpt, other = found["by"]
    assert (gpt["asked"], gpt["reviewed"], gpt["answered"], gpt["right"]) == (5, 4, 3, 2)
    assert (gpt["disputed"], gpt["disputed_right"]) == (1, 0)
    assert gpt["abstained"] == {"the model refused": 1}
    assert (gpt["tokens_in"], gpt["tokens_out"]) == (4500, 250)
    assert gpt["cost"] == pytest.approx(0.011)
    # Model and detector are each right on two of the three that were answered.
    assert gpt["kappa"]["kappa"] == gpt["kappa_of_detector"]["kappa"] == pytest.approx(0.4)
    assert (other["model"], other["right"], other["cost"]) == ("other", 0, 0.5)
    with pytest.raises(InputError, match="no image of .* has a label there; name a table whose"):
        report(path, {"x.png": N}, 0)
