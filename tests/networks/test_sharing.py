from types import SimpleNamespace

import pytest
import torch
from transformers import Trainer

from blackswan.networks.sharing import IGNORED, OUTSIDE, SharingTrainer


@pytest.mark.parametrize(
    ("process", "end", "remainder", "counted"),
    [(0, True, 3, 2), (1, True, 3, 1), (2, True, 3, 0), (1, True, 0, 2), (1, False, 3, 2)],
)
def test_what_fills_up_the_last_batch_counts_for_nothing(
    monkeypatch, process, end, remainder, counted
):
    monkeypatch.setattr(Trainer, "_prepare_inputs", lambda self, inputs: inputs)
    trainer = object.__new__(SharingTrainer)
    trainer.args = SimpleNamespace(process_index=process)
    state = SimpleNamespace(end_of_dataloader=end, remainder=remainder)
    trainer.accelerator = SimpleNamespace(gradient_state=state)
    inputs = trainer._prepare_inputs({"labels": torch.ones(2), "masks": torch.ones(2, 1, 1)})
    assert inputs["labels"].tolist() == [1, 1][:counted] + [IGNORED] * (2 - counted)
    assert inputs["masks"].flatten().tolist() == [1, 1][:counted] + [OUTSIDE] * (2 - counted)
