"""PaDiM (arXiv 2011.08785): a Gaussian of the normal patch embeddings at every position.

Mean and covariance are summed up in one pass over the images, in float64, so memory depends on the
grid and on `features` only. The image score is the maximum of the smoothed map, as in anomalib.

Images of several sizes lie in the middle of the smallest grid that holds them all, and a position
knows those that reach it.
"""

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.linalg.lapack import dtrtri
from torch import Tensor
from torch.nn.functional import pad

from blackswan.data.files import tell
from blackswan.data.shortages import Shortage, refuse, too_few
from blackswan.detectors.interface import Images, Resources
from blackswan.detectors.patches import (
    BATCH,
    PatchDetector,
    PatchParams,
    backbone_of,
    check_features,
    check_memory,
    normal_batches,
    read_detector,
)
from blackswan.errors import InputError
from blackswan.networks.backbones import Backbone
from blackswan.networks.embeddings import Moments, concatenate, finest_grid
from blackswan.seeds import generator

FITS_IN_SECONDS = True


class Params(PatchParams):
    """Knobs of PaDiM; the layers are joined on the grid of the finest."""

    features: Annotated[int, Field(ge=1)] | None  # channels drawn at random; null takes all
    covariance: Literal["full", "diagonal", "low_rank"]
    rank: Annotated[
        int, Field(ge=1)
    ]  # of low_rank: random orthogonal directions (arXiv 2105.14737)
    regularization: Annotated[
        float, Field(gt=0)
    ]  # epsilon added to every variance; 0.01 in the paper


def shortage(images: int, params: Params) -> Shortage | None:
    """Tell where `images` normal images are too few to fit on."""
    return too_few("padim", images)


