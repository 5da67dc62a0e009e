"""Does the defect memory know the types of MVTec AD screw, and how fast is it?

    python benchmarks/defects.py choose     the embedding and the vote, on other images
    python benchmarks/defects.py types      types of screw by true masks and the choice
    python benchmarks/defects.py found      the same by the regions that PatchCore finds
    python benchmarks/defects.py index      recall and ms (of one core) of queries over SIZES

Writes benchmarks/defects.{json,png}; without arguments all four. Needs ../shared/data/mvtec/screw
and ../shared/data/deeppcb.
choose: every setting is asked for the types of real defects of circuit boards (DeepPCB, by their
boxes) and of anomalies drawn on normal screws; the best mean of both accuracies is the choice,
which stands in params.yaml, and no defect of screw is looked at. types, found: each test image is
asked of the others, by which "unknown" is calibrated too. A region found is of an image the highest
above PatchCore's pixel threshold that touches the mask. The linear probe is a logistic regression
in ten folds of images. A type that is left out should be unknown: its defects are asked of a memory
without it.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from clip_thresholds import Frames
from matplotlib import rc_context
from matplotlib.figure import Figure
from measured import record
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blackswan.data import synthesis
from blackswan.data.images import read_image, read_mask
from blackswan.detectors import patchcore
from blackswan.detectors.interface import Resources
from blackswan.errors import InputError, run
from blackswan.evaluation.regions import Region, find_regions
from blackswan.evaluation.thresholds import largest_threshold
from blackswan.memory import vote
from blackswan.memory.defects import Defect
from blackswan.memory.embedder import Embedder, Params
from blackswan.memory.store import URL, Filters, Store
from blackswan.outputs import write_json
from blackswan.params import load_section
from blackswan.reporting.drawing import STYLE, write_png
from blackswan.seeds import generator

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"
SCREW, BOARDS = SHARED / "mvtec/screw", SHARED / "deeppcb"
RESULT, WEIGHTS = ROOT / "benchmarks/defects.json", ROOT / "data/weights"
COPPER = ("open", "short", "mousebite", "spur", "copper", "pin-hole")  # of DeepPCB, 1 to 6
DRAWN: list[synthesis.GeneratorName] = [
    "cut_paste", "gaussian_blur", "poisson_blend", "scratch", "spot",
]  # fmt: skip
BOARDS_SEEN, SCREWS_SEEN = 20, 16  # images of a choice
HELD_OUT = 64  # normal screws whose maps set the pixel threshold
LAYERS = {
    ("efficientnet_lite0", 224): [[2, 4], [4], [6], [4, 6]],
    ("vit_small", 112): [[6], [9], [12]],
}
CONTEXTS, POOLINGS = (0.25, 1.0), ("region", "crop")
NEIGHBORS, TEMPERATURES = (1, 3, 5, 10), (0.02, 0.05, 1.0)
PROBES = (0.001, 0.01, 0.1, 1.0)  # C of the logistic regression
SIZES, QUERIES, NEAREST = (1000, 10_000, 100_000), 20, 10
PARTS = ("choose", "types", "found", "index")
Part = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A region of an image, its type, and the image that it lies in."""

    image: np.ndarray
    region: Region
    type: str
    group: str


