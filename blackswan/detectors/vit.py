"""A fine-tuned Vision Transformer: one probability per image, one per patch.

It learns from synthetic anomalies and their masks, so stages/train_vit.py fits it; it is scored
like every other detector. CLASSIFIERS are the kinds of weights that will do, at any size that their
patches fill.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel

from blackswan.data.dataset import LABELS, Split, mask_of
from blackswan.data.images import decode_image
from blackswan.detectors.interface import Scores
from blackswan.errors import InputError, shown
from blackswan.networks import devices, processes
from blackswan.networks.backbones import (
    any_size,
    check_size,
    fitted_size,
    model_type,
    quiet_transformers,
    read_normalisation,
    to_tensor,
)
from blackswan.outputs import write_json
from blackswan.params import Section, Size, height_and_width, load_section

LEARNS_ANOMALIES = True
CLASSIFIERS = ("vit", "deit", "beit", "dinov2", "dinov2_with_registers")


class Input(Section):
    """What the network expects: RGB in [0, 1], normalised, in whole patches.

    An image is as large as `image_size` holds it, its aspect kept, in the upper left corner; what
    is left is grey, and no patch there counts.
    """

    image_size: Size
    patch_size: int  # pixels, a side
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]

    @classmethod
    def of_weights(cls, weights: Path, image_size: int | Sequence[int]) -> "Input":
        """Take mean, deviation and patches from the JSON files beside the weights."""
        mean, deviation = read_normalisation(weights)
        config = AutoConfig.from_pretrained(weights, local_files_only=True)
        return cls.model_validate(
            {
                "image_size": image_size,
                "patch_size": config.patch_size,
                "mean": mean,
                "deviation": deviation,
            }
        )

    def fitted(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return height and width, in pixels, that images of `shape` (H, W, ...) take up."""
        return fitted_size(shape, self.image_size, self.patch_size, self.patch_size)

    def grid(self, shape: Sequence[int]) -> tuple[int, int]:
        """Return how many rows and columns of patches images of `shape` (H, W, ...) take up."""
        height, width = self.fitted(shape)
        return height // self.patch_size, width // self.patch_size

    def to_tensor(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Return (N, 3, height, width) float32 of RGB images, uint8 (H, W, 3), of one size."""
        size = self.fitted(images[0].shape)
        pixels = to_tensor(images, size, self.mean, self.deviation)
        return padded(pixels, self.image_size, 0)

    def shares(self, mask: np.ndarray) -> torch.Tensor:
        """Return the share of each patch (h, w) that a mask, bool (H, W), covers; -1 in no image.

        `Network.forward` takes them as masks.
        """
        marked = torch.from_numpy(mask).float()[None]
        shares = functional.adaptive_avg_pool2d(marked, self.grid(mask.shape))[0]
        return padded(shares, self.grid(self.image_size), -1)


def check_backbone(weights: Path, image_size: int | Sequence[int], frozen_blocks: int = 0) -> None:
    """Raise InputError unless the weights are of one of CLASSIFIERS, fit the size and can train.

    All are told by config.json alone, before any image is read.
    """
    kind = model_type(weights)
    if kind not in CLASSIFIERS:
        raise InputError(
            f"train_vit.backbone: model_type {shown(repr(kind))} of {weights} is no transformer "
            f"that classifies images; choose weights of one of {', '.join(CLASSIFIERS)}, such as "
            "vit_small"
        )
    config = AutoConfig.from_pretrained(weights, local_files_only=True)
    try:
        check_size(weights, height_and_width(image_size), config.patch_size)
    except InputError as error:
        raise InputError(f"train_vit.{error}") from None
    if frozen_blocks >= config.num_hidden_layers:
        raise InputError(
            f"train_vit.frozen_blocks = {frozen_blocks} leaves none of the "
            f"{config.num_hidden_layers} blocks of {weights} to train; lower it"
        )


class TrainingRows(torch.utils.data.Dataset):
    """Rows of a split as the tensors that `Network.forward` takes."""

    def __init__(self, split: Split, inputs: Input) -> None:
        self.split, self.inputs = split, inputs

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.split[index]
        image = decode_image(row.image)
        mask = np.asarray(mask_of(row, image.shape[:2]))  # of all that train, for they were made
        return {
            "pixel_values": self.inputs.to_tensor([image])[0],
            "labels": row.label,
            "masks": self.inputs.shares(mask),
        }


class Network(nn.Module):
    """A two-class image classifier, and a linear head that judges each patch."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        width = classifier.config.hidden_size
        self.classifier = classifier
        self.options = any_size(classifier.config.model_type)
        self.patch_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    @classmethod
    def from_weights(cls, weights: Path) -> "Network":
        """Put new heads on a pretrained checkpoint; the heads draw from torch's global seed.

        Raises InputError where the checkpoint lacks more than a head.
        """
        with quiet_transformers():
            classifier, loaded = AutoModelForImageClassification.from_pretrained(
                weights,
                local_files_only=True,
                num_labels=len(LABELS),
                id2label=dict(enumerate(LABELS)),
                label2id={name: index for index, name in enumerate(LABELS)},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        new = {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
        if unknown := sorted(name for name in new if not name.startswith("classifier.")):
            raise InputError(f"{weights}/model.safetensors has no {unknown[0]}; fetch it again")
        return cls(classifier)

    @property
    def heads(self) -> list[nn.Parameter]:
        """The parameters that start from nothing."""
        classification_head = self.classifier.get_submodule("classifier")
        return [*classification_head.parameters(), *self.patch_head.parameters()]

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        masks: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return logits (N, 2), patch_logits (N, h, w) and, with labels and masks, the loss.

        Takes pixel_values (N, 3, H, W), labels (N,) and masks (N, h, w) as Input.shares returns
        them. The loss is the mean cross-entropy of the images, less those of a label below 0, plus
        that of the patches that lie in one; both are means over all processes that train.
        """
        output = self.classifier(pixel_values, output_hidden_states=True, **self.options)
        patch = self.classifier.config.patch_size
        height, width = (side // patch for side in pixel_values.shape[-2:])
        # Class and register tokens stand in front of those of the patches.
        tokens = output.hidden_states[-1][:, -height * width :]
        result = {
            "logits": output.logits,
            "patch_logits": self.patch_head(tokens).reshape(-1, height, width),
        }
        if labels is not None and masks is not None:
            inside = masks >= 0
            result["loss"] = processes.mean_loss(
                functional.cross_entropy, output.logits, labels, (labels >= 0).sum()
            )
            result["loss"] += processes.mean_loss(
                functional.binary_cross_entropy_with_logits,
                result["patch_logits"][inside], masks[inside], inside.sum(),
            )  # fmt: skip
        return result


class Detector:
    """Image score: probability of `anomalous`; map: that of each patch, scaled up to pixels."""

    def __init__(self, network: Network, inputs: Input) -> None:
        self.network, self.inputs = network.eval(), inputs

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score RGB images, uint8 (H, W, 3), all of one size; all values are probabilities."""
        device, count = next(self.network.parameters()).device, len(images)
        # A lone image takes another path through the products, with other bits: it goes twice.
        pixels = self.inputs.to_tensor([*images, images[-1]][: max(2, count)])
        size = images[0].shape[:2]
        outputs = devices.in_halves(
            lambda part: self.measure(part.to(device), size), pixels,
            "train with a smaller train_vit.image_size",
        )  # fmt: skip
        image_scores, patch_scores, logits = (
            torch.cat(part)[:count].cpu().numpy() for part in zip(*outputs, strict=True)
        )
        return Scores(image_scores, patch_scores, size, probabilities=True, logits=logits)

    def measure(self, pixels: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, ...]:
        """Return image scores (N,), patch scores (N, h, w) and logits (N, 2) of images of `size`.

        Takes what `Input.to_tensor` makes of them.
        """
        output = self.network(pixels)
        rows, columns = self.inputs.grid(size)
        patch_scores = output["patch_logits"].sigmoid()[:, :rows, :columns]
        return output["logits"].softmax(dim=1)[:, 1], patch_scores, output["logits"]

    def save(self, folder: Path) -> None:
        """Write the classifier as transformers does, the patch head and detector.json."""
        with quiet_transformers():
            self.network.classifier.save_pretrained(folder)
        save_file(self.network.patch_head.state_dict(), folder / "patch_head.safetensors")
        write_json(folder / "detector.json", {"input": self.inputs.model_dump()})


def padded(values: torch.Tensor, size: tuple[int, int], value: float) -> torch.Tensor:
    """Fill (..., H, W) up to `size`, at the right and below."""
    height, width = (side - filled for side, filled in zip(size, values.shape[-2:], strict=True))
    return functional.pad(values, (0, width, 0, height), value=value) if height + width else values


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    with quiet_transformers():
        network = Network(
            AutoModelForImageClassification.from_pretrained(folder, local_files_only=True)
        )
    network.patch_head.load_state_dict(load_file(folder / "patch_head.safetensors"))
    return Detector(
        network.to(devices.device()), load_section(Input, "input", folder / "detector.json")
    )
