"""Gaussians of all normal patch embeddings, wherever a patch lies: PaDiM without its positions.

For parts that lie any way round and for textures. One Gaussian, or a mixture: k-means divides the
patches, each part gets a mean and a covariance, and a patch scores its Mahalanobis distance to the
nearest Gaussian, looked for among the CANDIDATES whose means are nearest. All is summed up while
images stream by, in float64, so that memory depends on `components` and the channels of the layers
alone; k-means learns from a sample of bounded size.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from blackswan.data.shortages import Shortage, refuse, too_few
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
from blackswan.networks.devices import device, in_parts
from blackswan.networks.embeddings import Moments, count_patches, neighborhood_patches
from blackswan.seeds import generator

FITS_IN_SECONDS = True
SAMPLE = 100_000  # patches that k-means learns from
CANDIDATES = 4  # as good as all of 64 on synthetic anomalies, in a third of the time
BLOCK = 4096  # patches whose distances to all centres are held at once
ROUNDS = 30  # of k-means; it rarely moves after twenty


class Params(PatchParams):
    """Knobs of the Gaussians; the layers are joined on the grid of the finest."""

    neighborhood: Odd  # side of the patches that are averaged
    components: Annotated[int, Field(ge=1, le=1000)]  # Gaussians
    regularization: Annotated[float, Field(gt=0)]  # added to every variance
    top_fraction: Annotated[float, Field(gt=0, le=1)]  # of the patches, whose mean scores an image


def shortage(images: int, params: Params) -> Shortage | None:
    """Tell where `images` normal images are too few to fit on."""
    return too_few("gaussian_patches", images)


class Detector(PatchDetector[Params]):
    """Mahalanobis distance of every patch to the nearest Gaussian."""

    def measure(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Score images by the mean of the largest patch scores."""
        patches = neighborhood_patches(layers, grid, self.params.neighborhood).flatten(0, 1)
        patch_scores = self._distances(patches).view(-1, *grid)
        return top_mean(patch_scores, self.params.top_fraction), patch_scores

    def _distances(self, patches: Tensor) -> Tensor:
        """Return the distances (N,) of patches (N, D)."""
        means, whitening = self.tensors["mean"], self.tensors["whitening"]
        near = _nearest(patches, means, min(CANDIDATES, len(means)))
        if torch.compiler.is_exporting():  # a graph cannot choose: it has all distances, then some
            every = [_squared(patches, *each) for each in zip(means, whitening, strict=True)]
            return torch.stack(every, 1).gather(1, near).amin(1).sqrt()
        squared = torch.empty(near.shape, device=near.device)
        for number in near.unique().tolist():
            rows, columns = torch.nonzero(near == number, as_tuple=True)
            squared[rows, columns] = _squared(patches[rows], means[number], whitening[number])
        return squared.amin(1).sqrt()


def fit(images: Images, params: Params, resources: Resources) -> Detector:
    """Estimate the Gaussians of the patches of normal `images`.

    Reads the images once, and once more for a mixture. Raises InputError for fewer than two images,
    for equal images, for more components than patches, for one that gets a single patch and where
    the covariances would not fit in memory.
    """
    weights = resources.weights / params.backbone
    backbone = backbone_of(resources, params)
    dimensions = sum(backbone.channels)
    total = count_patches(backbone, images.sizes)
    refuse(shortage(len(images), params))
    refuse(_too_many(params.components, total, len(images)))
    # sums in float64, the factors, and the sample
    check_memory(
        12 * params.components * dimensions**2 + 8 * min(total, SAMPLE) * dimensions,
        f"gaussian_patches with {params.components} components of {dimensions} channels",
        "lower components or take fewer layers",
    )

    def embedded() -> Iterator[Tensor]:
        for batch in normal_batches(images, "gaussian_patches"):
            yield embed_patches(backbone, batch, params.neighborhood)

    with torch.inference_mode():
        centres = torch.zeros(1, dimensions)
        if params.components > 1:
            rng = generator(resources.seed, "gaussian_patches", "k-means")
            centres = k_means(
                sample_patches(embedded(), total, SAMPLE, rng), params.components, rng
            )
        moments = [Moments(1, dimensions, full=True) for _ in range(params.components)]
        for patches in embedded():
            chosen = _nearest(patches, centres)[:, 0]
            for number in chosen.unique().tolist():
                moments[number].add(patches[chosen == number][None])
        tensors = {
            "mean": torch.stack([one.mean()[0].float() for one in moments if one.count]),
            "whitening": torch.stack(
                [_whitening(one, params.regularization) for one in moments if one.count]
            ),
        }
    return Detector(params, weights, tensors, backbone)


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    return Detector(*read_detector(folder, Params))


def k_means(points: Tensor, components: int, rng: np.random.Generator) -> Tensor:
    """Return `components` centres (K, D) of points (N, D), begun by k-means++ (Arthur, 2007)."""
    centres = points[rng.integers(len(points))][None]
    far = torch.full((len(points),), torch.inf, dtype=torch.float64)
    while len(centres) < components:
        far = torch.minimum(far, (points - centres[-1]).double().square().sum(1))
        reached = far.cumsum(0)
        drawn = int(torch.searchsorted(reached, rng.random() * float(reached[-1]), right=True))
        centres = torch.cat([centres, points[min(drawn, len(points) - 1)][None]])
    for _ in range(ROUNDS):
        chosen = _nearest(points, centres)[:, 0]
        sums = torch.zeros(centres.shape, dtype=torch.float64)
        sums.index_add_(0, chosen, points.double())
        counts = chosen.bincount(minlength=components)
        moved = torch.where(counts[:, None] > 0, sums / counts[:, None], centres).float()
        if torch.equal(moved, centres):
            break
        centres = moved
    return centres


def _squared(patches: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    return ((patches - mean) @ whitening.T).square().sum(1)


def _nearest(points: Tensor, centres: Tensor, count: int = 1) -> Tensor:
    """Return the indices (N, count) of the centres (K, D) that are nearest to points (N, D)."""
    centres = centres.to(device())
    norms, found = centres.square().sum(1), []
    for part in in_parts(points, BLOCK):
        product = torch.addmm(norms, part.to(device()), centres.T, alpha=-2)
        found.append(product.topk(count, largest=False).indices.to(points.device))
    return torch.cat(found)


def _too_many(components: int, patches: int, images: int) -> Shortage | None:
    if components <= patches:
        return None
    return Shortage(
        f"detectors.gaussian_patches.components = {components} exceeds the {patches} patches "
        f"of {images} normal images",
        "detectors.gaussian_patches.components=1",  # of more, one may get a single patch
    )


def _whitening(moments: Moments, epsilon: float) -> Tensor:
    """Return W (D, D): W^T W = (covariance + epsilon I)^-1."""
    if moments.count < 2:
        raise InputError(
            "detectors.gaussian_patches.components leaves one of them a single patch; lower it"
        )
    covariance = moments.take_covariances()[0]
    covariance.diagonal().add_(epsilon)
    try:
        factor = torch.linalg.cholesky(covariance)
    except torch.linalg.LinAlgError:
        raise InputError(
            "a covariance cannot be inverted; raise detectors.gaussian_patches.regularization"
        ) from None
    identity = torch.eye(len(factor), dtype=torch.float64)
    return torch.linalg.solve_triangular(factor, identity, upper=False).float()
