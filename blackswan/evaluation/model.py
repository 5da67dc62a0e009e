"""A detector that is ready for use: fitted, with threshold, p-values, colours and preprocessing.

Its folder is complete and may be copied anywhere; nothing of params.yaml or data/ is needed.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from blackswan.data.batches import of_one_size
from blackswan.data.preprocessing import Preprocessing
from blackswan.data.regions import Ignored
from blackswan.detectors.interface import Detector, load_module
from blackswan.errors import InputError, cause
from blackswan.evaluation.ignoring import Mask, check, check_size, leave_out
from blackswan.evaluation.thresholds import largest_p_values
from blackswan.outputs import replace_file
from blackswan.params import Section, load_section

FACTS = "model.json"
NORMALS = "normal_scores.parquet"  # set and image_score of normal images, which p-values count
FITTED = "fitted"  # what the detector itself saved
IGNORED = "ignored.json"  # regions that did not count when its threshold was set, if any
MASKS = 64  # of cameras and sizes of photos, remembered


class Scale(Section):
    """The fixed colours of the heatmaps; see reporting/heatmaps.py."""

    threshold: float
    top: float


class Facts(Section):
    """What a threshold and a verdict rest on; the numbers are exact, not rounded."""

    detector: Annotated[str, Field(pattern=r"^\w+$")]  # a module of blackswan/detectors
    alpha: float
    threshold: float  # of image scores; above it an image is flagged
    threshold_from: str
    heatmap: Scale
    preprocessing: Preprocessing
    data_sha256: str  # of the normal images it learnt from


@dataclass(frozen=True)
class Verdicts:
    """What a model says of N images; higher scores are more anomalous."""

    image_scores: np.ndarray  # (N,) float32
    p_values: np.ndarray  # (N,) share of normal images that score as high, at least 1 / (n + 1)
    flagged: np.ndarray  # (N,) bool: the score is above the threshold
    anomaly_maps: list[np.ndarray]  # (H, W) float32 each, of the size of the prepared image
    threshold: float
    probabilities: bool  # the image scores are probabilities
    logits: np.ndarray | None = None  # (N, 2) of normal and anomalous, which these are of


class Seen(NamedTuple):
    """What a detector sees of a photo."""

    image: np.ndarray  # uint8 (H, W, 3)
    ignored: Mask  # what of it does not count, bool (H, W)
    pose: np.ndarray | None  # how the photo was laid


class Model:
    """A detector with all that its verdicts need."""

    def __init__(
        self,
        detector: Detector,
        facts: Facts,
        normal_scores: list[np.ndarray],
        ignored: Ignored | None = None,
    ) -> None:
        """`ignored` are the regions that did not count when the threshold was set."""
        self.detector, self.facts = detector, facts
        self.normal_scores = normal_scores  # one set or two, see thresholds.py
        self.ignored = ignored
        self._photos = facts.preprocessing  # what prepared them, whoever did
        self._masks: dict[tuple[Any, ...], Mask] = {}

    def prepare(self, image: np.ndarray) -> np.ndarray:
        """Crop and scale an RGB image, uint8 (H, W, 3), as those it learnt from."""
        return self.facts.preprocessing(image)

    def see(self, photo: np.ndarray, also: Ignored | None = None, name: str = "the image") -> Seen:
        """Crop and scale a photo; its own regions do not count of it, nor those of `also`."""
        preprocessing = self.facts.preprocessing
        pose = preprocessing.find_pose(photo)
        image = preprocessing.apply(photo, pose, name=name)
        if preprocessing is not self._photos:
            mask = self._mask(image.shape[:2], also)  # it was prepared before
        else:
            mask = self._mask(image.shape[:2], also, photo.shape[:2], pose)
        return Seen(image, mask, pose)

    def regions(self, also: Ignored | None = None) -> list[Ignored]:
        """Return the regions that do not count: its own, and those of `also`."""
        return [each for each in (self.ignored, also) if each and each.regions.ignore]

    def check_regions(self, also: Ignored) -> None:
        """Raise InputError where it cannot leave regions out, before anybody waits for it."""
        regions = also.regions
        if not regions.ignore:
            return
        blank = np.zeros((regions.height, regions.width, 3), np.uint8)
        check(self.detector, self._photos.apply(blank, None).shape[:2])

    def _mask(
        self,
        size: tuple[int, int],
        also: Ignored | None,
        photo: tuple[int, int] | None = None,
        pose: np.ndarray | None = None,
    ) -> Mask:
        """Return what does not count of what it sees of a photo, None where all does."""
        found = self.regions(also)
        if not found:
            return None
        cameras = [(each.sha256, each.camera) for each in found]
        key = size, photo, pose if pose is None else pose.tobytes(), *cameras
        if key not in self._masks:
            seen = [each.seen(self._photos, photo, pose) for each in found]
            for mask, each in zip(seen, found, strict=True):
                check_size(mask, size, each)
            if len(self._masks) > MASKS:
                self._masks = {}
            self._masks[key] = np.logical_or.reduce(seen)
        return self._masks[key]

    def for_prepared(self, done: Preprocessing) -> "Model":
        """Return this model for images that are prepared; InputError where that was otherwise."""
        if done != self.facts.preprocessing:
            raise InputError(
                "the images of this data set were cropped or scaled in another way than those that "
                "the model learnt from; name the source itself"
            )
        facts = self.facts.model_copy(update={"preprocessing": Preprocessing(steps=[])})
        model = Model(self.detector, facts, self.normal_scores, self.ignored)
        model._photos = self._photos
        return model

    def score(self, images: Sequence[np.ndarray]) -> Verdicts:
        """Judge RGB images, uint8 (H, W, 3), as they come out of a file."""
        return self.score_seen([self.see(image) for image in images])

    def score_prepared(self, images: Sequence[np.ndarray]) -> Verdicts:
        """Judge images that `prepare` returned, of photos as large as its regions say."""
        return self.score_seen(
            [Seen(image, self._mask(image.shape[:2], None), None) for image in images]
        )

    def score_seen(self, seen: Sequence[Seen]) -> Verdicts:
        """Judge what `see` returned."""
        found = []
        for batch in of_one_size(seen, len(seen), lambda one: one.image):
            scores = self.detector.score([one.image for one in batch])
            found.append(leave_out(self.detector, scores, [one.ignored for one in batch]))
        image_scores = np.concatenate([part.image_scores for part in found])
        logits = [part.logits for part in found if part.logits is not None]
        return Verdicts(
            image_scores,
            largest_p_values(image_scores, self.normal_scores, self.facts.alpha),
            image_scores > self.facts.threshold,
            [anomaly_map for part in found for anomaly_map in part.anomaly_maps],
            self.facts.threshold,
            found[0].probabilities,
            np.concatenate(logits) if logits else None,
        )


def save(
    folder: Path,
    fitted: Path,
    facts: Facts,
    normal_scores: list[np.ndarray],
    ignored: Ignored | None = None,
) -> None:
    """Write a complete model into an existing folder, given the folder of the fitted detector."""
    import pandas as pd  # an exported model is used without it

    shutil.copytree(fitted, folder / FITTED, copy_function=shutil.copyfile)
    number = np.repeat(np.arange(len(normal_scores)), [len(part) for part in normal_scores])
    table = pd.DataFrame({"set": number, "image_score": np.concatenate(normal_scores)})
    table.to_parquet(folder / NORMALS, index=False)
    with replace_file(folder / FACTS) as partial:  # write_json would round
        partial.write_text(json.dumps(facts.model_dump(), indent=2) + "\n", encoding="utf-8")
    if ignored:
        with replace_file(folder / IGNORED) as partial:
            partial.write_text(ignored.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Model:
    """Read what `save` wrote; raises InputError where `folder` is no complete model."""
    import pandas as pd
    from pyarrow import ArrowInvalid

    missing = [name for name in (FACTS, NORMALS, FITTED) if not (folder / name).exists()]
    if missing:
        raise InputError(
            f"{folder} is no complete model, it has no {missing[0]}; name a folder such as "
            "data/detectors/patchcore, which `dvc repro` or `dvc pull` writes"
        )
    facts = load_section(Facts, "", folder / FACTS)
    try:
        table = pd.read_parquet(folder / NORMALS)
        normal_scores = [part.to_numpy() for _, part in table.groupby("set").image_score]
    except (ArrowInvalid, AttributeError, KeyError) as error:
        raise InputError(
            f"{folder / NORMALS} cannot be read ({cause(error)}); copy the model again"
        ) from None
    path = folder / IGNORED
    ignored = load_section(Ignored, "", path) if path.exists() else None
    return Model(load_module(facts.detector).load(folder / FITTED), facts, normal_scores, ignored)


def fingerprint(paths: Iterable[Path]) -> str:
    """Return the sha256 of the contents of files, in their order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
