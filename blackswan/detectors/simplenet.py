"""SimpleNet (arXiv 2303.15140): a small network that tells normal patches from noisy ones.

It learns from normal images alone: their patches are the one class, the same patches with Gaussian
noise the other. The backbone is frozen and reads each image once; what learns is a discriminator of
a few layers, on a sample of patches of bounded size. The score of a patch is its logit, which
unlike the probability does not saturate.

Apart from the paper every channel is brought to variance 1 first, so that `noise` means the same
for every backbone, and no linear adapter stands before the discriminator: its first layer is linear
too, and noise that is added behind an adapter is what the adapter learns to outgrow.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import softplus
from tqdm import trange

from blackswan.data.shortages import Shortage, too_few
from blackswan.detectors.interface import Images, Resources
from blackswan.detectors.patches import (
    Odd,
    PatchDetector,
    PatchParams,
    backbone_of,
    check_memory,
    embed_patches,
    normal_batches,
    read_detector,
    sample_patches,
    top_mean,
)
from blackswan.errors import InputError
from blackswan.networks.backbones import Backbone
from blackswan.networks.devices import in_parts
from blackswan.networks.embeddings import count_patches, neighborhood_patches
from blackswan.networks.training import torch_seed
from blackswan.seeds import generator

FITS_IN_SECONDS = True
SAMPLE = 200_000  # patches that the head learns from
BATCH = 1024  # normal patches of a step, and as many noisy ones
SLOPE = 0.2  # of the LeakyReLU, as in the paper
CONSTANT = 1e-5  # a channel that deviates by less tells nothing: noise there would tell all


class Params(PatchParams):
    """Knobs of the head; the layers are joined on the grid of the finest."""

    neighborhood: Odd  # side of the patches that are averaged
    hidden_layers: Annotated[int, Field(ge=1, le=8)]  # of the discriminator; 1 in the paper
    hidden: Annotated[int, Field(ge=1, le=4096)]  # units of each
    noise: Annotated[float, Field(gt=0)]  # standard deviation, in those of the channels
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]  # falls to 0 along a cosine
    weight_decay: Annotated[float, Field(ge=0)]  # of AdamW
    top_fraction: Annotated[float, Field(gt=0, le=1)]  # of the patches, whose mean scores an image


def shortage(images: int, params: Params) -> Shortage | None:
    """Tell where `images` normal images are too few to fit on."""
    return too_few("simplenet", images)


class Head(nn.Module):
    """Patches (N, D) go in, their logits (N,) come out: higher is more anomalous."""

    def __init__(self, dimensions: int, params: Params) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(dimensions))
        self.deviation = nn.Buffer(torch.ones(dimensions))
        widths = [dimensions, *[params.hidden] * params.hidden_layers]
        self.discriminator = nn.Sequential(
            *(
                nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), nn.LeakyReLU(SLOPE))
                for before, after in pairwise(widths)
            ),
            nn.Linear(params.hidden, 1),
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Return the logits of patches as the backbone sees them."""
        return self.logits((patches - self.mean) / self.deviation)

    def logits(self, standardized: Tensor) -> Tensor:
        """Return the logits of patches whose channels have mean 0 and variance 1."""
        return self.discriminator(standardized)[:, 0]


class Detector(PatchDetector[Params]):
    """The logit of every patch."""

    def __init__(
        self,
        params: Params,
        weights: Path,
        tensors: dict[str, Tensor],
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(params, weights, tensors, backbone)
        with torch.device("meta"):  # initial weights, which nobody needs, are not drawn
            self.head = Head(sum(self.backbone.channels), params).eval()
        self.head.load_state_dict(self.tensors, assign=True)

    def measure(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Score images by the mean of the largest logits."""
        patches = neighborhood_patches(layers, grid, self.params.neighborhood)
        # One image at a time, laid out alike: both show in the last bits of a product.
        parts = in_parts(patches.contiguous(), 1)
        logits = torch.cat([self.head(part.flatten(0, 1)) for part in parts])
        patch_scores = logits.view(-1, *grid)
        return top_mean(patch_scores, self.params.top_fraction), patch_scores


def fit(images: Images, params: Params, resources: Resources) -> Detector:
    """Train the head on the patches of normal `images`, which are read once.

    Raises InputError for fewer than two images, for equal images, where the sample would not fit in
    memory and where the loss is no longer a number.
    """
    weights = resources.weights / params.backbone
    backbone = backbone_of(resources, params)
    dimensions = sum(backbone.channels)
    total = count_patches(backbone, images.sizes)
    # what is found of the sample, and it as a whole
    check_memory(
        8 * min(total, SAMPLE) * dimensions,
        f"simplenet with {min(total, SAMPLE)} patches of {dimensions} channels",
        "take fewer layers",
    )

    def embedded() -> Iterator[Tensor]:
        for batch in normal_batches(images, "simplenet"):
            yield embed_patches(backbone, batch, params.neighborhood)

    with torch.inference_mode():
        rng = generator(resources.seed, "simplenet", "sample")
        patches = sample_patches(embedded(), total, SAMPLE, rng)
    with torch_seed(generator(resources.seed, "simplenet", "training")):
        head = train(patches.clone(), params)
    return Detector(params, weights, head.state_dict(), backbone)


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    return Detector(*read_detector(folder, Params))


def train(patches: Tensor, params: Params) -> Head:
    """Return a head that tells patches (N, D) from noisy copies of them."""
    head = Head(patches.shape[1], params)
    head.mean.copy_(patches.mean(0))
    deviation = patches.std(0)
    head.deviation.copy_(deviation.where(deviation > CONSTANT, torch.inf))
    varies = head.deviation.isfinite()
    optimizer = torch.optim.AdamW(
        head.parameters(), params.learning_rate, weight_decay=params.weight_decay
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.steps)
    for step in trange(params.steps, desc="fit simplenet", unit="step", disable=None):
        chosen = patches[torch.randint(len(patches), (BATCH,))]
        normal = (chosen - head.mean) / head.deviation
        noisy = normal + params.noise * varies * torch.randn_like(normal)
        logits = head.logits(torch.cat([normal, noisy]))
        loss = softplus(logits[:BATCH]).mean() + softplus(-logits[BATCH:]).mean()
        if not loss.isfinite():
            raise InputError(
                f"simplenet: the loss is not finite at step {step}; lower "
                "detectors.simplenet.learning_rate"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head
