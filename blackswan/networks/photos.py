"""Natural photos out of pinned wheels: a little of the world where no larger set is at hand.

Eleven are in the public domain or CC0, as skimage/data/_fetchers.py of their wheel says of each;
two of scikit-learn are CC BY 2.0: china by danielbuechele, flower by vultilion.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_sample_images

from blackswan.data.images import decode_image
from blackswan.networks.wheels import fetch_files_from_wheel

REQUIREMENT = "scikit-image==0.26.0"
BUILT_FOR = (
    "--platform=manylinux_2_28_x86_64",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
)
WHEEL_SHA256 = "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af"
FOLDER = "skimage/data/"
PHOTOS = {
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
}


def sample_photos() -> dict[str, np.ndarray]:
    """Return the thirteen photos by name, uint8 (H, W, 3); raises InputError without an index."""
    pins = {FOLDER + name: sha256 for name, sha256 in PHOTOS.items()}
    files = fetch_files_from_wheel(REQUIREMENT, WHEEL_SHA256, pins, BUILT_FOR)
    photos = {Path(name).stem: decode_image(data, name) for name, data in files.items()}
    installed = load_sample_images()
    names = [Path(name).stem for name in installed.filenames]
    return photos | dict(zip(names, installed.images, strict=True))
