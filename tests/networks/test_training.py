import itertools

import numpy as np
import pytest
import torch
from kills import killed_at
from safetensors.torch import save
from torch import nn

from blackswan.errors import InputError
from blackswan.networks import training
from blackswan.networks.checkpoints import COMPLETE, remove
from blackswan.networks.training import Schedule, Shuffled, curve, torch_seed, train
from blackswan.seeds import generator

SCHEDULE = Schedule(steps=20, learning_rate=0.05, weight_decay=1e-3)


class KilledError(Exception):
    """Stands for a kill: nothing after it runs."""


class Task:
    """A small network with a memory layout, a norm (buffers) and dropout (randomness of torch)."""

    def __init__(self):
        with torch_seed(generator(0, "weights")):
            self.network = nn.Sequential(
                nn.Conv2d(3, 8, 3),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Conv2d(8, 2, 3),
            ).to(memory_format=torch.channels_last)
        self.begun = 0

    def loss(self, step):
        rng = generator(0, f"step {step}")
        x = torch.from_numpy(rng.normal(size=(2, 3, 9, 9))).float()
        with torch_seed(rng):
            return (self.network(x) - x[:, :2, 2:-2, 2:-2]).square().mean()

    def begin(self):
        self.begun += 1

    def run(self, folder, schedule=SCHEDULE, loss=None):
        return train(self.network, loss or self.loss, schedule, folder, "task", self.begin)


def stopped_at(task, last):
    def loss(step):
        if step == last:
            raise KilledError
        return task.loss(step)

    return loss


@pytest.mark.parametrize("step", [0, 7, 19])
def test_a_killed_run_ends_with_the_bytes_of_one_that_was_not(tmp_path, monkeypatch, step):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    whole, killed, resumed = Task(), Task(), Task()
    losses = whole.run(tmp_path / "whole/run")
    with pytest.raises(KilledError):
        killed.run(tmp_path / "killed/run", loss=stopped_at(killed, step))
    assert [path.name for path in (tmp_path / "killed/run").iterdir()] == [f"checkpoint-{step}"]
    again = resumed.run(tmp_path / "killed/run")
    assert np.array_equal(losses, again)
    for name, tensor in whole.network.state_dict().items():
        assert torch.equal(tensor, resumed.network.state_dict()[name]), name
    assert (whole.begun, killed.begun, resumed.begun) == (1, 1, 0)


def test_a_half_written_checkpoint_is_not_resumed(tmp_path):
    task = Task()
    losses = task.run(tmp_path / "run")
    (checkpoint,) = (tmp_path / "run").iterdir()
    assert checkpoint.name == "checkpoint-20"
    (checkpoint / COMPLETE).unlink()
    again = Task()
    assert np.array_equal(again.run(tmp_path / "run"), losses)
    assert again.begun == 1


def test_killed_anywhere_in_its_clean_up_it_ends_with_the_same_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SECONDS_BETWEEN_CHECKPOINTS", 0)
    schedule = Schedule(steps=3, learning_rate=0.05, weight_decay=1e-3)

    def fit_and_clean_up():
        task, folder = Task(), tmp_path / "task"
        losses = torch.from_numpy(task.run(folder / "run", schedule))
        tensors = {**task.network.state_dict(), "losses": losses}
        output = save({name: tensor.contiguous() for name, tensor in tensors.items()})
        (tmp_path / "out").write_bytes(output)
        remove(folder)

    fit_and_clean_up()
    undisturbed = (tmp_path / "out").read_bytes()
    for number in itertools.count(1):
        (tmp_path / "out").unlink()
        killed = killed_at(number, fit_and_clean_up)
        if not killed:
            break
        (tmp_path / "out").unlink(missing_ok=True)
        fit_and_clean_up()
        assert (tmp_path / "out").read_bytes() == undisturbed
        assert not (tmp_path / "task").exists()
    assert number > 20


def test_steps_are_those_of_adam_with_a_decay_at_the_end(tmp_path):
    ours, theirs = Task(), Task()
    ours.run(tmp_path / "run")
    optimizer = torch.optim.Adam(theirs.network.parameters(), lr=0.05, weight_decay=1e-3)
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 0.05 if step < 19 else 0.005
        optimizer.zero_grad()
        theirs.loss(step).backward()
        optimizer.step()
    for name, tensor in theirs.network.state_dict().items():
        assert torch.equal(tensor, ours.network.state_dict()[name]), name


def test_torch_keeps_its_own_randomness():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch_seed(generator(0, "a")):
        drawn = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with torch_seed(generator(0, "a")):
        assert torch.equal(torch.rand(2), drawn)


def test_a_log_shows_the_mean_loss_of_each_tenth(tmp_path, capfd):
    losses = Task().run(tmp_path / "run")
    printed, errors = capfd.readouterr()
    means = losses.reshape(10, 2).mean(1)
    assert printed.splitlines() == [
        f"task: step {2 * tenth} of 20, loss {mean:.5f}" for tenth, mean in enumerate(means, 1)
    ]
    assert errors == ""


def test_a_loss_that_is_no_number_is_told(tmp_path):
    task = Task()
    with pytest.raises(InputError, match="task: the loss is not finite at step 0; lower learning"):
        task.run(tmp_path / "run", loss=lambda step: task.loss(step) * float("nan"))


def test_each_pass_takes_every_item_once_in_another_order():
    order = Shuffled(10, lambda n: generator(0, f"pass {n}"))
    taken = [order[step] for step in range(20)]
    assert sorted(taken[:10]) == sorted(taken[10:]) == list(range(10))
    assert taken[:10] != taken[10:]


def test_the_curve_is_the_mean_of_stretches():
    assert curve(np.array([4, 2, 1, 0.5], np.float32), points=2) == "step,loss\n2,3\n4,0.75\n"
    assert curve(np.array([4], np.float32)) == "step,loss\n1,4\n"