def whole(mask: np.ndarray) -> Region:
    """Return all of a mask as one region."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    inside = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Region(int(columns[0]), int(rows[0]), inside, 1.0)


def boards() -> Iterator[Seen]:
    """Yield the labelled defects of some circuit boards."""
    for path in sorted((BOARDS / "boxes").glob("*.txt"))[:BOARDS_SEEN]:
        image = read_image(BOARDS / "anomaly" / f"{path.stem}.jpg")
        for line in path.read_text(encoding="utf-8").splitlines():
            left, top, right, bottom, number = map(int, line.split())
            region = Region(left, top, np.ones((bottom - top, right - left), bool), 1.0)
            yield Seen(image, region, COPPER[number - 1], path.stem)


def drawn() -> Iterator[Seen]:
    """Yield anomalies that the generators draw on normal screws."""
    params = load_section(synthesis.Params, "synthesize_anomalies.patch")
    small = params.model_copy(update={"patches_max": 1, "radius_min": 0.03, "radius_max": 0.08})
    for path in sorted((SCREW / "train/good").glob("*.png"))[:SCREWS_SEEN]:
        image = read_image(path)
        for kind in DRAWN:
            rng = generator(0, "defects", kind, path.stem)
            made = next(filter(None, (synthesis.synthesize(image, kind, small, rng)
                                      for _ in range(50))))  # fmt: skip
            yield Seen(made[0], whole(made[1]), kind, path.stem)


def true_regions() -> Iterator[Seen]:
    """Yield the defects of screw as they were drawn by people."""
    for path in sorted((SCREW / "test").glob("*/*.png")):
        kind = path.parent.name
        if kind != "good":
            image = read_image(path)
            drawn_by_hand = SCREW / f"ground_truth/{kind}/{path.stem}_mask.png"
            mask = read_mask(drawn_by_hand, image.shape[:2])
            yield Seen(image, whole(mask), kind, f"{kind}/{path.stem}")


def found_regions() -> Iterator[Seen]:
    """Yield of each defect of screw the highest region by PatchCore that touches it."""
    paths = sorted((SCREW / "train/good").glob("*.png"))
    order = generator(0, "defects", "held out").permutation(len(paths))
    learnt, held_out = (
        [paths[place] for place in sorted(part)] for part in (order[HELD_OUT:], order[:HELD_OUT])
    )
    params = load_section(patchcore.Params, "detectors.patchcore")
    with tempfile.TemporaryDirectory(dir=ROOT / "data") as folder:
        images = [read_image(path) for path in learnt]
        resources = Resources([], WEIGHTS, Path(folder), 0)
        detector = patchcore.fit(Frames([path.name for path in learnt], images), params, resources)
    peaks = [detector.score([read_image(path)]).anomaly_maps[0].max() for path in held_out]
    threshold = largest_threshold([np.array(peaks)], 0.05)
    for seen in true_regions():
        mask = np.zeros(seen.image.shape[:2], bool)
        box = seen.region
        height, width = box.inside.shape
        mask[box.top : box.top + height, box.left : box.left + width] = box.inside
        anomaly_map = detector.score([seen.image]).anomaly_maps[0]
        for region in find_regions(anomaly_map, threshold, 3):
            high, wide = region.inside.shape
            part = mask[region.top : region.top + high, region.left : region.left + wide]
            if (part & region.inside).any():
                yield replace(seen, region=region)
                break


def embed(defects: Sequence[Seen], params: Params) -> np.ndarray:
    """Return the embeddings (N, D) of regions."""
    embedder = Embedder(params, WEIGHTS / params.backbone)
    return np.array([embedder.embed(seen.image, seen.region) for seen in defects])


def neighbours(embeddings: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of all others by similarity, and the similarities; the own image last."""
    names = np.asarray(groups)
    similarities = embeddings @ embeddings.T
    similarities[names[:, None] == names] = -2
    return np.argsort(-similarities, axis=1, kind="stable"), similarities


def accuracy(embeddings: np.ndarray, defects: Sequence[Seen], params: vote.Params) -> float:
    """Return how often the vote is right while the own image is left out."""
    order, similarities = neighbours(embeddings, [seen.group for seen in defects])
    right = 0
    for number, seen in enumerate(defects):
        nearest = order[number, : params.neighbors]
        types = [defects[place].type for place in nearest]
        right += vote.tally(similarities[number, nearest], types, params)[0] == seen.type
    return right / len(defects)


