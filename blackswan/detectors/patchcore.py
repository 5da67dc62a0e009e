"""PatchCore (arXiv 2106.08265): the distance of every patch to a memory bank of normal patches.

The bank is a greedy coreset of all normal patch embeddings and its neighbours are exact. A patch
scores the mean distance to some of them, an image the mean of its highest patch scores. The paper
takes the nearest one, and the highest score, weighted by how alone that neighbour is (equation 7).

A bank of a share of the patches grows with the images, and with it what an image costs to fit and
to score: `bank_patches` bounds both, so that a fit takes time in proportion to its images.
"""

from collections.abc import Sequence
from decimal import ROUND_UP, Decimal
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from blackswan.data.batches import of_one_size
from blackswan.data.shortages import Shortage, refuse, too_few
from blackswan.detectors.coreset import (
    KNOWN,
    Projection,
    coreset_size,
    grown,
    k_center,
    random_directions,
)
from blackswan.detectors.interface import Images, Resources
from blackswan.detectors.neighbors import nearest
from blackswan.detectors.patches import (
    BATCH,
    Odd,
    PatchDetector,
    PatchParams,
    backbone_of,
    check_features,
    check_memory,
    normal_batches,
    read_detector,
    top_mean,
)
from blackswan.detectors.rows import held, rows_for
from blackswan.networks.embeddings import count_patches, finest_grid, neighborhood_patches
from blackswan.seeds import generator

FITS_IN_SECONDS = True
SMALLER = "lower image_size or features, or fit on fewer images"
FINEST = 2  # pixels between patches: the first stage of EfficientNet-Lite0


class Params(PatchParams):
    """Knobs of PatchCore; the layers are joined on the grid of the finest."""

    neighborhood: Odd  # side of the patches that are averaged; 3 in the paper
    features: (
        Annotated[int, Field(ge=1)] | None
    )  # dimensions after a random projection; null keeps all
    projection: Projection
    coreset_ratio: Annotated[float, Field(gt=0, le=1)]  # of all patches, kept in the memory bank
    bank_patches: Annotated[int, Field(ge=1)] | None  # kept there at most; null: no limit
    neighbors: Annotated[int, Field(ge=1)]  # whose mean distance scores a patch; 1 in the paper
    top_fraction: (
        Annotated[float, Field(gt=0, le=1)] | None
    )  # of the patches, whose mean scores an image; null: the highest by equation 7
    reweighting: Annotated[int, Field(ge=1)]  # b of equation 7; 1 leaves that score unweighted

    @model_validator(mode="after")
    def _bank_holds_the_neighbors(self) -> "Params":
        name, wanted = self.most_neighbors
        if self.bank_patches is not None and self.bank_patches < wanted:
            raise ValueError(
                f"bank_patches = {self.bank_patches} is less than {name} = {wanted}; raise it"
            )
        return self

    @property
    def most_neighbors(self) -> tuple[str, int]:
        """The knob that asks for most patches of the bank at once, and for how many."""
        if self.top_fraction is None and self.reweighting > self.neighbors:
            return "reweighting", self.reweighting
        return "neighbors", self.neighbors

    def bank_size(self, patches: int) -> int:
        """Return how many of `patches` patches the memory bank keeps."""
        return coreset_size(patches, self.coreset_ratio, self.bank_patches)