class Detector(PatchDetector[Params]):
    """Mahalanobis distance of every patch to the Gaussian of its position."""

    def __init__(
        self,
        params: Params,
        weights: Path,
        tensors: dict[str, Tensor],
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(params, weights, tensors, backbone)
        self.canvas = tuple(tensors["grid"].tolist())
        self.selection = _by_layer(self.tensors["selection"], self.backbone.channels)

    def measure(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> tuple[None, Tensor]:
        """Score images by the maximum of the smoothed map, patches by Mahalanobis distance."""
        embeddings = _embed(layers, grid, self.selection)  # (P, N, D)
        mean, whitening = self.tensors["mean"], self.tensors["whitening"]
        if self.canvas != grid:
            inside = _inside(self.canvas, grid).to(mean.device)
            mean, whitening = mean[inside], whitening[inside]
        deviations, count = embeddings - mean[:, None], embeddings.shape[1]
        if not torch.compiler.is_exporting():
            # A product of few rows takes another path and ends in other bits: all have as many.
            deviations = pad(deviations, (0, 0, 0, BATCH - count))
        if whitening.ndim == 2:  # diagonal
            white = deviations * whitening[:, None]
        else:
            white = deviations @ whitening.mT
        distances = white.square().sum(2).sqrt().T  # (BATCH, P)
        return None, distances[:count].reshape(-1, *grid)


def fit(images: Images, params: Params, resources: Resources) -> Detector:
    """Estimate the Gaussians of normal `images`.

    Raises InputError for fewer than two images, for equal images, for more features than the layers
    have and where the covariances would not fit in memory.
    """
    weights = resources.weights / params.backbone
    backbone = backbone_of(resources, params)
    features = check_features(params.features, backbone, "padim")
    refuse(shortage(len(images), params))
    grids = Counter(finest_grid(backbone, size) for size in images.sizes)
    canvas = max(rows for rows, _ in grids), max(columns for _, columns in grids)
    positions = prod(canvas)
    selection = _selection(params, sum(backbone.channels), features, resources.seed)
    dimensions = selection.shape[-1]
    chosen = _by_layer(selection.to(backbone.device), backbone.channels)
    full = params.covariance != "diagonal"
    # sums in float64; the factors take their place
    needed = positions * dimensions * (dimensions if full else 1) * 8
    check_memory(
        needed,
        f"padim with {canvas[0]} x {canvas[1]} positions and {dimensions} features",
        "lower image_size or features, or choose covariance: low_rank (and a rank) or diagonal",
    )
    moments = Moments(positions, dimensions, full)
    with torch.inference_mode():
        for batch in normal_batches(images, "padim"):
            grid = finest_grid(backbone, batch[0].shape)
            inside = None if grid == canvas else _inside(canvas, grid)
            moments.add(_embed(backbone.embed(batch), grid, chosen), inside)
    mean, whitening = _gaussians(moments, params.regularization)
    lonely = moments.counts < 2
    if lonely.any():
        whitening[lonely] = 0
        tell(
            f"padim: {int(lonely.sum())} of {positions} positions are reached by fewer than two "
            "normal images and score 0; take images of more equal shapes if defects lie there"
        )
    tensors = {
        "selection": selection, "mean": mean, "whitening": whitening, "grid": torch.tensor(canvas)
    }  # fmt: skip
    return Detector(params, weights, tensors, backbone)


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    params, weights, tensors = read_detector(folder, Params)
    if "grid" not in tensors:
        raise InputError(f"{folder} holds a padim of an earlier version; fit it again")
    return Detector(params, weights, tensors)


def _selection(params: Params, channels: int, features: int, seed: int) -> Tensor:
    """Draw the channels to keep (D,) or, for low_rank, orthogonal directions in them (C, D)."""
    rng = generator(seed, "padim", "features")
    kept = np.sort(rng.choice(channels, features, replace=False))
    if params.covariance != "low_rank":
        return torch.from_numpy(kept)
    directions = np.zeros((channels, min(params.rank, features)), np.float32)
    directions[kept] = np.linalg.qr(rng.standard_normal((features, directions.shape[1])))[0]
    return torch.from_numpy(directions)


def _inside(canvas: tuple[int, ...], grid: tuple[int, int]) -> Tensor:
    """Return the positions (p,) of a canvas of patches that a grid in its middle covers.

    Raises InputError where the grid is the larger one.
    """
    if grid[0] > canvas[0] or grid[1] > canvas[1]:
        raise InputError(
            f"an image has {grid[0]} x {grid[1]} patches, and padim has learnt from images of "
            f"{canvas[0]} x {canvas[1]} at most; score images of the shapes it has learnt from"
        )
    top, left = (canvas[0] - grid[0]) // 2, (canvas[1] - grid[1]) // 2
    numbers = torch.arange(prod(canvas)).view(canvas)
    return numbers[top : top + grid[0], left : left + grid[1]].flatten()


def _by_layer(selection: Tensor, channels: Sequence[int]) -> Tensor | list[Tensor]:
    """Return the channels (D,) as those of each layer, or the directions (C, D) as they are."""
    if selection.ndim == 2:
        return selection
    first, chosen = 0, []
    for count in channels:
        inside = (selection >= first) & (selection < first + count)
        chosen.append(selection[inside] - first)
        first += count
    return chosen


def _embed(
    layers: Sequence[Tensor], grid: tuple[int, int], selection: Tensor | list[Tensor]
) -> Tensor:
    """Return the reduced embeddings of every position, (P, N, D), by what `_by_layer` returned."""
    if isinstance(selection, list):  # select first: most channels never need to be enlarged
        layers = [layer[:, kept] for layer, kept in zip(layers, selection, strict=True)]
    embeddings = concatenate(layers, grid, "nearest").flatten(2).permute(2, 0, 1)  # (P, N, C)
    return embeddings.contiguous() if isinstance(selection, list) else embeddings @ selection


def _gaussians(moments: Moments, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return means (P, D) and whitening factors W: W^T W = (covariance + epsilon I)^-1.

    W is the inverse of the Cholesky factor (P, D, D), or 1 / standard deviation (P, D).
    """
    mean = moments.mean().float()
    if not moments.full:
        return mean, (moments.take_covariances().clamp_(min=0) + epsilon).rsqrt().float()
    whitening = torch.empty(*mean.shape, mean.shape[1])  # takes the memory that is freed here
    for number, block in enumerate(moments.blocks):
        _whiten(moments.take_covariances(number), epsilon, whitening[block])
    return mean, whitening


def _whiten(covariances: Tensor, epsilon: float, out: Tensor) -> None:
    """Invert the Cholesky factors of (p, D, D) one by one: torch's batched solve is slow."""
    covariances.diagonal(dim1=1, dim2=2).add_(epsilon)
    for position, covariance in enumerate(covariances):
        try:
            factor = torch.linalg.cholesky(covariance).numpy()
        except torch.linalg.LinAlgError:
            raise InputError(
                "the covariance of a position cannot be inverted; raise "
                "detectors.padim.regularization"
            ) from None
        out[position] = torch.from_numpy(dtrtri(factor, lower=1)[0])
