"""Weights small enough for a test: two layers, random, in the layout of data/weights."""

from pathlib import Path

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    PreTrainedConfig,
    PreTrainedModel,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

KINDS: dict[str, tuple[type[PreTrainedConfig], type[PreTrainedModel]]] = {
    "vit": (ViTConfig, ViTModel),
    "dinov2": (Dinov2Config, Dinov2Model),
}


def write_weights(folder: Path, kind: str) -> Path:
    """Write a random ViT or Dinov2 with 14-pixel patches for images of 56 pixels."""
    config, model = KINDS[kind]
    torch.manual_seed(1)
    model(
        config(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=48,
            image_size=56,
            patch_size=14,
        )
    ).save_pretrained(folder)
    ViTImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.25] * 3).save_pretrained(folder)
    return folder
