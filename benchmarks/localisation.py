"""Where is the anomaly? The patch head, learnt from masks, against two readings of the attention.

Scores the validation split with the model of `dvc repro train_vit` and writes
benchmarks/localisation.json. The test split stays out, for this is a choice.
`python benchmarks/localisation.py`
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from measured import record
from tqdm import tqdm
from transformers import AutoModelForImageClassification

from blackswan.data.dataset import Split, mask_of
from blackswan.data.images import decode_image
from blackswan.detectors import vit
from blackswan.errors import run
from blackswan.evaluation.pixels import PixelMetrics
from blackswan.outputs import write_json

MODEL = Path("data/models/vit")
DATASET = Path("data/dataset")
RESULT = Path("benchmarks/localisation.json")


@torch.inference_mode()
def attention_maps(
    network: torch.nn.Module, pixels: torch.Tensor
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the attention of the class token to the patches, last block and rollout, (h, w).

    Rollout multiplies the attention of all blocks, each averaged with the identity for the
    residual path (Abnar and Zuidema, arXiv 2005.00928).
    """
    blocks = network(pixels, output_attentions=True).attentions  # depth x (1, heads, T, T)
    attention = [block[0].mean(dim=0) for block in blocks]  # (T, T) each
    rollout = torch.eye(len(attention[0]))
    for block in attention:
        rollout = (block + torch.eye(len(block))) / 2 @ rollout
    for name, values in (("last attention", attention[-1]), ("attention rollout", rollout)):
        side = int(len(values) ** 0.5)
        yield name, values[0, -side * side :].reshape(side, side).numpy()


def main() -> None:
    """Draw three maps of every validation image and measure them."""
    detector = vit.load(MODEL)
    attentive = AutoModelForImageClassification.from_pretrained(MODEL, attn_implementation="eager")
    pixels: dict[str, PixelMetrics] = {}
    for row in tqdm(Split(DATASET, "validation"), desc="validation", disable=None):
        image = decode_image(row.image)
        mask = mask_of(row, image.shape[:2])
        maps = {"patch head": detector.score([image]).anomaly_maps[0]}
        for name, patches in attention_maps(attentive.eval(), detector.inputs.to_tensor([image])):
            maps[name] = cv2.resize(patches, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        for name, anomaly_map in maps.items():
            pixels.setdefault(name, PixelMetrics()).add(anomaly_map, mask, row.group)
    results = {name: found.compute() for name, found in pixels.items()}
    write_json(RESULT, results)
    record([RESULT.name])
    for name, result in results.items():
        print(
            f"{name:18} pixel AUROC {result['pixel_auroc']:.4f}  AUPRO {result['pixel_aupro']:.4f}"
        )


if __name__ == "__main__":
    run(main)
