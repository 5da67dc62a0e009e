"""What the detectors on patch embeddings share: reading normal images, memory, files."""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
import psutil
import torch
from pydantic import AfterValidator, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from blackswan.data.batches import of_one_size
from blackswan.data.shortages import refuse, too_few
from blackswan.detectors.interface import Images, Resources, Scores
from blackswan.errors import InputError, cause, shown
from blackswan.networks import devices
from blackswan.networks.backbones import Backbone, load_backbone
from blackswan.networks.embeddings import finest_grid, neighborhood_patches
from blackswan.outputs import replace_file
from blackswan.params import Section, Size, load_section

BATCH = 8  # images embedded at once: bounds memory, changes no result
TENSORS, JSON, BACKBONE = "detector.safetensors", "detector.json", "backbone"


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("must be an odd number")
    return value


Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]


class PatchParams(Section):
    """Knobs that all detectors on patch embeddings have."""

    backbone: str  # a name of the fetch_weights block
    layers: list[int]
    image_size: Size  # the backbone sees images as large as this holds them, their aspect kept
    tiles: Annotated[int, Field(ge=1, le=16)]  # a side; the backbone sees each at that size
    smoothing: Annotated[float, Field(ge=0, le=0.25)]  # blur of the maps, fraction of their side


AnyParams = TypeVar("AnyParams", bound=PatchParams)


class PatchDetector(ABC, Generic[AnyParams]):
    """A fitted detector on patch embeddings: params, folder of the backbone, tensors."""

    def __init__(
        self,
        params: AnyParams,
        weights: Path,
        tensors: dict[str, Tensor],
        backbone: Backbone | None = None,
    ) -> None:
        self.params, self.weights = params, weights
        # Where the backbone is, and with it all that meets them.
        self.tensors = {name: tensor.to(devices.device()) for name, tensor in tensors.items()}
        self.backbone = backbone or open_backbone(weights, params)

    at_once = BATCH  # images scored together

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score RGB images, uint8 (H, W, 3), all of one size."""
        scores = [
            part
            for batch in slices(images, self.at_once)
            for part in devices.in_halves(
                self.score_batch, batch, "lower image_size or what the detector remembers"
            )
        ]
        return replace(
            scores[0],
            image_scores=np.concatenate([each.image_scores for each in scores]),
            patch_scores=np.concatenate([each.patch_scores for each in scores]),
        )

    def score_batch(self, images: Sequence[np.ndarray]) -> Scores:
        """Score as many images as fit in memory."""
        size = images[0].shape[:2]
        found, patches = self.measure(self.backbone.embed(images), finest_grid(self.backbone, size))
        patch_scores = patches.cpu().numpy()
        if found is None:
            return Scores.of_peaks(patch_scores, size, self.params.smoothing)
        return Scores(found.cpu().numpy(), patch_scores, size, self.params.smoothing)

    @abstractmethod
    def measure(
        self, layers: Sequence[Tensor], grid: tuple[int, int]
    ) -> tuple[Tensor | None, Tensor]:
        """Return image scores (N,) and patch scores (N, *grid), given layers (N, C, h, w).

        None instead of the former leaves them to the peaks of the maps. Exported as a graph, too,
        so that no shape may hang on a value.
        """

    def save(self, folder: Path) -> None:
        """Write the tensors, the params and a copy of the backbone."""
        save_detector(folder, self.params, self.tensors, self.weights)


def open_backbone(weights: Path, params: PatchParams) -> Backbone:
    """Load the backbone with the layers, size and tiles of the params."""
    return load_backbone(weights, params.layers, params.image_size, params.tiles)


def backbone_of(resources: Resources, params: PatchParams) -> Backbone:
    """Return the backbone that the resources bring along, else load that of the params."""
    return resources.backbone or open_backbone(resources.weights / params.backbone, params)


def normal_batches(images: Images, name: str) -> Iterator[list[np.ndarray]]:
    """Yield the images in batches, those of one all of one size, with a progress bar.

    Raises InputError for fewer than two images and, at the end, where all of them were equal: they
    have no variance to learn, and a detector fitted on them would call any other image anomalous.
    """
    refuse(too_few(name, len(images)))
    first, differ = None, False
    shown = tqdm(images, desc=f"fit {name}", unit="image", total=len(images), disable=None)
    for batch in of_one_size(shown, BATCH, lambda image: image):
        first = batch[0] if first is None else first
        differ = differ or not all(np.array_equal(image, first) for image in batch)
        yield batch
    if not differ:
        raise InputError(
            f"all {len(images)} normal images are equal, {name} cannot learn how they vary; "
            "take images of different parts or times"
        )


def embed_patches(backbone: Backbone, images: Sequence[np.ndarray], neighborhood: int) -> Tensor:
    """Return the patches (N * P, D), each averaged with its neighbours as PatchCore's are."""
    grid = finest_grid(backbone, images[0].shape)
    return neighborhood_patches(backbone.embed(images), grid, neighborhood).flatten(0, 1)


