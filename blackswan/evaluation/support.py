"""What the normal images of a source can support, found before anything is trained.

A fit and an evaluation refuse what they cannot do, each after minutes of others. Here the same
rules, blackswan.data.shortages, are asked of all of them at once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field, RootModel

from blackswan.data.records import Frame
from blackswan.data.regions import Camera
from blackswan.data.shortages import Shortage
from blackswan.detectors.interface import check_fits, load_module
from blackswan.errors import InputError, shown
from blackswan.evaluation import calibration
from blackswan.evaluation.ignoring import unmapped
from blackswan.evaluation.ranking import BASELINE
from blackswan.evaluation.thresholds import too_few_for
from blackswan.params import PARAMS, load_section


class Alpha(RootModel[Annotated[float, Field(gt=0, lt=1)]]):
    """The param evaluate.alpha."""


class Seed(RootModel[Annotated[int, Field(ge=0)]]):
    """The param fit_detector.seed."""


class Blocks(RootModel[dict[str, Any]]):
    """The block `detectors` or compare.references, of which the names count here."""


@dataclass(frozen=True)
class Fit:
    """A detector of the run, and what it asks of the number of images."""

    name: str
    refits: bool  # it learns from train and validation, and is fitted again to calibrate
    shortage: Callable[[int], Shortage | None]  # of a fit on so many normal images
    unmapped: bool = False  # its image scores are of more than its maps


def fits_of(detectors: Iterable[str], references: Iterable[str], path: Path = PARAMS) -> list[Fit]:
    """Return what a run fits: entries of `detectors` and of compare.references, by name.

    Raises InputError for a name that is no detector and for a knob of its block out of range.
    """
    fits = []
    for name in detectors:
        module = load_module(name)
        check_fits(name, module)
        params = load_section(module.Params, f"detectors.{name}", path)
        rule = getattr(module, "shortage", _no_rule)
        refits = getattr(module, "FITS_IN_SECONDS", False)
        fits.append(Fit(name, refits, partial(rule, params=params), unmapped(name, params)))
    # Stages of their own fit these, on any number; to import the ViT would take seconds.
    return fits + [
        Fit(name, name == BASELINE, _no_rule, unmapped(name, None)) for name in references
    ]


def unsupported(
    normals: pd.DataFrame,
    fits: Sequence[Fit],
    *,
    alpha: float,
    choice: str,
    guard_seconds: float,
    seed: int,
) -> list[Shortage]:
    """Return all that the settings ask of more normal images than there are; [] where they suffice.

    `normals` are the normal images of train and validation, rows of split, group and timestamp_s;
    `alpha`, `choice` (evaluate.calibration), `guard_seconds` (split) and `seed` (fit_detector) are
    params. Together, the settings of the shortages work with these images; one without a setting
    says that only more of them help.
    """
    train, validation = (int((normals.split == name).sum()) for name in ("train", "validation"))
    smallest: int | None = None
    found: list[Shortage | None] = []
    if any(fit.refits for fit in fits):
        try:
            smallest = _smallest_fold(normals, choice, guard_seconds, seed)
        except InputError as error:
            found.append(Shortage(str(error), "evaluate.calibration=split"))
    counts: dict[tuple[str, int], list[str]] = {}
    for fit in fits:
        if fit.refits and smallest is not None:
            calibrating, learnt = ("normal images", len(normals)), smallest
        else:
            calibrating, learnt = ("normal validation images", validation), train
        counts.setdefault(calibrating, []).append(fit.name)
        found.append(fit.shortage(learnt))
    named = {
        f"{what} that calibrate {', '.join(names)}": count
        for (what, count), names in counts.items()
    }
    return [shortage for shortage in [*found, too_few_for(alpha, named)] if shortage]


def check(records: Iterable[Frame], guard_seconds: float, path: Path = PARAMS) -> None:
    """Raise one InputError with all that the params of a file ask of more normal images.

    `records` are those of a source, with their splits; `guard_seconds` is of `split`.
    """
    fits = fits_of(
        load_section(Blocks, "detectors", path).root,
        load_section(Blocks, "compare.references", path).root,
        path,
    )
    camera = load_section(Camera, "ignore.camera", path).root
    if camera and (names := [fit.name for fit in fits if fit.unmapped]):
        raise InputError(
            f"ignore.camera = {shown(camera)} leaves regions out, and {', '.join(names)} scores an "
            "image by more than its anomaly map; take the vit out of compare.references, give "
            "patchcore a top_fraction, or set ignore.camera: ''"
        )
    rows = [
        (record.split, record.group, record.timestamp_s)
        for record in records
        if record.label == "normal" and record.split != "test"
    ]
    found = unsupported(
        pd.DataFrame(rows, columns=["split", "group", "timestamp_s"]),
        fits,
        alpha=load_section(Alpha, "evaluate.alpha", path).root,
        choice=load_section(calibration.Choice, "evaluate.calibration", path).root,
        guard_seconds=guard_seconds,
        seed=load_section(Seed, "fit_detector.seed", path).root,
    )
    if found:
        raise InputError(described(found))


def described(shortages: Sequence[Shortage]) -> str:
    """Say what is asked of too few images, and the settings that work, for `dvc exp run`."""
    problems = "; ".join(shortage.problem for shortage in shortages)
    options = " ".join(f"-S {shortage.setting}" for shortage in shortages if shortage.setting)
    if any(not shortage.setting for shortage in shortages):
        return f"too few images: {problems}; add normal images"
    return f"too few images: {problems}; add normal images, or `dvc exp run {options}` works"


def _smallest_fold(
    normals: pd.DataFrame, choice: str, guard_seconds: float, seed: int
) -> int | None:
    """Return the fewest images that a fit for the calibration learns from; None: it is by split."""
    facts = calibration.with_source(normals)
    method = calibration.choose(choice, facts)
    if method == "split":
        return None
    return min(len(fold.fitted) for fold in calibration.plan(facts, method, guard_seconds, seed))


def _no_rule(images: int, params: object = None) -> Shortage | None:
    return None
