"""A detector as one graph: uint8 RGB images in, image scores and anomaly maps out.

What the detector computes is its own `measure`; what surrounds it in numpy and OpenCV stands here
again in torch, and every export is compared with the detector itself.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from blackswan.data.preprocessing import Preprocessing
from blackswan.detectors import efficient_ad, median_residual, vit
from blackswan.detectors.interface import Detector
from blackswan.detectors.maps import enlarging
from blackswan.detectors.patches import PatchDetector
from blackswan.errors import InputError
from blackswan.export import resizing
from blackswan.networks.backbones import normalise
from blackswan.networks.embeddings import finest_grid

Measured = tuple[Tensor | None, Tensor, Tensor | None]  # image scores, patch scores, logits


class Photo(nn.Module):
    """What `Preprocessing` does with photos of one size: uint8 (N, H, W, 3), and so it returns."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """Crop and scale."""
        return resizing.prepare(images.float(), self.preprocessing).to(torch.uint8)


class Judge(nn.Module):
    """Image scores (N,), maps (N, H, W) and, of classifiers, logits (N, 2) of prepared images."""

    def __init__(self, detector: Detector, size: tuple[int, int]) -> None:
        super().__init__()
        self.smoothing, self.box = 0.0, 1
        if isinstance(detector, PatchDetector):
            self.measure: nn.Module = Patches(detector, size)
            self.smoothing = detector.params.smoothing
        elif isinstance(detector, efficient_ad.Detector):
            self.measure = Imitations(detector)
        elif isinstance(detector, vit.Detector):
            self.measure = Probabilities(detector, size)
        elif isinstance(detector, median_residual.Detector):
            self.measure = Residuals(detector.params.kernel)
            self.box = detector.params.blur
        else:
            kind = type(detector).__module__.rpartition(".")[2]
            raise InputError(f"{kind} has no graph; export another detector")
        with torch.no_grad():
            grid = self.measure(torch.zeros(1, *size, 3))[1].shape[1:]
        is_map = tuple(grid) == size and self.smoothing == 0
        sides = [] if is_map else zip(grid, size, strict=True)
        self.matrices = [enlarging(*side, self.smoothing) for side in sides]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Judge images, uint8 (N, H, W, 3), of the size that is known."""
        image_scores, patch_scores, logits = self.measure(images.float())
        maps = self._maps(patch_scores)
        scores = maps.amax((1, 2)) if image_scores is None else image_scores
        return (scores, maps) if logits is None else (scores, maps, logits)

    def _maps(self, scores: Tensor) -> Tensor:
        """Return what `maps.to_maps` makes of patch scores (N, h, w)."""
        if self.box > 1:
            around = pad(scores[:, None], [self.box // 2] * 4, mode="reflect")
            scores = avg_pool2d(around, self.box, 1)[:, 0]
        if self.matrices:
            rows, columns = self.matrices
            scores = rows @ scores @ columns.T
        return scores


class Patches(nn.Module):
    """A detector on the patches of a backbone."""

    def __init__(self, detector: PatchDetector[Any], size: tuple[int, int]) -> None:
        super().__init__()
        self.detector, self.backbone = detector, detector.backbone
        self.network = detector.backbone.features
        self.tile, self.grid = self.backbone.tile_size(size), finest_grid(self.backbone, size)

    def forward(self, images: Tensor) -> Measured:
        """Embed and measure."""
        (height, width), tiles = self.tile, self.backbone.tiles
        sized = resizing.fitted(images, (tiles * height, tiles * width))
        pixels = normalise(sized, self.backbone.mean, self.backbone.std)
        if tiles == 1:
            layers = self.network(pixels)
        else:
            apart = pixels.reshape(-1, 3, tiles, height, tiles, width).permute(0, 2, 4, 1, 3, 5)
            seen = self.network(apart.reshape(-1, 3, height, width))
            layers = [_joined(layer, tiles) for layer in seen]
        return *self.detector.measure(layers, self.grid), None


def _joined(layer: Tensor, tiles: int) -> Tensor:
    """Lay tiles (N * tiles * tiles, C, h, w) side by side."""
    channels, height, width = layer.shape[1:]
    apart = layer.reshape(-1, tiles, tiles, channels, height, width).permute(0, 3, 1, 4, 2, 5)
    return apart.reshape(-1, channels, tiles * height, tiles * width)


class Imitations(nn.Module):
    """EfficientAD."""

    def __init__(self, detector: efficient_ad.Detector) -> None:
        super().__init__()
        self.detector, self.network = detector, detector.network

    def forward(self, images: Tensor) -> Measured:
        """Compare teacher, student and autoencoder."""
        inputs = self.detector.inputs
        sized = resizing.averaged(images, inputs.image_size)
        pixels = normalise(sized, inputs.mean, inputs.std)
        return *self.detector.measure(pixels), None


class Probabilities(nn.Module):
    """A fine-tuned transformer."""

    def __init__(self, detector: vit.Detector, size: tuple[int, int]) -> None:
        super().__init__()
        self.detector, self.network, self.size = detector, detector.network, size

    def forward(self, images: Tensor) -> Measured:
        """Classify images and patches."""
        inputs = self.detector.inputs
        sized = resizing.fitted(images, inputs.fitted(self.size))
        pixels = normalise(sized, inputs.mean, inputs.deviation)
        padded = vit.padded(pixels, inputs.image_size, 0)
        image_scores, patch_scores, logits = self.detector.measure(padded, self.size)
        return image_scores, patch_scores, logits


class Residuals(nn.Module):
    """The baseline: pixels less the median of their neighbourhood."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel

    def forward(self, images: Tensor) -> Measured:
        """Return residuals, grey levels."""
        height, width = images.shape[1:3]
        pixels = images.permute(0, 3, 1, 2)  # (N, 3, H, W)
        around = pad(pixels, [self.kernel // 2] * 4, mode="replicate")
        shifted = [
            around[:, :, top : top + height, left : left + width]
            for top in range(self.kernel)
            for left in range(self.kernel)
        ]
        middle = self.kernel**2 // 2
        median = torch.stack(shifted, -1).topk(middle + 1).values[..., middle]
        return None, (pixels - median).abs().amax(1), None