def probe(embeddings: np.ndarray, types: Sequence[str], strength: float) -> np.ndarray:
    """Return the types by a logistic regression, in ten folds."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    folds = StratifiedKFold(10, shuffle=True, random_state=0)
    return cross_val_predict(model, embeddings, np.asarray(types), cv=folds)


def choose() -> Part:
    """Return the accuracies of all settings on boards and drawn anomalies, and the best."""
    sets = {"boards": list(boards()), "drawn": list(drawn())}
    tried: Part = {}
    best: tuple[float, str] = (-1.0, "")
    kept: dict[str, np.ndarray] = {}
    for (backbone, side), choices in LAYERS.items():
        for context in CONTEXTS:
            for pooling in POOLINGS:
                every = sorted({layer for layers in choices for layer in layers})
                params = Params(backbone=backbone, layers=every, image_size=side, context=context,
                                pooling=pooling)  # fmt: skip
                embedder = Embedder(params, WEIGHTS / backbone)
                ends = np.cumsum([0, *embedder.backbone.channels])
                vectors = {name: embed(defects, params) for name, defects in sets.items()}
                for layers in choices:
                    columns = np.concatenate([
                        np.arange(*ends[every.index(layer) : every.index(layer) + 2])
                        for layer in layers
                    ])  # fmt: skip
                    parts = {name: _unit(found[:, columns]) for name, found in vectors.items()}
                    name = f"{backbone} {layers} at {side}, context {context:g}, {pooling}"
                    grid = {
                        f"{k} at {heat:g}": {
                            part: accuracy(parts[part], defects, vote.Params(
                                neighbors=k, temperature=heat, alpha=0.05))
                            for part, defects in sets.items()
                        }
                        for k in NEIGHBORS
                        for heat in TEMPERATURES
                    }  # fmt: skip
                    means = {key: sum(row.values()) / 2 for key, row in grid.items()}
                    winner = max(means, key=lambda key: means[key])
                    tried[name] = {"neighbors": winner, **grid[winner], "mean": means[winner]}
                    print(name, tried[name], file=sys.stderr, flush=True)
                    if means[winner] > best[0]:
                        best, kept = (means[winner], name), parts
    probes = {
        f"{strength:g}": sum(
            float(np.mean(probe(kept[name], (types := [seen.type for seen in defects]), strength)
                          == np.asarray(types)))
            for name, defects in sets.items()
        ) / 2
        for strength in PROBES
    }  # fmt: skip
    sizes = {name: len(defects) for name, defects in sets.items()}
    return {
        "defects": sizes,
        "settings": tried,
        "best": best[1],
        "neighbors": tried[best[1]]["neighbors"],
        "probe": {"accuracies": probes, "C": float(max(probes, key=lambda key: probes[key]))},
    }


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def types(strength: float) -> Part:
    """Return what the memory makes of the types of screw, by their true masks."""
    listed = list(true_regions())
    kinds = [seen.type for seen in listed]
    counts = {kind: kinds.count(kind) for kind in sorted({*kinds})}
    return {
        "types": counts,
        "chance": {"majority": max(counts.values()) / len(kinds), "uniform": 1 / len(counts)},
        **judged(listed, strength),
    }


def found(strength: float) -> Part:
    """Return the same for the regions that PatchCore finds."""
    listed = list(found_regions())
    images = len(list(true_regions()))
    return {"images": images, "found": len(listed) / images, **judged(listed, strength)}


def _stage_params() -> Part:
    block = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["embed_defects"]
    return {key: block[key] for key in Params.model_fields}


def judged(defects: list[Seen], strength: float) -> Part:
    """Return accuracy, confusion and what is unknown."""
    params, block = Params(**_stage_params()), load_section(vote.Params, "memory")
    vectors = embed(defects, params)
    kinds, groups = [seen.type for seen in defects], [seen.group for seen in defects]
    names = sorted({*kinds})
    forced, known = [], []
    for number in range(len(defects)):
        others = np.flatnonzero(np.asarray(groups) != groups[number])
        forced.append(_ask(vectors, kinds, groups, number, others, block))
        known.append(forced[-1].type)
    likeliest = [each.likeliest for each in forced]
    answered = [number for number, kind in enumerate(known) if kind is not None]
    without = []
    for number in range(len(defects)):
        others = np.flatnonzero(np.asarray(kinds) != kinds[number])
        without.append(_ask(vectors, kinds, groups, number, others, block).type is None)
    linear = probe(vectors, kinds, strength)
    right = np.asarray(likeliest) == np.asarray(kinds)
    return {
        "settings": {**params.model_dump(), **block.model_dump()},
        "defects": len(defects),
        "accuracy": float(right.mean()),
        "linear_probe_accuracy": float(np.mean(linear == np.asarray(kinds))),
        "recall": {kind: float(right[np.asarray(kinds) == kind].mean()) for kind in names},
        "confusion": {
            kind: {
                other: sum(a == kind and b == other for a, b in zip(kinds, likeliest, strict=True))
                for other in names
            }
            for kind in names
        },
        "known": len(answered) / len(defects),
        "accuracy_of_known": float(right[answered].mean()) if answered else None,
        "mean_confidence": float(np.mean([each.confidence for each in forced])),
        "left_out_type_unknown": float(np.mean(without)),
        "left_out_type_unknown_by_type": {
            kind: float(np.mean([u for u, k in zip(without, kinds, strict=True) if k == kind]))
            for kind in names
        },
    }


def _ask(
    vectors: np.ndarray,
    kinds: Sequence[str],
    groups: Sequence[str],
    number: int,
    others: np.ndarray,
    block: vote.Params,
) -> vote.Vote:
    """Ask one defect of a memory of some others, calibrated on them alone."""
    known = [kinds[place] for place in others]
    page = vectors[others], known, [groups[place] for place in others]
    calibration = vote.calibrate(lambda: [page], len(others), block)
    similarities = vectors[others] @ vectors[number]
    order = np.argsort(-similarities, kind="stable")[: block.neighbors]
    return vote.judge(
        similarities[order].tolist(), [known[place] for place in order], block, calibration
    )


def index() -> Iterator[Part]:
    """Yield recall and milliseconds of queries to the embedded engine, after each size."""
    os.environ.pop(URL, None)
    side = sum(Embedder(Params(**_stage_params()), WEIGHTS / _stage_params()["backbone"])
               .backbone.channels)  # fmt: skip
    part: Part = {"dimensions": side}
    for size in SIZES:
        rng = np.random.default_rng(size)
        vectors = _unit(rng.normal(size=(size, side)))
        store = Store(side, "drawn")
        store.prepare("drawn")
        begin = time.process_time()
        for start in range(0, size, 250):
            some = range(start, min(start + 250, size))
            store.put([_defect(number, vectors[number]) for number in some], "drawn")
        filled = time.process_time() - begin
        asked = _unit(rng.normal(size=(QUERIES, side)))
        recalls, taken, filtered = [], [], []
        for query in asked:
            exact = {_defect(int(n), query).id
                     for n in np.argsort(-(vectors @ query), kind="stable")[:NEAREST]}  # fmt: skip
            found, seconds = timed(partial(store.nearest, query, NEAREST, Filters()))
            recalls.append(len(exact & {each.id for each in found}) / NEAREST)
            taken.append(seconds)
            filtered.append(timed(partial(store.nearest, query, NEAREST, Filters(type="1")))[1])
        part[str(size)] = {
            "seconds_to_fill": filled,
            "recall_at_10": float(np.mean(recalls)),
            "milliseconds": 1000 * float(np.median(taken)),
            "milliseconds_filtered": 1000 * float(np.median(filtered)),
        }
        print(size, part[str(size)], file=sys.stderr, flush=True)
        store.close()
        yield part


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` returns, and the seconds of a core that it takes."""
    begin = time.process_time()
    return work(), time.process_time() - begin


