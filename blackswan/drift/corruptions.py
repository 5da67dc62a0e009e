"""Drifts of a camera, named, at severities from 0 (untouched) to 5.

Names and the idea of five severities follow ImageNet-C (Hendrycks and Dietterich, ICLR 2019,
arXiv 1903.12261); the amounts are milder, for a fixed camera drifts and does not change the world,
and were settled before any detector was scored. Between whole severities amounts are interpolated,
so that a stream can drift slowly.

A drifted image is an exact function of image, severity and seed. What sits on the lens or in the
light (directions, specks, the smear) depends on the seed alone and so is the same for all images;
noise depends on the pixels too, so that no two images have the same. Every draw is the same at all
severities and only its weight grows.
"""

import hashlib
from collections.abc import Callable

import cv2
import numpy as np

from blackswan.errors import InputError, shown
from blackswan.seeds import generator

HIGHEST = 5
SEVERITIES = tuple(range(HIGHEST + 1))
# What severities 1 to 5 are; a fraction is of the shorter side of the image.
AMOUNTS: dict[str, tuple[float, ...]] = {
    "brightness": (8, 16, 28, 44, 64),  # grey levels added
    "contrast": (0.1, 0.2, 0.35, 0.5, 0.65),  # of the way to the mean grey
    "exposure": (0.15, 0.3, 0.5, 0.8, 1.2),  # stops more light
    "gamma": (0.1, 0.2, 0.35, 0.55, 0.8),  # exponent above 1
    "colour_temperature": (0.04, 0.08, 0.14, 0.2, 0.28),  # more red, less blue
    "defocus": (0.003, 0.006, 0.01, 0.015, 0.022),  # radius of the disc, fraction
    "motion_blur": (0.01, 0.02, 0.035, 0.055, 0.08),  # length of the path, fraction
    "sensor_noise": (3, 6, 10, 16, 24),  # grey levels, standard deviation at white
    "salt_and_pepper": (0.001, 0.003, 0.008, 0.02, 0.05),  # of the pixels
    "jpeg": (40, 60, 75, 85, 92),  # 100 less the quality
    "pixelation": (0.25, 0.6, 1.2, 2, 3),  # side of a large pixel above 1
    "shift": (0.01, 0.02, 0.04, 0.07, 0.1),  # fraction
    "rotation": (1, 2, 4, 7, 12),  # degrees
    "zoom": (0.02, 0.04, 0.08, 0.14, 0.22),  # scale above 1
    "illumination_gradient": (0.05, 0.1, 0.18, 0.28, 0.4),  # from so much less light to more
    "dust": (1, 2, 4, 7, 12),  # specks
    "smear": (0.15, 0.3, 0.5, 0.7, 0.9),  # opacity
}
NAMES = tuple(AMOUNTS)
FAMILIES = {
    "light": (
        "brightness", "contrast", "exposure", "gamma", "colour_temperature",
        "illumination_gradient",
    ),
    "sharpness": ("defocus", "motion_blur", "pixelation"),
    "sensor and file": ("sensor_noise", "salt_and_pepper", "jpeg"),
    "lens": ("dust", "smear"),
    "place": ("shift", "rotation", "zoom"),
}  # fmt: skip
MOVING = FAMILIES["place"]  # masks move along


def amount_of(name: str, severity: float) -> float:
    """Return the amount of a severity; InputError where there is no such drift or severity."""
    if name not in AMOUNTS:
        raise InputError(f"no drift is called {shown(name)}; choose one of {', '.join(NAMES)}")
    if not 0 <= severity <= HIGHEST:
        raise InputError(f"the severity {severity:g} of {name} must lie between 0 and {HIGHEST}")
    return float(np.interp(severity, SEVERITIES, (0, *AMOUNTS[name])))


def corrupt(image: np.ndarray, name: str, severity: float, seed: int) -> np.ndarray:
    """Return an RGB image, uint8 (H, W, 3), as a camera sees it that has drifted so far.

    Severity 0 changes no pixel.
    """
    amount = amount_of(name, severity)
    if severity == 0:
        return image.copy()
    rng = generator(seed, name)
    if name in MOVING:
        return _move(image, _motion(name, amount, image.shape, rng), cv2.INTER_LINEAR)
    drifted = DRIFTS[name](image.astype(np.float32), amount, rng)
    return np.clip(np.rint(drifted), 0, 255).astype(np.uint8)


def corrupt_mask(mask: np.ndarray, name: str, severity: float, seed: int) -> np.ndarray:
    """Return the mask, bool (H, W), of an image that `corrupt` changed."""
    amount = amount_of(name, severity)
    if severity == 0 or name not in MOVING:
        return mask.copy()
    motion = _motion(name, amount, mask.shape, generator(seed, name))
    return _move(mask.astype(np.uint8), motion, cv2.INTER_NEAREST).astype(bool)


# Light. Images are float32 (H, W, 3), grey levels.


