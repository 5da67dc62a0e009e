"""How many of the later normal frames of a clip does a threshold flag, by how it was calibrated?

    python benchmarks/clip_thresholds.py      writes benchmarks/clip_thresholds.{json,png}

Real clips, each cut along its time as the pipeline does: what comes last tests. All methods but
`split` fit the detector on train and validation; `blocks` and `forward` are the halves of
`block_and_forward`, `one gap` is it with one guard gap around a block in place of GUARDS, `largest`
the largest score that calibrates, which no alpha exceeds. Recall is the mean of patches of salt and
pepper and of Perlin noise pasted into the test frames. A threshold is null where the scores are too
few for alpha, as in a run. Frames of a clip resemble one another: read rates with its length.

How a clip is cut was settled before its test frames were scored, by its length T alone: of more
than MOST frames each k-th is taken; guard and blocks are .02 T and .04 T, what params.yaml has for
the 5 seconds of the sample clip, which keeps its settings; train and validation are those of
params.yaml, or SHORT where these leave validation fewer than the 19 frames that an alpha of .05
takes. Two clips end with a hand that reaches into the picture. What came of it made us look, and as
the hand is no normal frame they are cut off before it; the one of them that the sums are about is
also there whole. The clips besides the sample lie in ../shared/data, the backbones in data/weights.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from measured import record

from blackswan.data import splits, synthesis
from blackswan.data.records import Frame
from blackswan.data.sources import opening
from blackswan.detectors.interface import Resources, load_module
from blackswan.detectors.patches import open_backbone
from blackswan.errors import InputError, run
from blackswan.evaluation import calibration
from blackswan.evaluation.calibration import Scorer
from blackswan.evaluation.thresholds import largest_threshold, too_few_for
from blackswan.networks.remembered import RememberedBackbone
from blackswan.outputs import write_json
from blackswan.params import load_section
from blackswan.seeds import generator

mpl.use("Agg")
from matplotlib import pyplot as plt

RESULT = Path("benchmarks/clip_thresholds.json")
PICTURE = RESULT.with_suffix(".png")
WEIGHTS = Path("data/weights")
SHARED = Path("../shared/data")
SAMPLE = Path("data/sample.mp4")
CLIPS = {  # path, and where it is cut off, seconds
    "blackswan.mp4": (SHARED / "video/blackswan.mp4", None),
    "flipping_a_pancake.mkv": (SHARED / "video/flipping_a_pancake.mkv", None),
    "flipping_a_pancake.mkv, before the hand": (SHARED / "video/flipping_a_pancake.mkv", 8.7),
    "static10s.mp4": (SHARED / "cases/video/static10s.mp4", None),
    "sample.mp4": (SAMPLE, None),
    "static_cctv.mp4": (SHARED / "cases/video/static_cctv.mp4", None),
    "screen.mp4": (SHARED / "cases/video/screen.mp4", None),
    "interlaced_h264.mp4": (SHARED / "cases/video/interlaced_h264.mp4", None),
    "no_duration.webm": (SHARED / "video/no_duration.webm", None),
    "tree, before the hand": (SHARED / "video/tree_declares_444_has_68.avi", 23.0),
}
WHOLE, SHORTER = "flipping_a_pancake.mkv", "flipping_a_pancake.mkv, before the hand"
FOUR = ["blackswan.mp4", WHOLE, "static10s.mp4", "sample.mp4"]
SUMS = {
    "four clips": FOUR,
    "four clips, before the hand": [SHORTER if name == WHOLE else name for name in FOUR],
    "all clips, before the hand": [name for name in CLIPS if name != WHOLE],
}
DETECTORS = {"patchcore": list(CLIPS), "padim": [*FOUR, SHORTER], "dino_memory": [*FOUR, SHORTER]}
METHODS = ["split", "cross", "blocks", "forward", "one gap", "block_and_forward", "largest"]
ALPHAS = [0.05, 0.1]
ANOMALIES = ["salt_and_pepper", "perlin_texture"]
MOST = 160  # frames of a clip
SHORT = {"train": 0.45, "validation": 0.3}
SEED = 0


@dataclass(frozen=True)
class Frames:
    """Images in memory, as detectors iterate them."""

    paths: list[str]
    images: list[np.ndarray]

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Heights and widths, in their order."""
        return [image.shape[:2] for image in self.images]

    def take(self, positions: np.ndarray) -> "Frames":
        """Return some of them, by position."""
        return Frames([self.paths[i] for i in positions], [self.images[i] for i in positions])

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.images)


@dataclass(frozen=True)
class Clip:
    """A clip that is cut: facts has path, source, group, timestamp_s and split of its frames."""

    settings: splits.Params
    frames: Frames
    facts: pd.DataFrame

    def of(self, *names: str) -> np.ndarray:
        """Return the positions of the frames of some splits."""
        return np.flatnonzero(self.facts.split.isin(names))

    def anomalies(self, kind: str) -> Frames:
        """Paste patches into the test frames, those that synthesize_anomalies would."""
        patch = load_section(synthesis.Params, "synthesize_anomalies.patch")
        test, made = self.frames.take(self.of("test")), Frames([], [])
        for path, image in zip(test.paths, test, strict=True):
            name = f"{kind}/{path}-0"
            if pasted := synthesis.synthesize(image, kind, patch, generator(SEED, name)):
                made.paths.append(name)
                made.images.append(pasted[0])
        return made