def shortage(images: int, params: Params) -> Shortage | None:
    """Tell where `images` normal images are too few to fit on, whatever the backbone.

    How many patches an image has only the backbone tells; none has more than FINEST allows, so
    that what is refused here no backbone can do.
    """
    height, width = (params.tiles * side // FINEST for side in params.image_size)
    return too_few("patchcore", images) or bank_too_small(images * height * width, params)


def bank_too_small(patches: int, params: Params) -> Shortage | None:
    """Tell where the coreset of `patches` patches has fewer than a score needs."""
    kept = params.bank_size(patches)
    name, wanted = params.most_neighbors
    if kept >= wanted:
        return None
    ratio = Decimal(wanted) / patches
    enough = ratio.quantize(Decimal(1).scaleb(ratio.adjusted() - 1), ROUND_UP)  # two digits
    return Shortage(
        f"detectors.patchcore.coreset_ratio = {params.coreset_ratio} keeps {kept} of {patches} "
        f"patches, fewer than detectors.patchcore.{name} = {wanted}",
        f"detectors.patchcore.coreset_ratio={enough:f}" if wanted <= patches else "",
    )


class Detector(PatchDetector[Params]):
    """Distance of every patch to its nearest neighbours in the memory bank."""

    def measure(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Score images by the mean of the highest patch scores, or by equation 7."""
        patches = _embed(layers, grid, self.params.neighborhood, self.tensors.get("directions"))
        distances, found = nearest(
            patches.flatten(0, 1), self.tensors["memory_bank"], self.params.neighbors
        )
        patch_scores = distances.mean(1).view(-1, *grid)
        if self.params.top_fraction is not None:
            return top_mean(patch_scores, self.params.top_fraction), patch_scores
        closest = found[:, 0].view(patches.shape[:2])
        return self._reweighted(patches, patch_scores.flatten(1), closest), patch_scores

    def _reweighted(self, patches: Tensor, patch_scores: Tensor, closest: Tensor) -> Tensor:
        """Return the image scores (N,) of equation 7.

        Takes patches (N, P, D), their scores (N, P) and the nearest patch of the bank (N, P).
        """
        highest, position = patch_scores.max(1)
        if self.params.reweighting > 1:
            bank = self.tensors["memory_bank"]
            rows = torch.arange(patches.shape[0], device=patches.device)
            query = patches[rows, position]  # m_test of equation 6
            neighbor = bank[closest[rows, position]]  # m*
            _, around = nearest(neighbor, bank, self.params.reweighting)  # N_b(m*), m* among them
            spread = (query[:, None] - bank[around]).norm(dim=2)  # (N, b)
            distance = (query - neighbor).norm(dim=1)
            # exp(s*) / sum(exp(spread)), without overflow
            highest = highest * (1 - (distance - spread.logsumexp(1)).exp())
        return highest

    @torch.inference_mode()
    def add(self, images: Sequence[np.ndarray]) -> None:
        """Put confirmed normal images, uint8 (H, W, 3), into the memory bank, at once.

        Greedy goes on from the bank: the patches farthest from it join it, `coreset_ratio` of those
        that come. One that is full by `bank_patches` keeps its size, so that an image costs the
        same to score: see coreset.grown. The threshold stays that of the last fit: while the bank
        grows distances can only fall, so it holds and is higher than need be. Raises InputError
        where the patches would not fit in memory.
        """
        if not len(images):
            return
        bank = self.tensors["memory_bank"].cpu()
        total = count_patches(self.backbone, [image.shape[:2] for image in images])
        rows = min(total, len(bank))
        needed = 4 * (2 * total + 3 * len(bank)) * bank.shape[1] + 9 * rows * (len(bank) + rows)
        check_memory(needed, f"patchcore with {total} more patches", "add fewer images at a time")
        directions = self.tensors.get("directions")
        patches = torch.cat(
            [
                _embed(
                    self.backbone.embed(batch),
                    finest_grid(self.backbone, batch[0].shape),
                    self.params.neighborhood,
                    directions,
                )
                .cpu()
                .flatten(0, 1)
                for batch in of_one_size(images, BATCH, lambda image: image)
            ]
        )
        bank = grown(bank, patches, self.params.coreset_ratio, self.params.bank_patches)
        self.tensors["memory_bank"] = bank.to(self.backbone.device)


def fit(images: Images, params: Params, resources: Resources) -> Detector:
    """Fill the memory bank with the coreset of the patches of normal `images`.

    The picks are exact, for which all patches are kept, 4 bytes x patches x features: in memory up
    to rows.IN_MEMORY, past it in a file below `resources.checkpoints`, with the same picks. Raises
    InputError for fewer than two images, for equal images, for more features than the layers have,
    for a bank smaller than `neighbors` and where the patches would not fit in memory or on disk.
    """
    weights = resources.weights / params.backbone
    backbone = backbone_of(resources, params)
    features = check_features(params.features, backbone, "patchcore")
    total = count_patches(backbone, images.sizes)
    refuse(bank_too_small(total, params))
    kept = params.bank_size(total)
    # the patches, what the coreset knows of each, the bank as centres and as result
    check_memory(
        held(total, features) + 4 * (KNOWN * total + 2 * kept * features),
        f"patchcore with {total} patches of {features} features",
        SMALLER,
    )

    channels = sum(backbone.channels)
    tensors: dict[str, Tensor] = {}
    if features < channels:
        rng = generator(resources.seed, "patchcore", "projection")
        tensors["directions"] = random_directions(channels, features, params.projection, rng)
    patches = rows_for(total, features, resources.checkpoints, SMALLER)
    with torch.inference_mode():
        for batch in normal_batches(images, "patchcore"):
            layers, grid = backbone.embed(batch), finest_grid(backbone, batch[0].shape)
            embedded = _embed(layers, grid, params.neighborhood, tensors.get("directions"))
            patches.append(embedded.flatten(0, 1))
        start = int(generator(resources.seed, "patchcore", "coreset").integers(total))
        picks = torch.arange(total) if kept == total else k_center(patches, kept, start)
        tensors["memory_bank"] = patches.take(picks)
    return Detector(params, weights, tensors, backbone)


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    return Detector(*read_detector(folder, Params))


def _embed(
    layers: Sequence[Tensor], grid: tuple[int, int], neighborhood: int, directions: Tensor | None
) -> Tensor:
    """Return the patches (N, P, D), projected where there are directions."""
    patches = neighborhood_patches(layers, grid, neighborhood)
    return patches @ directions.to(patches.device) if directions is not None else patches
