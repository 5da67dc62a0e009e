"""EfficientAD (arXiv 2303.14535): where a student and an autoencoder fail to imitate a teacher.

The student learns what the teacher (stage distill_teacher) says of normal patches; the autoencoder
learns it through a bottleneck that sees the whole image, so that it misses what is out of place,
and the student learns to predict the autoencoder too. Their two disagreements are the two maps.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import AfterValidator, Field
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import pad
from tqdm import tqdm

from blackswan.data.images import crop_and_resize
from blackswan.data.shortages import Shortage, too_few
from blackswan.detectors.interface import LOSSES, Images, Resources, Scores
from blackswan.detectors.patches import JSON, TENSORS, load_tensors, normal_batches
from blackswan.errors import InputError
from blackswan.networks import pdn, training
from blackswan.networks.backbones import read_normalisation, to_tensor
from blackswan.networks.checkpoints import fingerprint
from blackswan.networks.devices import device
from blackswan.networks.embeddings import channel_statistics
from blackswan.networks.pdn import Pdn
from blackswan.networks.training import Schedule, Shuffled, torch_seed
from blackswan.outputs import replace_file
from blackswan.params import Section, Size, in_short, load_section
from blackswan.seeds import generator

P_HARD = 0.999  # the loss of the student is the mean of its largest 0.1 % of squared differences
Q_A, Q_B = 0.9, 0.995  # these quantiles of validation maps become 0 and 0.1
GRAY_PENALTIES = 0.3  # share of the photos that lose their colours
HALVED = 32  # the autoencoder halves the sides of an image five times


def _in_halves(size: tuple[int, int]) -> tuple[int, int]:
    if any(side < 2 * HALVED or side % HALVED for side in size):
        raise ValueError(f"takes multiples of {HALVED} from {2 * HALVED} pixels on")
    return size


class Params(Section):
    """Knobs of EfficientAD; the student has the size, S or M, of its teacher."""

    backbone: str  # the teacher, a name of the distill_teacher block
    image_size: Annotated[Size, AfterValidator(_in_halves)]  # pixels; 256 in the paper
    crop_size: Annotated[int, Field(ge=36, multiple_of=4)] | None  # pixels; null: whole images
    steps: Annotated[int, Field(ge=1)]  # of one image each; 70000 in the paper
    learning_rate: Annotated[float, Field(gt=0)]  # a tenth of it after 95 % of the steps
    weight_decay: Annotated[float, Field(ge=0)]


def shortage(images: int, params: Params) -> Shortage | None:
    """Tell where `images` normal images are too few to fit on."""
    return too_few("efficient_ad", images)


def build_autoencoder(
    image_size: tuple[int, int], channels: int, grid: tuple[int, int]
) -> nn.Sequential:
    """Return the paper's autoencoder, (N, 3, H, W) to (N, channels, *grid), for any size.

    The paper's sizes (a bottleneck of 8 x 8, then 3, 8, 15, 32, 63, 127 and 56 a side) are those of
    256 pixels; others scale with the image.
    """
    layers: list[nn.Module] = []
    for width, wider in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 64)):
        layers += [nn.Conv2d(width, wider, 4, stride=2, padding=1), nn.ReLU(inplace=True)]
    height, width = image_size
    layers.append(nn.Conv2d(64, 64, (height // HALVED, width // HALVED)))
    for divisor, less in ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1)):
        layers += [
            nn.Upsample(
                size=tuple(max(1, side // divisor - less) for side in image_size), mode="bilinear"
            ),
            nn.Conv2d(64, 64, 4, padding=2),
            nn.ReLU(inplace=True),
            nn.Dropout(0.2),
        ]
    layers += [
        nn.Upsample(size=grid, mode="bilinear"),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, channels, 3, padding=1),
    ]
    return nn.Sequential(*layers)


class Network(nn.Module):
    """Teacher, student and autoencoder, and the quantiles that bring both maps to one scale."""

    quantiles: Tensor

    def __init__(self, teacher: Pdn, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)
        self.student = Pdn(teacher.size, 2 * teacher.channels)
        grid = pdn.patch_grid(image_size, teacher.size)
        self.autoencoder = build_autoencoder(image_size, teacher.channels, grid)
        # rows: student, autoencoder; columns: q_a, q_b
        self.register_buffer("quantiles", torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        self.first = slice(0, teacher.channels)  # of the student: imitate the teacher
        self.second = slice(teacher.channels, 2 * teacher.channels)  # imitate the autoencoder

    def loss(
        self, image: Tensor, jittered: Tensor, photo: Tensor, window: tuple[int, int, int, int]
    ) -> Tensor:
        """Return the loss of one step, algorithm 1 of the paper; all images are (1, 3, H, W).

        Only patches of the `window` (top, left, height, width; multiples of the stride) count:
        outside of it the PDNs are not even computed, which changes nothing inside.
        """
        top, left, height, width = window
        imitated = self.autoencoder(jittered)
        image, jittered, photo = (
            x[..., top : top + height, left : left + width] for x in (image, jittered, photo)
        )
        with torch.no_grad():
            wanted, wanted_jittered = self.teacher(torch.cat([image, jittered])).split(1)
        rows, columns = (
            slice(start // 4, start // 4 + side)
            for start, side in zip((top, left), wanted.shape[2:], strict=True)
        )
        imitated = imitated[..., rows, columns]
        features = self.student.trunk(torch.cat([image, photo, jittered]))
        told, penalised = self.student.describe(features[:2], self.first).split(1)
        told_jittered = self.student.describe(features[2:], self.second)

        differences = (wanted - told).square().flatten()
        hard = int((1 - P_HARD) * (len(differences) - 1)) + 1  # as many as reach the quantile
        hardest = differences.topk(hard).values.mean()
        penalty = penalised.square().mean()
        autoencoding = (wanted_jittered - imitated).square().mean()
        following = (imitated - told_jittered).square().mean()
        return hardest + penalty + autoencoding + following

    def raw_maps(self, images: Tensor) -> Tensor:
        """Return both maps of (N, 3, H, W): (N, 2, h, w), not yet on one scale."""
        told = self.student(images)
        differences = (
            self.teacher(images) - told[:, self.first],
            self.autoencoder(images) - told[:, self.second],
        )
        return torch.stack([difference.square().mean(1) for difference in differences], 1)

    def combined_map(self, images: Tensor) -> Tensor:
        """Return the mean of both maps (N, h, w); q_a of normal patches is 0, q_b is 0.1."""
        low, high = self.quantiles.T[:, :, None, None]
        return (0.1 * (self.raw_maps(images) - low) / (high - low)).mean(1)


class Input:
    """Images as the networks take them."""

    def __init__(self, image_size: tuple[int, int], mean: list[float], std: list[float]) -> None:
        self.image_size, self.mean, self.std = image_size, mean, std

    def __call__(self, image: np.ndarray) -> Tensor:
        """Resize and normalise uint8 RGB (H, W, 3) to (1, 3, *image_size)."""
        sized = crop_and_resize(image, "none", self.image_size)
        # Channels first in memory: a step takes 1.0 s of CPU time per image, channels last 1.4 s.
        pixels = to_tensor([sized], self.image_size, self.mean, self.std)
        return pixels.contiguous().to(device())


class Detector:
    """The combined map; the image score is its largest value."""

    def __init__(self, params: Params, network: Network, inputs: Input, curve: str) -> None:
        self.params, self.network, self.inputs = params, network.eval(), inputs
        self.curve = curve  # CSV: step, loss

    @torch.inference_mode()
    def score(self, images: Sequence[np.ndarray]) -> Scores:
        """Score RGB images, uint8 (H, W, 3), all of one size."""
        _check_shapes([images[0].shape[:2]], self.params.image_size)
        # one by one: neighbours in a batch change no bit
        found = [self.measure(self.inputs(image)) for image in images]
        image_scores, patch_scores = (
            torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)
        )
        return Scores(image_scores, patch_scores, images[0].shape[:2])

    def measure(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return image scores (N,) and patch scores (N, h, w) of normalised images (N, 3, H, W)."""
        combined = self.network.combined_map(pixels)
        # No whole patch lies at the border; 0 there means as normal as nine in ten patches.
        frame = [pdn.border(self.network.teacher.size)] * 4
        return combined.amax((1, 2)), pad(combined, frame)

    def save(self, folder: Path) -> None:
        """Write the tensors, what is needed to read them, and the curve of the training."""
        tensors = {name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(tensors, folder / TENSORS)
        content = {
            "params": self.params.model_dump(),
            "size": self.network.teacher.size,
            "channels": self.network.teacher.channels,
            "mean": self.inputs.mean,
            "std": self.inputs.std,
        }
        with replace_file(folder / JSON) as partial:  # write_json would round the normalisation
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (folder / LOSSES).write_text(self.curve, encoding="utf-8")


def fit(images: Images, params: Params, resources: Resources) -> Detector:
    """Train student and autoencoder on normal `images`; killed and called again, it goes on.

    Raises InputError for a missing teacher, for fewer than two images or equal ones, for images of
    another shape than image_size and for a crop_size above it.
    """
    if params.crop_size is not None and params.crop_size > min(params.image_size):
        raise InputError(
            f"detectors.efficient_ad.crop_size = {params.crop_size} exceeds image_size = "
            f"{in_short(params.image_size)}; lower it, or take null for whole images"
        )
    _check_shapes(images.sizes, params.image_size)
    if not len(resources.validation):
        raise InputError(
            "efficient_ad brings its maps to one scale on normal validation images and there is "
            "none; raise split.validation"
        )
    weights = resources.weights / params.backbone
    teacher = pdn.load_teacher(weights)
    inputs = Input(params.image_size, *read_normalisation(weights))
    photos = pdn.load_photos(weights)
    spool = resources.checkpoints / "images.npy"
    prepared = _prepare(images, params.image_size, spool)

    with torch_seed(generator(resources.seed, "efficient_ad", "initial weights")):
        network = Network(teacher, params.image_size).to(device())

    order = Shuffled(
        len(prepared), lambda n: generator(resources.seed, "efficient_ad", f"pass {n}")
    )

    def loss(step: int) -> Tensor:
        rng = generator(resources.seed, "efficient_ad", f"step {step}")
        image = np.array(prepared[order[step]])
        photo = pdn.random_view(photos[rng.integers(len(photos))], rng, GRAY_PENALTIES)
        jittered = _jitter(image, rng)
        window = _window(params, rng)
        with torch_seed(rng):
            return network.train().loss(inputs(image), inputs(jittered), inputs(photo), window)

    schedule = Schedule(params.steps, params.learning_rate, params.weight_decay)
    name = fingerprint(
        f"{params.model_dump_json()} {resources.seed}",
        [
            spool,
            *sorted(path for path in weights.rglob("*") if path.is_file()),
            *(Path(str(module)) for module in (__file__, pdn.__file__, training.__file__)),
        ],
    )
    losses = training.train(
        network, loss, schedule, resources.checkpoints / "runs" / name, "fit efficient_ad",
        begin=lambda: _normalise_teacher(network.teacher, prepared, inputs),
    )  # fmt: skip
    network.quantiles.copy_(_quantiles(network.eval(), resources.validation, inputs))
    spool.unlink()
    return Detector(params, network, inputs, training.curve(losses))


def load(folder: Path) -> Detector:
    """Read what `save` wrote."""
    params = load_section(Params, "params", folder / JSON)
    content = json.loads((folder / JSON).read_text(encoding="utf-8"))
    network = Network(Pdn(content["size"], content["channels"]), params.image_size)
    network.load_state_dict(load_tensors(folder))
    inputs = Input(params.image_size, content["mean"], content["std"])
    return Detector(
        params, network.to(device()), inputs, (folder / LOSSES).read_text(encoding="utf-8")
    )


def _check_shapes(sizes: Sequence[tuple[int, int]], image_size: tuple[int, int]) -> None:
    """Raise InputError where images would be stretched: the autoencoder takes one shape alone."""
    for shape in sorted({*sizes}):
        factor = max(image_size) / max(shape)
        kept = [max(2, round(side * factor / HALVED)) * HALVED for side in shape]
        if kept != [*image_size]:
            raise InputError(
                f"detectors.efficient_ad.image_size = {in_short(image_size)} would stretch images "
                f"of {shape[1]} x {shape[0]} pixels; set it to {kept}, and where images differ in "
                "shape, build_dataset.image_size to one size for all"
            )


def _prepare(images: Images, image_size: tuple[int, int], path: Path) -> np.ndarray:
    """Write the images, resized, to a file and map it: random access that holds none in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (len(images), *image_size, 3)
    prepared = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    filled = 0
    for batch in normal_batches(images, "efficient_ad"):
        for image in batch:
            prepared[filled] = crop_and_resize(image, "none", image_size)
            filled += 1
    prepared.flush()
    return np.load(path, mmap_mode="r")


def _jitter(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Change brightness, contrast or saturation, one of them, by up to a fifth."""
    pixels = image.astype(np.float32)
    gray = pixels @ pdn.GRAY
    around = (np.float32(0), gray.mean(), gray[..., None])[rng.integers(3)]
    changed = around + np.float32(rng.uniform(0.8, 1.2)) * (pixels - around)
    return np.rint(np.clip(changed, 0, 255)).astype(np.uint8)


def _window(params: Params, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Return top, left, height and width of what counts in a step, pixels."""
    crop = params.crop_size
    height, width = (crop, crop) if crop else params.image_size
    room = np.subtract(params.image_size, (height, width))
    top, left = 4 * rng.integers(room // 4 + 1)
    return int(top), int(left), height, width


@torch.inference_mode()
def _normalise_teacher(teacher: Pdn, prepared: np.ndarray, inputs: Input) -> None:
    """Bring the teacher's channels to mean 0 and variance 1 over the normal images."""
    bar = tqdm(prepared, "normalise the teacher", unit="image", disable=None)
    outputs = (teacher(inputs(image)) for image in bar)
    teacher.normalise(*channel_statistics(outputs, teacher.channels))


@torch.inference_mode()
def _quantiles(network: Network, validation: Images, inputs: Input) -> Tensor:
    """Return q_a and q_b of both maps over all patches of normal images: (2, 2)."""
    bar = tqdm(validation, "normalise the maps", len(validation), unit="image", disable=None)
    found = [  # (2, h * w) each
        network.raw_maps(inputs(image))[0].flatten(1).cpu().numpy() for image in bar
    ]
    quantiles = np.quantile(np.concatenate(found, axis=1), [Q_A, Q_B], axis=1).T
    if not (quantiles[:, 1] > quantiles[:, 0]).all():
        raise InputError("the maps of all validation images are flat; take images of more variety")
    return torch.from_numpy(quantiles).float()