@dataclass(frozen=True)
class Scored:
    """Scores of one detector on one clip."""

    sets: dict[str, list[np.ndarray]]  # calibration scores by method
    test: dict[str, dict[str, np.ndarray]]  # by fit, "split" or "all", and by normal or anomaly


def read_clip(path: Path, end_s: float | None) -> Clip:
    """Decode a clip up to `end_s`, sample, crop and cut it."""
    params = load_section(opening.Params, "extract_frames")
    sampling = params.video.model_copy(update={"end_s": end_s})
    source = opening.open_source(path, params.model_copy(update={"video": sampling}))
    found = [(item.frame, source.preprocessing(item.read()[0])) for item in source.images]
    found = found[:: math.ceil(len(found) / MOST)]
    frames, images = [frame for frame, _ in found], {frame.image: image for frame, image in found}
    settings = cut_of(path, frames)
    cut = splits.assign_splits(frames, settings)
    rows = [(f.image, f.source, f.group, f.timestamp_s, f.split) for f in cut]
    facts = pd.DataFrame(rows, columns=["path", "source", "group", "timestamp_s", "split"])
    kept = Frames(facts.path.tolist(), [images[name] for name in facts.path])
    return Clip(settings, kept, facts)


def cut_of(path: Path, frames: list[Frame]) -> splits.Params:
    """Return how a clip is cut, by the rule above."""
    settings = load_section(splits.Params, "split")
    if path != SAMPLE:
        length = max(f.timestamp_s for f in frames) - min(f.timestamp_s for f in frames)
        seconds = {"guard_seconds": 0.02 * length, "block_seconds": 0.04 * length}
        settings = settings.model_copy(update={key: round(s, 4) for key, s in seconds.items()})
    cut = splits.assign_splits(frames, settings)
    if too_few_for(min(ALPHAS), {"": sum(frame.split == "validation" for frame in cut)}):
        settings = settings.model_copy(update=SHORT)
    return settings


def score(name: str, clip: Clip, folder: Path) -> Scored:
    """Fit a detector in every way, and score calibration and test images."""
    module = load_module(name)
    params = load_section(module.Params, f"detectors.{name}")
    asked = {"normal": clip.frames.take(clip.of("test"))}
    asked |= {kind: clip.anomalies(kind) for kind in ANOMALIES}
    every = [*clip.frames, *(image for images in asked.values() for image in images)]
    opened = open_backbone(WEIGHTS / params.backbone, params)
    known = RememberedBackbone(opened, every, len(every), folder)
    held_out = clip.frames.take(clip.of("validation"))
    resources = Resources(held_out, WEIGHTS, folder, SEED, known)

    def fit(images: Frames, positions: np.ndarray) -> Callable[[Frames], Scorer]:
        detector = module.fit(images.take(positions), params, resources)
        return partial(calibration.scorer, detector)

    def score_all(fitted: Callable[[Frames], Scorer]) -> dict[str, np.ndarray]:
        return {key: fitted(images)(np.arange(len(images)))[0] for key, images in asked.items()}

    normal = clip.of("train", "validation")
    images, facts = clip.frames.take(normal), clip.facts.iloc[normal].reset_index(drop=True)

    def calibrate(method: calibration.Method, guard: float) -> list[np.ndarray]:
        folds = calibration.plan(facts, method, guard, SEED)
        found = calibration.calibrate(facts, folds, lambda learnt: fit(images, learnt)(images))
        return calibration.sets_of(found, "image_score")

    guard = clip.settings.guard_seconds
    first = fit(clip.frames, clip.of("train"))
    both = calibrate("block_and_forward", guard)
    sets = {
        "split": [first(clip.frames)(clip.of("validation"))[0]],
        "cross": calibrate("cross", guard),
        "blocks": both[:1],
        "forward": both[1:],
        "one gap": calibrate("block_and_forward", guard / calibration.GUARDS),
        "block_and_forward": both,
        "largest": [np.concatenate(both)],
    }
    everything = fit(images, np.arange(len(images)))
    return Scored(sets, {"split": score_all(first), "all": score_all(everything)})


def row_of(scored: Scored, method: str, alpha: float) -> dict[str, Any]:
    """Return threshold, flags among normal test frames and recall of one method."""
    sets = scored.sets[method]
    test = scored.test["split" if method == "split" else "all"]
    row: dict[str, Any] = {"calibration_scores": [len(part) for part in sets]}
    if too_few_for(alpha, {"": len(sets[0]) if sets else 0}):
        return row | {"threshold": None, "flags": None, "recall": None}
    largest = method == "largest"
    threshold = float(sets[0].max()) if largest else largest_threshold(sets, alpha)
    recall = {kind: float((test[kind] > threshold).mean()) for kind in ANOMALIES}
    flags = int((test["normal"] > threshold).sum())
    return row | {"threshold": threshold, "flags": flags, "recall": recall}


