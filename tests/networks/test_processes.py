from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from blackswan.errors import InputError
from blackswan.networks import processes
from blackswan.networks.training import Schedule, train


def several(monkeypatch, number):
    monkeypatch.setattr(processes, "join", lambda: SimpleNamespace(num_processes=number))


@pytest.mark.parametrize(("number", "share"), [(1, 8), (2, 4), (8, 1)])
def test_processes_share_the_batch_of_one(monkeypatch, number, share):
    several(monkeypatch, number)
    assert processes.share_of(8, "train_vit.batch_size") == share


@pytest.mark.parametrize(("number", "near"), [(3, 6), (16, 16)])
def test_a_batch_that_cannot_be_shared_is_refused_by_its_key(monkeypatch, number, near):
    several(monkeypatch, number)
    sentence = (
        f"^train_vit.batch_size = 8 cannot be shared by {number} processes; choose a multiple of "
        f"{number}, such as {near}, or"
    )
    with pytest.raises(InputError, match=sentence):
        processes.share_of(8, "train_vit.batch_size")


@pytest.fixture
def two(monkeypatch):
    """Torch believes in another process, which has counted one."""
    monkeypatch.setattr(processes.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(processes.distributed, "all_reduce", lambda count: count.add_(1))


def test_a_lone_process_takes_the_mean_of_torch():
    found, wanted = torch.tensor([1.0, 3.0, 8.0]), torch.zeros(3)
    assert processes.mean_loss(functional.l1_loss, found, wanted, torch.tensor(3)).item() == 4


def test_processes_with_unlike_counts_weigh_alike_in_the_mean_of_their_losses(two):
    found, wanted, none = torch.tensor([1.0, 3.0, 8.0]), torch.zeros(3), torch.zeros(0)
    loss = processes.mean_loss(functional.l1_loss, found, wanted, torch.tensor(3))
    assert loss.item() == 12 / 2  # 3 here and 1 there are 2 each
    assert processes.mean_loss(functional.l1_loss, none, none, torch.tensor(0)).item() == 0


def test_a_lone_process_computes_every_batch_in_order():
    made = processes.computed_together(lambda rows: {"row": torch.tensor(list(rows))}, 7, 3)
    assert [batch["row"].tolist() for batch in made] == [[0, 1, 2], [3, 4, 5], [6]]


@pytest.mark.parametrize(("rank", "waits"), [("0", []), ("1", [processes.SECONDS_FOR_RANK_0])])
def test_rank_0_speaks_first(monkeypatch, rank, waits):
    waited = []
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(processes.time, "sleep", waited.append)

    def fails():
        raise InputError("params.yaml is missing")

    with pytest.raises(InputError, match="params.yaml is missing"):
        processes.one_voice(fails)()
    assert waited == waits


def test_a_loop_that_one_process_runs_refuses_several(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="efficient_ad is learnt by one process; start its stage"):
        train(
            torch.nn.Linear(1, 1), lambda step: None, Schedule(1, 0.1, 0), tmp_path, "efficient_ad"
        )
    assert list(tmp_path.iterdir()) == []