def _defect(number: int, vector: np.ndarray) -> Defect:
    return Defect(
        id=f"00000000-0000-5000-8000-{number:012d}", type=str(number % 5), image=f"{number}.png",
        source="", camera="", date="", group=str(number), synthetic=True, left=0, top=0, width=1,
        height=1, score=1.0, crop=b"", embedding=vector,
    )  # fmt: skip


@rc_context(STYLE)
def draw(result: Part) -> None:
    """Draw both confusion matrices."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    titles = {"types": "true masks", "found": "PatchCore's regions"}
    for place, (name, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        confusion = result[name]["confusion"]
        kinds = [*confusion]
        table = np.array([[confusion[kind][other] for other in kinds] for kind in kinds])
        place.imshow(table, cmap="Blues")
        for (row, column), count in np.ndenumerate(table):
            shade = "white" if count > table.max() / 2 else "black"
            place.text(column, row, str(count), ha="center", va="center", color=shade)
        words = [kind.replace("_", " ") for kind in kinds]
        place.set_xticks(range(len(kinds)), words, rotation=30, ha="right")
        place.set_yticks(range(len(kinds)), words)
        place.grid(visible=False)
        place.set_xlabel("by its neighbours")
        place.set_ylabel("true type")
        place.set_title(f"{title}: {result[name]['accuracy']:.2f} right")
    write_png(figure, RESULT.with_suffix(".png"))


def main() -> None:
    """Measure what is named, and keep the rest."""
    wanted = sys.argv[1:] or [*PARTS]
    if {*wanted} - {*PARTS}:
        raise InputError(f"name some of {', '.join(PARTS)}: defects.py types")
    if missing := [path for path in (SCREW, BOARDS) if not path.is_dir()]:
        raise InputError(f"{missing[0]} is missing; put the data set there")
    result = json.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    for name in wanted:
        if name in ("types", "found"):
            strength = result["choose"]["probe"]["C"]
            result[name] = types(strength) if name == "types" else found(strength)
            write_json(RESULT, result)
        else:
            for part in [choose()] if name == "choose" else index():
                result[name] = part
                write_json(RESULT, result)
        print(name, result[name], flush=True)
    if {"types", "found"} <= {*result}:
        draw(result)
    if {*wanted} == {*PARTS}:
        record([RESULT.name])


if __name__ == "__main__":
    run(main)