def overall(rows: dict[str, dict[str, Any]], frames: dict[str, int]) -> dict[str, Any]:
    """Add up the clips that have a threshold; recall is the mean over test frames and kinds."""
    known = [name for name, row in rows.items() if row["threshold"] is not None]
    count = sum(frames[name] for name in known)
    if not count:
        return {"clips": 0, "frames": 0, "flags": None, "rate": None, "recall": None}
    flags = sum(rows[name]["flags"] for name in known)
    found = sum(frames[name] * np.mean([*rows[name]["recall"].values()]) for name in known)
    sums = {"clips": len(known), "frames": count, "flags": flags}
    return sums | {"rate": flags / count, "recall": float(found / count)}


def table_of(scored: dict[str, Scored], method: str, alpha: float) -> dict[str, Any]:
    """Return the rows of one method by clip, and their sums."""
    rows = {name: row_of(each, method, alpha) for name, each in scored.items()}
    frames = {name: len(each.test["all"]["normal"]) for name, each in scored.items()}
    sums = {
        name: overall({clip: rows[clip] for clip in clips}, frames)
        for name, clips in SUMS.items()
        if rows.keys() >= {*clips}
    }
    return {"clips": rows, "overall": sums}


def described(name: str, clip: Clip) -> dict[str, Any]:
    """Return how a clip was cut."""
    cut = clip.settings.model_dump(
        include={"train", "validation", "block_seconds", "guard_seconds"}
    )
    counts = clip.facts.split.value_counts()
    return cut | {
        "end_s": CLIPS[name][1],
        "frames": {split: int(counts[split]) for split in splits.SPLITS},
    }


def draw(tables: dict[str, dict[str, Any]], frames: dict[str, int]) -> None:
    """Draw the share of flags and the recall of each clip, a colour a method, a line an alpha."""
    names = list(CLIPS)
    figure, panels = plt.subplots(
        len(ALPHAS), 2, figsize=(13, 7), sharex=True, sharey=True, layout="constrained"
    )
    for line, alpha in zip(panels, ALPHAS, strict=True):
        for number, method in enumerate(METHODS):
            rows = tables[str(alpha)][method]["clips"]
            places = np.arange(len(names)) + (number - len(METHODS) / 2 + 0.5) * 0.11
            for axes, value in zip(line, (share_of_flags, mean_recall), strict=True):
                heights = [value(rows[name], frames[name]) for name in names]
                axes.plot(places, heights, "osDv^*x"[number], label=method, clip_on=False)
        line[0].axhline(alpha, color="black", linewidth=1, linestyle="dashed")
        line[0].set_title(f"PatchCore, alpha {alpha:g}: false alarms among later normal frames")
        line[1].set_title(f"PatchCore, alpha {alpha:g}: recall on pasted patches")
    for axes in panels.flat:
        axes.grid(axis="y", color="#e7eaee")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_ylim(-0.02, 1.02)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7)
    figure.savefig(PICTURE, dpi=80, metadata={"Software": None})


def share_of_flags(row: dict[str, Any], frames: int) -> float:
    """Return the share of the test frames that are flagged, NaN without a threshold."""
    return math.nan if row["flags"] is None else row["flags"] / frames


def mean_recall(row: dict[str, Any], frames: int) -> float:
    """Return the mean over the kinds of anomalies, NaN without a threshold."""
    return math.nan if row["recall"] is None else float(np.mean([*row["recall"].values()]))


def show(detector: str, tables: dict[str, dict[str, Any]]) -> None:
    """Print the sums."""
    for alpha, methods in tables.items():
        for method, table in methods.items():
            sums = [
                f"{name} {each['flags']}/{each['frames']}"
                + (f" = {each['rate']:.3f}, recall {each['recall']:.2f}" if each["clips"] else "")
                for name, each in table["overall"].items()
            ]
            print(f"{detector} {alpha} {method:17}", *sums, sep="  ")


def main() -> None:
    """Score all clips by all detectors, write and draw what came out."""
    if missing := [str(path) for path, _ in CLIPS.values() if not path.exists()]:
        raise InputError(f"{missing[0]} is missing; run `make repro` and fetch ../shared/data")
    clips = {name: read_clip(*where) for name, where in CLIPS.items()}
    frames = {name: len(clip.of("test")) for name, clip in clips.items()}
    tables: dict[str, Any] = {}
    for detector, names in DETECTORS.items():
        scored = {}
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                scored[name] = score(detector, clips[name], Path(folder))
        tables[detector] = {
            str(alpha): {method: table_of(scored, method, alpha) for method in METHODS}
            for alpha in ALPHAS
        }
        show(detector, tables[detector])
    facts = {name: described(name, clip) for name, clip in clips.items()}
    write_json(RESULT, {"clips": facts, "detectors": tables})
    draw(tables["patchcore"], frames)
    record([RESULT.name])


if __name__ == "__main__":
    run(main)
