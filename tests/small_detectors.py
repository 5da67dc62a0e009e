"""Photos of parts, and small detectors of every kind."""

import cv2
import numpy as np
import torch
from conftest import Pictures

from blackswan.data.preprocessing import Preprocessing, Step
from blackswan.detectors import efficient_ad, median_residual, vit
from blackswan.detectors.interface import Resources, load_module
from blackswan.networks.pdn import Pdn

PHOTO, SIZE = (70, 90), (64, 64)
PREPARED = Preprocessing(steps=[Step(crop="center_square", size=64), Step(crop="none", size=64)])
SHARED = {"backbone": "tiny", "layers": [1, 2], "image_size": 112, "tiles": 1, "smoothing": 0.018}
BANK = {"coreset_ratio": 0.2, "bank_patches": None, "top_fraction": 0.05}
PATCHCORE = SHARED | BANK | {
    "neighborhood": 3, "features": 16, "projection": "gaussian", "neighbors": 3, "reweighting": 9,
}  # fmt: skip
DINO = SHARED | BANK | {
    "final_norm": True, "fusion": "features", "references": 4, "rotations": 1, "mask": "pca",
    "variance": 0.99, "method": "memory",
}  # fmt: skip
PADIM = SHARED | {"features": 20, "rank": 8, "regularization": 0.01, "covariance": "full"}
KINDS = {
    "padim": ("padim", PADIM),
    "padim, low rank": ("padim", PADIM | {"covariance": "low_rank"}),
    "padim, diagonal": ("padim", PADIM | {"covariance": "diagonal"}),
    "patchcore": ("patchcore", PATCHCORE),
    "patchcore, tiles": ("patchcore", PATCHCORE | {"tiles": 2, "image_size": 56}),
    "patchcore, equation 7": ("patchcore", PATCHCORE | {"top_fraction": None}),
    "gaussian_patches": (
        "gaussian_patches",
        SHARED | {"neighborhood": 3, "components": 6, "regularization": 0.01, "top_fraction": 0.05},
    ),
    "simplenet": (
        "simplenet",
        SHARED | {
            "neighborhood": 3, "hidden_layers": 2, "hidden": 8, "noise": 0.5, "steps": 3,
            "learning_rate": 1e-3, "weight_decay": 1e-5, "top_fraction": 0.05,
        },
    ),
    "dino_memory": ("dino_memory", DINO),
    "dino_memory, a bank a layer": ("dino_memory", DINO | {"fusion": "maps", "mask": "none"}),
    "dino_memory, subspace": ("dino_memory", DINO | {"method": "subspace"}),
    "efficient_ad": ("efficient_ad", {}),
    "vit": ("vit", {}),
    "median_residual": ("median_residual", {}),
}  # fmt: skip


def draw_photo(number, stain=False):
    """A round part on cloth, no two alike; some have a stain."""
    rng = np.random.default_rng(number)
    photo = rng.normal(110, 12, (*PHOTO, 3)).astype(np.float32)
    photo = cv2.GaussianBlur(photo, (0, 0), 1)
    cv2.circle(photo, (45, 35), 24, (170, 160, 140), -1)
    photo += cv2.GaussianBlur(rng.normal(0, 20, (*PHOTO, 3)).astype(np.float32), (0, 0), 1)
    if stain:
        left, top = rng.integers(25, 55), rng.integers(15, 45)
        photo[top : top + 9, left : left + 9] = (20, 10, 240)
    return photo.clip(0, 255).astype(np.uint8)


def fit(name, params, weights):
    """Return a detector of a kind, fitted or at random."""
    if name == "median_residual":
        return median_residual.Detector(median_residual.Params(kernel=3, blur=5))
    if name == "vit":
        torch.manual_seed(0)
        network = vit.Network.from_weights(weights / "tiny")
        return vit.Detector(network, vit.Input.of_weights(weights / "tiny", 56))
    if name == "efficient_ad":
        torch.manual_seed(0)
        params = efficient_ad.Params(
            backbone="tiny", image_size=64, crop_size=None, steps=1, learning_rate=1, weight_decay=0
        )
        inputs = efficient_ad.Input((64, 64), [0.5] * 3, [0.25] * 3)
        return efficient_ad.Detector(
            params, efficient_ad.Network(Pdn("S", 5), (64, 64)), inputs, "step,loss\n"
        )
    module = load_module(name)
    images = Pictures(PREPARED(draw_photo(number)) for number in range(12))
    resources = Resources(validation=[], weights=weights, checkpoints=weights, seed=0)
    return module.fit(images, module.Params(**params), resources)