def sample_patches(
    patches: Iterable[Tensor], total: int, size: int, rng: np.random.Generator
) -> Tensor:
    """Return `size` of the `total` patches (N, D) that are yielded, all where these are fewer."""
    chosen = torch.from_numpy(np.sort(rng.choice(total, min(total, size), replace=False)))
    found, seen = [], 0
    for block in patches:
        inside = chosen[(chosen >= seen) & (chosen < seen + len(block))]
        found.append(block[inside - seen].cpu())
        seen += len(block)
    return torch.cat(found)


def slices(images: Sequence[np.ndarray], size: int = BATCH) -> Iterator[Sequence[np.ndarray]]:
    """Cut images to score into batches that fit in memory."""
    return (images[start : start + size] for start in range(0, len(images), size))


def top_mean(patch_scores: Tensor, fraction: float) -> Tensor:
    """Return the mean (N,) of the largest share of the patch scores (N, h, w) of each image."""
    patch_scores = patch_scores.flatten(1)
    count = max(1, round(patch_scores.shape[1] * fraction))
    return patch_scores.topk(count).values.mean(1)


def check_features(features: int | None, backbone: Backbone, name: str) -> int:
    """Return how many dimensions to keep (None: all); raises InputError for more than there are."""
    channels = sum(backbone.channels)
    if features is not None and features > channels:
        raise InputError(
            f"detectors.{name}.features = {features} exceeds the {channels} channels of the layers "
            f"{shown(backbone.layers)}; lower it or add a layer"
        )
    return features or channels


def container_memory(group: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the bytes that a container may still take (cgroup v2); infinite without a limit."""
    try:
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        return int(limit) - int(used)
    except (OSError, ValueError):  # no such group, or a limit of "max"
        return float("inf")


def check_memory(needed: int, what: str, remedy: str) -> None:
    """Raise InputError where `needed` bytes are more than this machine, or container, has left."""
    available = min(psutil.virtual_memory().available, container_memory())
    if needed > available:
        raise InputError(
            f"{what} needs {needed / 1e9:.1f} GB of memory and {available / 1e9:.1f} GB are "
            f"available; {remedy}"
        )


def save_detector(
    folder: Path,
    params: Section,
    tensors: dict[str, Tensor],
    weights: Path,
    facts: dict[str, Any] | None = None,
) -> None:
    """Write detector.safetensors, detector.json and a copy of the backbone's folder.

    `facts` stand in detector.json beside the params, for people to read.
    """
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / TENSORS)
    with replace_file(folder / JSON) as partial:  # write_json would round what scoring depends on
        content = {"params": params.model_dump(), **(facts or {})}
        partial.write_text(json.dumps(content, indent=2) + "\n")
    shutil.copytree(weights, folder / BACKBONE, copy_function=shutil.copyfile)


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of `save_detector`; raises InputError where they are missing or broken."""
    try:
        return load_file(folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"{folder / TENSORS} cannot be read ({cause(error)}); fit the detector again"
        ) from None


def read_detector(
    folder: Path, params: type[AnyParams]
) -> tuple[AnyParams, Path, dict[str, Tensor]]:
    """Read what `save_detector` wrote: params, folder of the backbone and tensors."""
    return load_section(params, "params", folder / JSON), folder / BACKBONE, load_tensors(folder)
