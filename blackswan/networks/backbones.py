"""Frozen networks: RGB images in, patch embeddings of chosen layers out.

EfficientNet-Lite and ResNets are plain torch (efficientnet.py, resnet.py); vision transformers and
ConvNeXt come from transformers. Nothing deeper than the deepest chosen layer is run.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from blackswan.errors import InputError, cause, out_of_memory, shown
from blackswan.networks import devices, efficientnet, resnet
from blackswan.params import height_and_width, in_short, written

CONVOLUTIONAL = (*efficientnet.SCALES, *resnet.BLOCKS)
TRANSFORMERS = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
CONVNEXTS = ("convnext", "convnextv2", "dinov3_convnext")


class Backbone:
    """A frozen network with the layers, the input size and the normalisation it is used with.

    It lies on the device of `devices.device()`, and so does what it puts out.
    """

    def __init__(
        self,
        features: nn.Module,
        folder: Path,
        layers: list[int],
        image_size: tuple[int, int],
        tiles: int,
    ) -> None:
        self.mean, self.std = read_normalisation(folder)
        self.layers, self.image_size, self.tiles = layers, image_size, tiles
        self.patch = features.patch if isinstance(features, Transformer) else 1  # pixels
        self.device = devices.device()
        self.features = features.eval().requires_grad_(False).to(self.device)
        try:
            shapes = self._shapes(image_size)
        except (RuntimeError, ValueError) as error:
            if out_of_memory(error):
                raise
            raise _does_not_fit(folder, f" ({cause(error)})") from None
        self.channels = [shape[1] for shape in shapes]
        self.grids = [(tiles * shape[2], tiles * shape[3]) for shape in shapes]  # (h, w) of a layer
        self._known_grids = {image_size: self.grids}

    @torch.inference_mode()
    def _shapes(self, size: tuple[int, int]) -> list[torch.Size]:
        """Return the shape (1, C, h, w) of each layer for an image of `size`."""
        blank = torch.zeros(1, 3, *size, device=self.device)
        return [layer.shape for layer in self.features(blank)]

    def tile_size(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return the (height, width) of a tile of images of `shape` (H, W, ...).

        With their tiles side by side images have their own aspect, but for rounding, and are as
        large as `tiles` x `tiles` pieces of `image_size` hold them. Raises InputError where that
        leaves too little of a side for the network.
        """
        smallest = getattr(self.features, "smallest", self.patch)
        return fitted_size(shape, self.image_size, self.patch, smallest)

    def grids_of(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return the (h, w) of each layer for images of `shape` (H, W, ...)."""
        size = self.tile_size(shape)
        if size not in self._known_grids:
            self._known_grids[size] = [
                (self.tiles * found[2], self.tiles * found[3]) for found in self._shapes(size)
            ]
        return self._known_grids[size]

    @torch.inference_mode()
    def embed(self, images: Sequence[np.ndarray]) -> list[Tensor]:
        """Return one float32 tensor (N, C, h, w) per layer for uint8 RGB images (H, W, 3).

        The images are of one size; `grids_of` tells their h and w.
        """
        if self.tiles == 1:
            size = self.tile_size(images[0].shape)
            return self._see(to_tensor(images, size, self.mean, self.std))
        rows = [self._embed_tiles(image) for image in images]
        return [torch.stack(layer) for layer in zip(*rows, strict=True)]

    def _embed_tiles(self, image: np.ndarray) -> list[Tensor]:
        """Return (C, h, w) per layer of an image that is seen one row of tiles at a time."""
        height, width = self.tile_size(image.shape)
        whole = self.tiles * height, self.tiles * width
        [pixels] = to_tensor([image], whole, self.mean, self.std)
        rows = []
        for strip in pixels.split(height, 1):  # (3, height, tiles * width)
            tiles = torch.stack(strip.split(width, 2)).contiguous(memory_format=torch.channels_last)
            rows.append([torch.cat([*layer], 2) for layer in self._see(tiles)])
        return [torch.cat(layer, 1) for layer in zip(*rows, strict=True)]

    def _see(self, pixels: Tensor) -> list[Tensor]:
        """Return the layers of pixels (N, 3, H, W), as many at once as the device has room for."""
        parts = devices.in_halves(
            lambda part: self.features(part.to(self.device)), pixels,
            "lower image_size and raise tiles, choose fewer or deeper layers",
        )  # fmt: skip
        if len(parts) == 1:
            return parts[0]
        return [torch.cat(layer) for layer in zip(*parts, strict=True)]


def load_backbone(
    folder: Path, layers: Sequence[int], image_size: int | Sequence[int], tiles: int = 1
) -> Backbone:
    """Load the weights that fetch_weights wrote to `folder`.

    Images are scaled, their aspect kept, to be as large as `image_size` holds them: a side of a
    square in pixels, or height and width. With `tiles` above 1 an image is cut into tiles x
    tiles pieces of that size, which the network sees one by one; their embeddings are joined on one
    grid again. Small defects of large images need that.

    A layer of a transformer is the number of blocks that were run (hidden_states[k], 1 to depth);
    of a ResNet it is 1 to 4 (`layer1` to `layer4` of timm and torchvision), of a ConvNeXt a stage,
    0 to 3, of an EfficientNet-Lite a stage, 0 to 6, numbered like `blocks.k` of timm's
    tf_efficientnet_lite0. Raises InputError where the weights are missing or unknown, or layers or
    size do not fit them.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; run `dvc repro fetch_weights`, which writes it")
    kind, size = model_type(folder), height_and_width(image_size)
    if kind in CONVOLUTIONAL:
        network = _convolutional(kind, folder, list(layers))
    elif kind in TRANSFORMERS:
        network = Transformer(folder, list(layers), size)
    elif kind in CONVNEXTS:
        network = ConvNext(folder, list(layers), size)
    else:
        known = ", ".join((*CONVOLUTIONAL, *TRANSFORMERS, *CONVNEXTS))
        raise InputError(
            f"{folder}/config.json: model_type {shown(repr(kind))} is no backbone; known are "
            f"{known}"
        )
    return Backbone(network, folder, list(layers), size, tiles)


def model_type(folder: Path) -> str | None:
    """Return what kind of network the weights in `folder` are of, by their config.json.

    That of transformers names a model_type, that of timm an architecture.
    """
    config = _read_json(folder / "config.json")
    return config.get("model_type", config.get("architecture"))


def check_size(folder: Path, image_size: tuple[int, int], patch: int) -> None:
    """Raise InputError where patches of so many pixels do not fill an image."""
    for side in image_size:
        if side < patch or side % patch:
            near = [max(patch, side // patch * patch), (side // patch + 1) * patch]
            raise InputError(
                f"image_size {side} is no multiple of the patch size {patch} of {folder}; "
                f"choose {near[0]} or {near[1]}"
            )


def any_size(kind: str) -> dict[str, bool]:
    """Return the options with which a transformer of `kind` takes images of any size.

    ViT and DeiT alone refuse another size unless asked to interpolate their position embeddings.
    """
    return {"interpolate_pos_encoding": True} if kind in ("vit", "deit") else {}


def fitted_size(
    shape: Sequence[int], image_size: tuple[int, int], patch: int, smallest: int
) -> tuple[int, int]:
    """Return the largest (height, width) that `image_size` holds with the aspect of `shape` (H, W).

    Both are rounded to whole patches, of so many pixels. Raises InputError where a side is left
    with fewer pixels than `smallest`.
    """
    factor = min(side / pixels for side, pixels in zip(image_size, shape[:2], strict=True))
    height, width = (
        min(side, round(pixels * factor / patch) * patch)
        for side, pixels in zip(image_size, shape[:2], strict=True)
    )
    if min(height, width) < smallest:
        raise InputError(
            f"image_size {written(image_size)} leaves {width} x {height} pixels of an image of "
            f"{shape[1]} x {shape[0]}, and a side must have {smallest}; raise it, or crop the image"
        )
    return height, width


def check_scale(sizes: Iterable[tuple[int, int]], image_size: tuple[int, int], name: str) -> None:
    """Raise InputError where a network would see images of several sizes at several scales.

    They lie on one canvas, so an `image_size` of its aspect changes them all alike; `name` is the
    key of that size in params.yaml.
    """
    known = sorted({*sizes})
    factors = [
        min(side / pixels for side, pixels in zip(image_size, size, strict=True)) for size in known
    ]
    if factors and max(factors) > 1.01 * min(factors):
        canvas = [max(sides) for sides in zip(*known, strict=True)]
        raise InputError(
            f"{name} = {in_short(image_size)} would scale images of several sizes differently; set "
            f"it to {canvas}, or to another size of that aspect"
        )


def read_normalisation(folder: Path) -> tuple[list[float], list[float]]:
    """Return the mean and the standard deviation per channel that the weights were trained with."""
    preprocessor = _read_json(folder / "preprocessor_config.json")
    try:
        return preprocessor["image_mean"], preprocessor["image_std"]
    except KeyError as key:
        raise InputError(
            f"{folder}/preprocessor_config.json has no {cause(key)}; fetch the weights again"
        ) from None


def to_tensor(
    images: Sequence[np.ndarray],
    image_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Resize uint8 RGB images (H, W, 3) and normalise them: float32 (N, 3, height, width).

    Shrinking averages the pixels of an area, which does not alias; enlarging interpolates linearly.
    """
    resized = np.empty((len(images), *image_size, 3), np.uint8)
    for image, target in zip(images, resized, strict=True):
        shrink = image.shape[0] > image_size[0] and image.shape[1] > image_size[1]
        method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
        cv2.resize(image, image_size[::-1], dst=target, interpolation=method)
    return normalise(torch.from_numpy(resized), mean, std)


def normalise(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return pixels (N, H, W, 3), 0 to 255, as float32 (N, 3, H, W), channels last in memory."""
    scale = torch.tensor(std).view(3, 1, 1) * 255
    return (pixels.permute(0, 3, 1, 2).float() - torch.tensor(mean).view(3, 1, 1) * 255) / scale


class Transformer(nn.Module):
    """The patch tokens of chosen blocks of a ViT, DINOv2 or DINOv3; no class or register tokens."""

    def __init__(self, folder: Path, layers: list[int], image_size: tuple[int, int]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # takes seconds to import

        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _check_layers(folder, layers, range(1, config.num_hidden_layers + 1))
        check_size(folder, image_size, config.patch_size)
        config.num_hidden_layers = max(layers)
        options: dict[str, Any] = {"add_pooling_layer": False} if config.model_type == "vit" else {}
        try:
            with quiet_transformers():
                self.model, loaded = AutoModel.from_pretrained(
                    folder, config=config, use_safetensors=True, local_files_only=True,
                    dtype=torch.float32, output_loading_info=True, **options,
                )  # fmt: skip
        except (OSError, SafetensorError) as error:
            raise _not_whole(folder, error) from None
        if loaded["missing_keys"] or loaded["mismatched_keys"]:
            raise _does_not_fit(folder)
        name = "norm" if config.model_type == "dinov3_vit" else "layernorm"
        self.final_norm = getattr(self.model, name)  # of (..., C); `forward` leaves it out
        self.options = any_size(config.model_type)
        self.skipped = 1 + getattr(config, "num_register_tokens", 0)
        self.patch = config.patch_size  # pixels, a side
        self.tokens: dict[int, Tensor] = {}
        blocks = next(
            module
            for module in self.model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == config.num_hidden_layers
        )
        self.layers = layers
        for layer in layers:
            # Hooks, because hidden_states[-1] is normalised in some of these models only.
            blocks[layer - 1].register_forward_hook(
                lambda _module, _inputs, output, layer=layer: self._keep(layer, output)
            )

    def _keep(self, layer: int, output: Tensor | tuple[Tensor, ...]) -> None:
        self.tokens[layer] = output if isinstance(output, Tensor) else output[0]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (N, 3, H, W) to one (N, C, H / patch, W / patch) per layer."""
        self.model(pixel_values=images, **self.options)
        tokens, self.tokens = self.tokens, {}
        patches = [tokens[layer][:, self.skipped :] for layer in self.layers]  # (N, h * w, C)
        grid = tuple(side // self.patch for side in images.shape[2:])
        return [layer.transpose(1, 2).unflatten(2, grid) for layer in patches]


class ConvNext(nn.Module):
    """The outputs of chosen stages, 0 to 3, of a ConvNeXt; their strides are 4 8 16 32."""

    def __init__(self, folder: Path, layers: list[int], image_size: tuple[int, int]) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # takes seconds to import

        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        _check_layers(folder, layers, range(config.num_stages))
        deepest = max(layers)
        self.smallest = getattr(config, "patch_size", 4) * 2**deepest  # pixels, a side
        if min(image_size) < self.smallest:
            raise InputError(
                f"image_size {min(image_size)} leaves nothing of layer {deepest} of {folder}; "
                f"choose {self.smallest} or more"
            )
        try:
            with quiet_transformers():
                model, loaded = AutoModel.from_pretrained(
                    folder, use_safetensors=True, local_files_only=True, dtype=torch.float32,
                    output_loading_info=True, ignore_mismatched_sizes=True,
                )  # fmt: skip
        except (OSError, SafetensorError) as error:
            raise _not_whole(folder, error) from None
        if loaded["missing_keys"] or loaded["mismatched_keys"]:
            raise _does_not_fit(folder)
        self.layers = layers
        dinov3 = config.model_type == "dinov3_convnext"  # there the first stage embeds the patches
        self.stem = nn.Identity() if dinov3 else model.get_submodule("embeddings")
        stages = model.get_submodule("model" if dinov3 else "encoder").get_submodule("stages")
        self.stages = nn.ModuleList([*stages.children()][: deepest + 1])

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map (N, 3, H, W) to one (N, C, h, w) per layer."""
        x, outputs = self.stem(images), {}
        for number, stage in enumerate(self.stages):
            outputs[number] = x = stage(x)
        return [outputs[layer] for layer in self.layers]


def _convolutional(kind: str, folder: Path, layers: list[int]) -> nn.Module:
    """Build an EfficientNet-Lite or a ResNet of the tensors in `folder`."""
    family = efficientnet if kind in efficientnet.SCALES else resnet
    _check_layers(folder, layers, family.LAYERS)
    try:
        state = load_file(folder / "model.safetensors")
        if kind in efficientnet.SCALES:
            return efficientnet.EfficientNetLite(kind, state, layers)
        return resnet.ResNet(kind, state, layers)
    except ValueError as error:
        raise _does_not_fit(folder, f" ({cause(error)})") from None
    except (KeyError, OSError, SafetensorError) as error:
        raise _not_whole(folder, error) from None


def _check_layers(folder: Path, layers: list[int], allowed: range) -> None:
    wrong = [layer for layer in layers if layer not in allowed]
    if wrong or not layers:
        raise InputError(
            f"layers {shown(layers)} do not fit {folder}; choose from {allowed[0]} to {allowed[-1]}"
        )


def _does_not_fit(folder: Path, why: str = "") -> InputError:
    return InputError(
        f"{folder}/model.safetensors does not fit its config.json{why}; fetch it again"
    )


def _not_whole(folder: Path, error: Exception) -> InputError:
    return InputError(f"{folder}/model.safetensors is not whole ({cause(error)}); fetch it again")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InputError(f"{path} is missing or is no JSON; fetch the weights again") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hide the report of what is left out or new on purpose, and the progress bar."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
