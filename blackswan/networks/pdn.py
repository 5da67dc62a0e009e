"""Patch description networks of EfficientAD (arXiv 2303.14535): one vector for each patch.

A few convolutions without padding see 33 x 33 pixels and nothing beyond, so what the teacher says
of a patch cannot depend on an anomaly elsewhere in the image. `receptive_field` computes the 33.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import conv2d

from blackswan.data.files import list_images
from blackswan.data.images import read_image, write_png
from blackswan.errors import InputError, cause, shown
from blackswan.outputs import write_json

Size = Literal["S", "M"]
MODEL, CONFIG, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
PHOTOS = "photos"  # what lies beside a teacher: natural images that show nothing of the normal ones
PHOTO_SIDE = 512  # pixels, the longer side of such a photo at most
GRAY = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601
SMALLEST_VIEW = 0.5  # of the shorter side; smaller views of the sample photos are mere blur


class Convolution(NamedTuple):
    """A row of the paper's tables; ReLU follows each but the last. None: as many as asked for."""

    kernel: int
    channels: int | None
    stride: int = 1


class AveragePooling(NamedTuple):
    """Halves height and width."""

    kernel: int = 2
    stride: int = 2


LAYERS: dict[str, tuple[Convolution | AveragePooling, ...]] = {
    "S": (
        Convolution(4, 128),
        AveragePooling(),
        Convolution(4, 256),
        AveragePooling(),
        Convolution(3, 256),
        Convolution(4, None),
    ),
    "M": (
        Convolution(4, 256),
        AveragePooling(),
        Convolution(4, 512),
        AveragePooling(),
        Convolution(1, 512),
        Convolution(3, 512),
        Convolution(4, None),
        Convolution(1, None),
    ),
}


def receptive_field(size: Size) -> tuple[int, int]:
    """Return the side of the patch that one vector depends on, and the pixels between patches."""
    field, stride = 1, 1
    for layer in LAYERS[size]:
        field += (layer.kernel - 1) * stride
        stride *= layer.stride
    return field, stride


def patch_grid(image_size: tuple[int, int], size: Size) -> tuple[int, int]:
    """Return how many patches fit into height and width: 56 into 256 pixels, 48 into 224."""
    field, stride = receptive_field(size)
    height, width = ((side - field) // stride + 1 for side in image_size)
    return height, width


def border(size: Size) -> int:
    """Return how many cells of a stride-wide grid on the whole image each side loses: 4."""
    field, stride = receptive_field(size)
    return field // stride // 2


class Pdn(nn.Module):
    """A patch description network; `channels` is the length of a vector, 384 in the paper."""

    def __init__(self, size: Size, channels: int) -> None:
        super().__init__()
        self.size: Size = size
        self.channels, width, modules = channels, 3, list[nn.Module]()
        *trunk, last = LAYERS[size]
        for layer in trunk:
            if isinstance(layer, AveragePooling):
                modules.append(nn.AvgPool2d(layer.kernel, layer.stride))
            else:
                wider = layer.channels or channels
                modules += [nn.Conv2d(width, wider, layer.kernel), nn.ReLU(inplace=True)]
                width = wider
        self.trunk, self.head = nn.Sequential(*modules), nn.Conv2d(width, channels, last.kernel)

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, channels, h, w)."""
        return self.head(self.trunk(images))

    def describe(self, features: Tensor, channels: slice) -> Tensor:
        """Map the output of the trunk to some of the channels; the others cost nothing."""
        weight, bias = (self.head.get_parameter(name)[channels] for name in ("weight", "bias"))
        return conv2d(features, weight, bias)

    @torch.no_grad()
    def normalise(self, mean: Tensor, std: Tensor) -> None:
        """Fold (output - mean) / std, each (channels,), into the last convolution."""
        mean, std = (values.to(self.head.weight.device) for values in (mean, std))
        self.head.weight /= std.view(-1, 1, 1, 1)
        self.head.get_parameter("bias").sub_(mean).div_(std)


def save_teacher(
    folder: Path, teacher: Pdn, mean: list[float], std: list[float], origin: Mapping[str, object]
) -> None:
    """Write a teacher, the normalisation of its input and a note of its origin (weights.json)."""
    tensors = {name: tensor.contiguous() for name, tensor in teacher.state_dict().items()}
    save_file(tensors, folder / MODEL, metadata={"format": "pt"})
    config = {"model_type": "pdn", "size": teacher.size, "channels": teacher.channels}
    write_json(folder / CONFIG, config | {"receptive_field": receptive_field(teacher.size)[0]})
    write_json(folder / PREPROCESSOR, {"image_mean": mean, "image_std": std})
    write_json(folder / "weights.json", dict(origin))


def load_teacher(folder: Path) -> Pdn:
    """Read what `save_teacher` wrote, frozen; raises InputError where it is missing or broken."""
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; run `dvc repro distill_teacher`, which writes it")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if config.get("model_type") != "pdn":
            raise InputError(
                f"{folder} holds {shown(config.get('model_type'))} weights, not those of a "
                "teacher; name the output of distill_teacher"
            )
        teacher = Pdn(config["size"], config["channels"])
        teacher.load_state_dict(load_file(folder / MODEL))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{folder} is not whole ({cause(error)}); write it again with "
            "`dvc repro -f distill_teacher`"
        ) from None
    return teacher.eval().requires_grad_(False)


def save_photos(folder: Path, photos: Mapping[str, np.ndarray]) -> None:
    """Write photos, uint8 (H, W, 3), beside a teacher, no larger than its students need them."""
    for name, photo in photos.items():
        scale = PHOTO_SIDE / max(photo.shape[:2])
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in photo.shape[1::-1])
            photo = cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
        write_png(folder / PHOTOS / f"{name}.png", photo)


def load_photos(folder: Path) -> list[np.ndarray]:
    """Read the photos beside a teacher, uint8 (H, W, 3); raises InputError where there is none."""
    paths = list_images(folder / PHOTOS) if (folder / PHOTOS).is_dir() else []
    if not paths:
        raise InputError(f"{folder} has no {PHOTOS}; write it with `dvc repro -f distill_teacher`")
    return [read_image(path) for path in paths]


def random_view(image: np.ndarray, rng: np.random.Generator, gray: float) -> np.ndarray:
    """Return a random square of an image (H, W, 3), mirrored half the time, gray with `gray`."""
    height, width = image.shape[:2]
    side = max(1, round(min(height, width) * rng.uniform(SMALLEST_VIEW, 1)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    view = image[top : top + side, left : left + side]
    if rng.random() < 0.5:
        view = view[:, ::-1]
    if rng.random() < gray:
        view = np.repeat(np.rint(view @ GRAY).astype(np.uint8)[..., None], 3, axis=2)
    return np.ascontiguousarray(view)
