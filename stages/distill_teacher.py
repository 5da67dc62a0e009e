"""Natural images, data/weights -> data/weights/<teacher>: a teacher for EfficientAD.

A patch description network learns to say of 33 x 33 pixels what a backbone trained on ImageNet says
of them in context. It learns on the folder that `images` of its block names, the larger and the
more varied the better; where that is data/dataset/train, on its normal images and on the few photos
that pinned wheels ship, half and half. Killed at any point, it goes on from the last complete
checkpoint. `dvc repro distill_teacher@pdn_small`
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from blackswan.data.dataset import Split
from blackswan.data.files import list_images
from blackswan.data.images import decode_image, read_image
from blackswan.errors import InputError, run
from blackswan.networks import (
    backbones,
    convolutions,
    distillation,
    efficientnet,
    pdn,
    resnet,
    training,
)
from blackswan.networks.backbones import Backbone, load_backbone, to_tensor
from blackswan.networks.checkpoints import fingerprint, remove
from blackswan.networks.distillation import Read, Scale, Views, describe, measure
from blackswan.networks.pdn import Pdn, Size
from blackswan.networks.photos import sample_photos
from blackswan.networks.training import Schedule, torch_seed
from blackswan.outputs import replace_folder
from blackswan.params import Section, block_name, load_section
from blackswan.seeds import generator
from blackswan.tracking.runs import Record, Tracker

WEIGHTS = Path("data/weights")
CHECKPOINTS = Path("data/checkpoints")

NORMALISATION_VIEWS = 1000  # at most; 10000 in the paper, which has all of ImageNet


class Params(Section):
    """What the teacher learns, from what, and how long."""

    seed: int = Field(ge=0)
    images: Path  # data/dataset/train, or a folder of images such as ImageNet
    photos: int = Field(ge=1)  # of such a folder, kept beside the teacher for its students
    backbone: str  # a name of fetch_weights
    layers: list[int]  # of the backbone; the teacher has as many channels as they have together
    size: Size  # S or M
    image_size: int = Field(ge=64, multiple_of=32)  # pixels of a view; the backbone sees twice that
    batch_size: int = Field(ge=1)
    steps: int = Field(ge=1)  # 60000 in the paper, with batches of 16
    learning_rate: float = Field(gt=0)  # a tenth of it after 95 % of the steps
    weight_decay: float = Field(ge=0)


def sources(params: Params) -> tuple[list[list[Read]], dict[str, np.ndarray], str]:
    """Return pools of images to learn from in turn, the photos to keep, and where they are from."""
    if any(params.images.glob("*.parquet")):
        if params.images.name != "train":
            raise InputError(
                f"images: {params.images} is no split to learn from; name data/dataset/train"
            )
        split = Split(params.images.parent, "train")
        facts = split.facts
        normal = np.flatnonzero((facts.label == 0) & ~facts.augmented)
        if not len(normal):
            raise InputError(f"{params.images} has no normal train image; raise split.train")
        photos = sample_photos()
        pools: list[list[Read]] = [
            [partial(_normal_image, split, int(index)) for index in normal],
            [partial(photos.__getitem__, name) for name in photos],
        ]
        origin = f"{len(normal)} normal train images and {len(photos)} photos of pinned wheels"
        return pools, photos, origin
    paths = list_images(params.images)
    if not paths:
        raise InputError(
            f"images: {params.images} holds no image; name a folder of images or data/dataset/train"
        )
    rng = generator(params.seed, "distill_teacher", "photos")
    chosen = sorted(rng.choice(len(paths), min(params.photos, len(paths)), replace=False))
    photos = {f"{number:06d}": read_image(paths[number]) for number in chosen}
    return [[partial(read_image, path) for path in paths]], photos, f"{len(paths)} images"


def distill(
    params: Params, backbone: Backbone, pools: list[list[Read]], folder: Path
) -> tuple[Pdn, np.ndarray]:
    """Train the teacher; return it with the loss of each step, the mean squared difference."""
    with torch_seed(generator(params.seed, "distill_teacher", "initial weights")):
        teacher = Pdn(params.size, sum(backbone.channels)).to(backbone.device)
    scale = Scale(teacher.channels).to(
        backbone.device
    )  # in the checkpoints: a resumed run does not measure it again
    views = Views(pools, params.seed, "training")

    def begin() -> None:
        count = min(NORMALISATION_VIEWS, params.steps * params.batch_size)
        measured = Views(pools, params.seed, "normalisation")
        scale.mean, scale.std = measure(backbone, measured, count, params.size)

    def loss(step: int) -> Tensor:
        numbers = range(step * params.batch_size, (step + 1) * params.batch_size)
        batch = [views[number] for number in numbers]
        target = scale(describe(backbone, batch, params.size))
        small = to_tensor(batch, (params.image_size,) * 2, backbone.mean, backbone.std)
        # Channels first in memory: the backward pass takes two thirds of the time of channels last.
        return (teacher(small.contiguous().to(backbone.device)) - target).square().mean()

    schedule = Schedule(params.steps, params.learning_rate, params.weight_decay)
    network = torch.nn.ModuleDict({"teacher": teacher, "scale": scale})
    losses = training.train(network, loss, schedule, folder, "distill_teacher", begin)
    return teacher, losses


def name_of_run(params: Params) -> str:
    """Name the run by all that a checkpoint depends on; images of a folder by name and size."""
    shards = sorted(params.images.glob("*.parquet"))
    listing = [] if shards else [(str(p), p.stat().st_size) for p in list_images(params.images)]
    weights = sorted((WEIGHTS / params.backbone).iterdir())
    modules = (backbones, convolutions, efficientnet, resnet, distillation, pdn, training)
    code = [Path(__file__), *(Path(str(module.__file__)) for module in modules)]
    return fingerprint(f"{params.model_dump_json()} {listing}", [*shards, *weights, *code])


def _normal_image(split: Split, index: int) -> np.ndarray:
    return decode_image(split[index].image)


def main() -> None:
    """Distil one teacher, then write it with the photos that its students will need."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teacher", help="a key of the block `distill_teacher` of params.yaml")
    name = block_name("distill_teacher", parser.parse_args().teacher)
    params = load_section(Params, f"distill_teacher.{name}")
    tracker = Tracker(f"distill_teacher {name}")
    backbone = load_backbone(WEIGHTS / params.backbone, params.layers, 2 * params.image_size)
    pools, photos, origin = sources(params)
    teacher, losses = distill(params, backbone, pools, CHECKPOINTS / name / name_of_run(params))
    with replace_folder(WEIGHTS / name) as folder:
        note = {"backbone": params.backbone, "layers": params.layers, "images": origin}
        pdn.save_teacher(folder, teacher, backbone.mean, backbone.std, note)
        pdn.save_photos(folder, photos)
        (folder / "losses.csv").write_text(training.curve(losses), encoding="utf-8")
    remove(CHECKPOINTS / name)
    tracker.record(
        Record(
            params={f"distill_teacher.{name}": params},
            reads=[WEIGHTS / params.backbone, params.images],
            writes=[WEIGHTS / name],
            curves=WEIGHTS / name / "losses.csv",
        )
    )
    last = losses[-max(1, len(losses) // 20) :].mean()
    print(f"{WEIGHTS / name}: loss {last:.4f} after {params.steps} steps on {origin}")


if __name__ == "__main__":
    run(main)