def _brightness(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    return image + np.float32(amount)


def _contrast(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    mean = np.float32(image.mean(dtype=np.float64))
    return image + (mean - image) * np.float32(amount)


def _exposure(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    return image * np.float32(2 ** (amount / 2.2))  # in linear light, which is grey ** 2.2


def _gamma(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    curve = 255 * (np.arange(256) / 255) ** (1 + amount)
    return curve[image.astype(np.uint8)]


def _colour_temperature(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    return image * np.array([1 + amount, 1, 1 - amount], np.float32)


def _illumination_gradient(
    image: np.ndarray, amount: float, rng: np.random.Generator
) -> np.ndarray:
    x, y = _places(image.shape)
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    return image * (1 + amount * along / np.abs(along).max())[..., None].astype(np.float32)


# Sharpness.


def _defocus(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    return _filtered(image, _disc(amount * _side(image)))


def _motion_blur(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    reach = amount * _side(image) / 2
    angle = rng.uniform(0, np.pi)
    middle = int(np.ceil(reach)) + 1
    kernel = np.zeros((2 * middle + 1, 2 * middle + 1))
    for step in np.linspace(-reach, reach, 64):
        x, y = middle + step * np.cos(angle), middle + step * np.sin(angle)
        left, top = int(x), int(y)
        across, down = x - left, y - top
        kernel[top : top + 2, left : left + 2] += np.outer([1 - down, down], [1 - across, across])
    return _filtered(image, kernel)


def _pixelation(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    small = max(1, round(width / (1 + amount))), max(1, round(height / (1 + amount)))
    coarse = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST)


# The sensor and the file.


def _sensor_noise(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Add noise whose variance has a part that grows with the light and one that is read out."""
    deviation = amount * np.sqrt(0.2 + 0.8 * image / 255)
    return image + deviation * _own(image, rng).standard_normal(image.shape, np.float32)


def _salt_and_pepper(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    own = _own(image, rng)
    hit = own.random(image.shape[:2]) < amount
    salt = own.random(image.shape[:2]) < 0.5
    return np.where(hit[..., None], np.where(salt, 255, 0)[..., None], image)


def _jpeg(image: np.ndarray, amount: float, _: np.random.Generator) -> np.ndarray:
    quality = [cv2.IMWRITE_JPEG_QUALITY, round(100 - amount)]
    written = cv2.imencode(".jpg", image.astype(np.uint8)[..., ::-1], quality)[1]
    return np.asarray(cv2.imdecode(written, cv2.IMREAD_COLOR))[..., ::-1]


# The lens.


def _dust(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    x, y = _places(image.shape)
    for speck in range(int(np.ceil(amount))):
        left, top, radius, shade = rng.uniform([-1, -1, 0.03, 0.4], [1, 1, 0.08, 0.8])
        reach = left * np.abs(x).max(), top * np.abs(y).max()
        distance = np.hypot(x - reach[0], y - reach[1]) / radius
        opacity = shade * min(1, amount - speck) * np.clip(1.5 - distance, 0, 1)
        image = image * (1 - opacity)[..., None].astype(np.float32)
    return image


def _smear(image: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Lay a band over the image in which it is blurred and veiled, as by a finger."""
    x, y = _places(image.shape)
    angle, place = rng.uniform(0, np.pi), rng.uniform(-0.3, 0.3)
    across = (x * np.cos(angle) + y * np.sin(angle) - place) / 0.4
    opacity = amount * np.exp(-(across**2))[..., None].astype(np.float32)
    sigma = 0.02 * _side(image)
    veiled = 0.8 * cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT) + 40
    return image + opacity * (veiled - image)


DRIFTS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "exposure": _exposure,
    "gamma": _gamma,
    "colour_temperature": _colour_temperature,
    "defocus": _defocus,
    "motion_blur": _motion_blur,
    "sensor_noise": _sensor_noise,
    "salt_and_pepper": _salt_and_pepper,
    "jpeg": _jpeg,
    "pixelation": _pixelation,
    "illumination_gradient": _illumination_gradient,
    "dust": _dust,
    "smear": _smear,
}


# The place of the camera.


def _motion(
    name: str, amount: float, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Return the affine matrix (2, 3) of what moves, in a direction that the seed gives."""
    height, width = shape[:2]
    turn, sign = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    if name == "shift":
        reach = amount * min(height, width)
        return np.array([[1, 0, reach * np.cos(turn)], [0, 1, reach * np.sin(turn)]])
    degrees, scale = (sign * amount, 1.0) if name == "rotation" else (0.0, 1 + amount)
    return cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, scale)


def _move(image: np.ndarray, motion: np.ndarray, interpolation: int) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.warpAffine(
        image, motion, (width, height), flags=interpolation, borderMode=cv2.BORDER_REFLECT_101
    )


def _side(image: np.ndarray) -> int:
    return min(image.shape[:2])


def _places(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y (H, W) from the middle, in units of half the shorter side."""
    height, width = shape[:2]
    half = min(height, width) / 2
    x, y = (
        (np.arange(width) - (width - 1) / 2) / half,
        (np.arange(height) - (height - 1) / 2) / half,
    )
    return np.meshgrid(x, y)


def _disc(radius: float) -> np.ndarray:
    """Return a disc, larger by `radius` than a pixel, with a rim as soft as one."""
    middle = int(np.ceil(radius)) + 1
    x, y = np.meshgrid(*[np.arange(-middle, middle + 1)] * 2)
    return np.clip(radius + 1 - np.hypot(x, y), 0, 1)


def _filtered(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    weights = (kernel / kernel.sum()).astype(np.float32)
    return cv2.filter2D(image, -1, weights, borderType=cv2.BORDER_REFLECT_101)


def _own(image: np.ndarray, rng: np.random.Generator) -> np.random.Generator:
    """Return a generator of the image's own: the same for the same pixels."""
    pixels = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    return generator(int(rng.integers(2**31)), pixels)
