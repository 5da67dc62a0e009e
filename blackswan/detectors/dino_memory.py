"""Detectors on patches of a vision transformer, fitted on one normal image, a few or all.

`memory` is AnomalyDINO (arXiv 2405.14529): the patches of the reference images are kept, all of
them or a greedy coreset, and a patch scores its cosine distance to the nearest. `subspace` is
SubspaceAD (arXiv 2602.23013): only the principal components of those patches are kept, and a patch
scores its energy outside of them. The image score is the mean of the highest patch scores.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize
from tqdm import tqdm

from blackswan.data.shortages import Shortage, refuse
from blackswan.detectors.coreset import KNOWN, coreset_size, grown, k_center
from blackswan.detectors.interface import Images, Resources
from blackswan.detectors.neighbors import nearest
from blackswan.detectors.patches import (
    JSON,
    PatchDetector,
    PatchParams,
    backbone_of,
    check_memory,
    read_detector,
    save_detector,
    slices,
    top_mean,
)
from blackswan.detectors.rows import Rows, held, rows_for
from blackswan.errors import InputError, shown
from blackswan.networks.backbones import Backbone, Transformer
from blackswan.networks.embeddings import Moments, count_patches, finest_grid
from blackswan.seeds import generator

FITS_IN_SECONDS = True
SMALLER = "lower references, rotations or image_size"
MASK_REFERENCES = 8  # images whose patches set the threshold of the mask


class Params(PatchParams):
    """Knobs of memory bank and subspace."""

    final_norm: bool  # of the backbone, over the patches of each layer
    fusion: Literal["features", "maps"]  # of the layers: means of patches, or of patch scores
    method: Literal["memory", "subspace"]
    references: Annotated[int, Field(ge=1)] | None  # normal images drawn by seed; null takes all
    rotations: Annotated[int, Field(ge=1, le=360)]  # of a reference, over a full turn; 1: upright
    coreset_ratio: Annotated[float, Field(gt=0, le=1)]  # of the patches, kept in the memory bank
    bank_patches: Annotated[int, Field(ge=1)] | None  # kept there at most; null: no limit
    mask: Literal["none", "pca"]  # pca: score nothing but the foreground
    variance: Annotated[float, Field(gt=0, lt=1)]  # of subspace: the share that it keeps
    top_fraction: Annotated[float, Field(gt=0, le=1)]  # of the patches, whose mean scores an image


def shortage(images: int, params: Params) -> Shortage | None:
    """Tell where `images` normal images are fewer than the references."""
    wanted = params.references
    if images >= (wanted or 1):
        return None
    return Shortage(
        f"detectors.dino_memory.references = {'null' if wanted is None else wanted} needs at least "
        f"{wanted or 1} normal images to learn from and there are {images}",
        f"detectors.dino_memory.references={images}" if images else "",
    )


class Detector(PatchDetector[Params]):
    """Distance of every patch to the patches, or to the subspace, of the references."""

    def __init__(
        self,
        params: Params,
        weights: Path,
        tensors: dict[str, Tensor],
        references: list[str],
        backbone: Backbone | None = None,
    ) -> None:
        super().__init__(params, weights, tensors, backbone)
        self.references = references  # paths of the images it was fitted on

    at_once = 1  # how many rows a product has shows in its last bits

    def measure(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Score images by the mean of the largest patch scores."""
        patch_scores = self._patch_scores(layers, grid)
        return top_mean(patch_scores, self.params.top_fraction), patch_scores

    def _patch_scores(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Return the patch scores (N, h, w), zero outside of the foreground."""
        fused = _fused(layers, self.backbone, self.params)  # (F, N * h * w, D)
        scores = torch.stack([self._distances(*pair) for pair in enumerate(fused)]).mean(0)
        scores = scores.view(-1, *grid)
        if self.params.mask == "pca":
            projection = fused[-1] @ self.tensors["mask_direction"]
            return scores * foreground(projection.view_as(scores), self.tensors["mask_threshold"])
        return scores

    def _distances(self, number: int, patches: Tensor) -> Tensor:
        """Return how far patches (P, D) lie from the bank, or the subspace, of this number."""
        if self.params.method == "memory":
            distances, _ = nearest(patches, self.tensors["memory_bank"][number])
            return distances[:, 0].square() / 2  # 1 - cosine: all patches have length 1
        # The directions that were left out: what they hold needs no reconstruction.
        directions = self.tensors[f"residual_directions_{number}"]
        return ((patches - self.tensors["mean"][number]) @ directions).square().sum(1)

    @torch.inference_mode()
    def add(self, images: Sequence[np.ndarray]) -> None:
        """Put confirmed normal images, uint8 (H, W, 3), into the memory bank, at once.

        As PatchCore's, whose threshold stays for the same reason. Raises InputError for a subspace,
        which only a fit makes, and where the patches would not fit in memory.
        """
        if self.params.method != "memory":
            raise InputError(
                f"detectors.dino_memory.method = {self.params.method} keeps no memory bank, so it "
                "takes no image; fit it again with the image, or choose method: memory"
            )
        banks = self.tensors["memory_bank"].cpu()
        for image in images:
            total = self.params.rotations * count_patches(self.backbone, [image.shape[:2]])
            needed = 4 * len(banks) * (2 * total + 3 * banks.shape[1]) * banks.shape[2]
            check_memory(needed, f"dino_memory with {total} more patches", SMALLER)
            patches = _turned_patches(image, self.params, self.backbone).cpu()
            ratio, most = self.params.coreset_ratio, self.params.bank_patches
            banks = torch.stack(
                [grown(*pair, ratio, most) for pair in zip(banks, patches, strict=True)]
            )
        self.tensors["memory_bank"] = banks.to(self.backbone.device)

    def save(self, folder: Path) -> None:
        """Write the tensors, the params, the paths of the references and the backbone."""
        facts = {"references": self.references}
        save_detector(folder, self.params, self.tensors, self.weights, facts)


def fit(images: Images, params: Params, resources: Resources) -> Detector:
    """Remember the patches, or the subspace, of some normal `images`.

    A coreset picks exactly, as that of PatchCore does, from all patches: 4 bytes x patches x
    features x layers that are not averaged, in memory or past rows.IN_MEMORY in files below
    `resources.checkpoints`. Raises InputError for layers of different sizes, for a final norm that
    the backbone lacks, for fewer images than references, for patches that would not fit in memory
    or on disk and for a subspace that leaves no direction out.
    """
    weights = resources.weights / params.backbone
    backbone = backbone_of(resources, params)
    _check_layers(backbone, params)
    refuse(shortage(len(images), params))
    chosen = _choose_references(len(images), params.references, resources.seed)
    known = images.sizes
    sizes = [known[index] for index in chosen]
    dimensions = backbone.channels[0]
    fused = 1 if params.fusion == "features" else len(backbone.channels)
    keeps = params.method == "memory"
    total = params.rotations * count_patches(backbone, sizes) if keeps else 0
    kept = coreset_size(total, params.coreset_ratio, params.bank_patches) if keeps else 0
    # the patches, what the coreset knows of each, the banks and a coreset's centres, covariances
    check_memory(
        held(total, dimensions, fused)
        + 4 * (KNOWN * total + (fused + 1) * kept * dimensions)
        + 32 * fused * dimensions**2,
        f"dino_memory with {total} patches of {dimensions} features",
        f"{SMALLER}, or choose method: subspace",
    )
    stores = [
        rows_for(total, dimensions, resources.checkpoints, SMALLER, fused)
        for _ in range(fused if keeps else 0)
    ]
    decomposes = not keeps or params.mask == "pca"
    moments = Moments(fused, dimensions, full=True)
    sample = []
    tensors: dict[str, Tensor] = {}
    with torch.inference_mode():
        for number, patches in enumerate(_reference_patches(images, chosen, params, backbone)):
            for store, rows in zip(stores, patches, strict=keeps):
                store.append(rows)
            if decomposes:
                moments.add(patches)
            if number < MASK_REFERENCES:
                grid = finest_grid(backbone, sizes[number])
                sample.append(patches[-1].cpu().unflatten(0, (-1, *grid)))
        if keeps:
            tensors["memory_bank"] = _coresets(stores, kept, resources.seed)
    if decomposes:
        components = _components(moments)
    if not keeps:
        tensors["mean"] = moments.mean().float()
        for number, (values, vectors) in enumerate(components):
            directions = _residual_directions(values, vectors, params.variance)
            tensors[f"residual_directions_{number}"] = directions
    if params.mask == "pca":
        first = components[-1][1][:, -1].float()  # of the deepest layer
        projections = [patches @ first for patches in sample]  # (rotations, h, w) each
        tensors["mask_direction"], tensors["mask_threshold"] = _mask(first, projections)
    references = [images.paths[index] for index in chosen]
    return Detector(params, weights, tensors, references, backbone)


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    params, weights, tensors = read_detector(folder, Params)
    references = json.loads((folder / JSON).read_text(encoding="utf-8"))["references"]
    return Detector(params, weights, tensors, references)


def foreground(projections: Tensor, threshold: Tensor) -> Tensor:
    """Return where projections (N, h, w) exceed the threshold, grown by a patch, holes filled.

    An image in which nothing does is all foreground: a missing part must not score zero.
    """
    above = (projections > threshold).float()
    grown = _grow(_grow(above))
    inside = -_grow(-grown) > 0
    return inside | ~inside.any(2, keepdim=True).any(1, keepdim=True)


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turn an image about its centre; what comes in from outside mirrors what is inside."""
    height, width = image.shape[:2]
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    return cv2.warpAffine(
        image, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )


def _check_layers(backbone: Backbone, params: Params) -> None:
    """Raise InputError for layers of different sizes and for a norm that the backbone lacks."""
    if len({*backbone.channels}) > 1:
        raise InputError(
            f"detectors.dino_memory.layers = {shown(params.layers)} have "
            f"{shown(backbone.channels)} channels and cannot be averaged; choose one, or the "
            "backbone of a vision transformer"
        )
    if params.final_norm and not isinstance(backbone.features, Transformer):
        raise InputError(
            f"detectors.dino_memory.final_norm = true, but {params.backbone} has no final norm; "
            "set it to false, or choose the backbone of a vision transformer"
        )


def _choose_references(available: int, wanted: int | None, seed: int) -> list[int]:
    """Draw the indices of the references, ascending; a larger draw contains a smaller one."""
    order = generator(seed, "dino_memory", "references").permutation(available)
    return sorted(order[:wanted].tolist())


def _reference_patches(
    images: Images, chosen: Sequence[int], params: Params, backbone: Backbone
) -> Iterator[Tensor]:
    """Yield the patches (F, P, D) of one reference after the other, in all its rotations."""
    wanted = set(chosen)
    references = (
        image for index, image in enumerate(islice(images, chosen[-1] + 1)) if index in wanted
    )
    for image in tqdm(
        references, desc="fit dino_memory", unit="image", total=len(chosen), disable=None
    ):
        yield _turned_patches(image, params, backbone)


def _turned_patches(image: np.ndarray, params: Params, backbone: Backbone) -> Tensor:
    """Return the patches (F, P, D) of an image in all its rotations."""
    turned = [rotate(image, turn * 360 / params.rotations) for turn in range(params.rotations)]
    return torch.cat([_embed(backbone, batch, params) for batch in slices(turned)], 1)


def _embed(backbone: Backbone, images: Sequence[np.ndarray], params: Params) -> Tensor:
    """Return the patches (F, N * h * w, D) of images, as `_fused` does."""
    return _fused(backbone.embed(images), backbone, params)


def _fused(layers: Sequence[Tensor], backbone: Backbone, params: Params) -> Tensor:
    """Return the patches (F, N * h * w, D), of length 1: of every layer, or of their mean."""
    if params.final_norm and isinstance(backbone.features, Transformer):
        norm = backbone.features.final_norm
        layers = [norm(layer.movedim(1, 3)).movedim(3, 1) for layer in layers]
    fused = torch.stack([normalize(layer, dim=1) for layer in layers])  # (L, N, D, h, w)
    if params.fusion == "features":
        fused = fused.mean(0, keepdim=True)
    return normalize(fused.flatten(3).mT.flatten(1, 2), dim=2)


def _coresets(stores: Sequence[Rows], kept: int, seed: int) -> Tensor:
    """Return the memory banks (F, K, D): of each store, (P, D), all rows or a coreset."""
    total, dimensions = stores[0].shape
    rng = generator(seed, "dino_memory", "coreset")
    banks = torch.empty(len(stores), kept, dimensions)
    for store, bank in zip(stores, banks, strict=True):
        start = int(rng.integers(total))
        picks = torch.arange(total) if kept == total else k_center(store, kept, start)
        store.take(picks, out=bank)
    return banks


def _components(moments: Moments) -> list[tuple[Tensor, Tensor]]:
    """Return the eigenvalues (D,), ascending, and eigenvectors (D, D) at every position."""
    return [
        tuple(torch.linalg.eigh(covariance))
        for block in range(len(moments.blocks))
        for covariance in moments.take_covariances(block)
    ]


def _residual_directions(values: Tensor, vectors: Tensor, variance: float) -> Tensor:
    """Return the principal directions (D, K) that are left when `variance` is kept.

    Given the eigenvalues (D,) of the covariance, ascending, and its eigenvectors (D, D).
    """
    values = values.clamp(min=0)
    left = int((values.cumsum(0) <= (1 - variance) * values.sum()).sum())
    if left == 0:
        raise InputError(
            f"detectors.dino_memory.variance = {variance} keeps every direction, so nothing lies "
            "outside; lower it"
        )
    return vectors[:, :left].float().contiguous()  # as load returns it, so that no bit differs


def _mask(direction: Tensor, projections: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return direction and threshold of the foreground, given projections (n, h, w) on the first.

    The threshold is Otsu's; the background is what most patches at the border of the images show.
    """
    values = torch.cat([part.flatten() for part in projections]).double().sort().values
    size, below = len(values), values.cumsum(0)[:-1]
    count = torch.arange(1, size)
    gap = (below[-1] + values[-1] - below) / (size - count) - below / count
    split = int((count * (size - count) * gap.square()).argmax())
    threshold = (values[split] + values[split + 1]).float() / 2
    outside = torch.cat([_border(part) for part in projections])
    sign = -1 if (outside > threshold).float().mean() > 0.5 else 1
    return sign * direction, sign * threshold


def _border(values: Tensor) -> Tensor:
    """Return the values (K,) at the border of (n, h, w)."""
    border = torch.ones_like(values, dtype=torch.bool)
    border[:, 1:-1, 1:-1] = False
    return values[border]


def _grow(values: Tensor) -> Tensor:
    return max_pool2d(values, 3, 1, 1)
