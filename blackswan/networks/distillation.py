"""What distill_teacher teaches: views of images, and what a backbone says of their patches."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from blackswan.networks import pdn
from blackswan.networks.backbones import Backbone
from blackswan.networks.embeddings import channel_statistics, concatenate
from blackswan.networks.pdn import Size
from blackswan.networks.training import Shuffled
from blackswan.seeds import generator

GRAY = 0.1  # share of the views that lose their colours

Read = Callable[[], np.ndarray]  # returns RGB, uint8 (H, W, 3)


class Views:
    """Random views of the images, each from a generator named after its number."""

    def __init__(self, pools: list[list[Read]], seed: int, purpose: str) -> None:
        self.pools, self.seed, self.names = pools, seed, ("distill_teacher", purpose)
        self.orders = [self._order(turn, len(pool)) for turn, pool in enumerate(pools)]

    def _order(self, turn: int, count: int) -> Shuffled:
        return Shuffled(count, lambda n: generator(self.seed, *self.names, f"pool {turn} pass {n}"))

    def __getitem__(self, number: int) -> np.ndarray:
        """Return view `number`, uint8 (side, side, 3); the pools take turns, each in passes."""
        turn, place = number % len(self.pools), number // len(self.pools)
        image = self.pools[turn][self.orders[turn][place]]()
        return pdn.random_view(image, generator(self.seed, *self.names, f"view {number}"), GRAY)


class Scale(torch.nn.Module):
    """Brings each channel of the target to mean 0 and variance 1."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def forward(self, target: Tensor) -> Tensor:
        """Normalise (N, C, h, w)."""
        return (target - self.mean) / self.std


@torch.no_grad()
def describe(backbone: Backbone, views: list[np.ndarray], size: Size) -> Tensor:
    """Return what the teacher has to say of square views: (N, C, h, w).

    PatchCore's embedding of views at twice the size, as in the paper: layers averaged over 3 x 3
    patches and joined on a grid of 4 pixels of the smaller view, less the border without patches.
    """
    side = backbone.image_size[0] // 8
    layers = [
        avg_pool2d(layer, 3, 1, 1, count_include_pad=False) for layer in backbone.embed(views)
    ]
    lost = pdn.border(size)
    return concatenate(layers, (side, side), "bilinear")[..., lost:-lost, lost:-lost]


def measure(backbone: Backbone, views: Views, count: int, size: Size) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel of the target, (C, 1, 1), over views."""
    bar = tqdm(range(count), "normalise the target", unit="view", disable=None)
    targets = (describe(backbone, [views[number]], size) for number in bar)
    mean, std = channel_statistics(targets, sum(backbone.channels))
    return mean[:, None, None].to(backbone.device), std[:, None, None].to(backbone.device)
