"""Splits that keep apart what belongs apart: blocks of time, groups, guard gaps."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from pydantic import Field, model_validator

from blackswan.data.records import Frame
from blackswan.errors import InputError
from blackswan.params import Section
from blackswan.seeds import generator

SPLITS = ("train", "validation", "test")


class Params(Section):
    """How normal images are divided; test gets what train and validation leave."""

    train: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)
    block_seconds: float = Field(gt=0)  # video: frames of one block stay together
    guard_seconds: float = Field(ge=0)  # video: dropped on both sides of a boundary between splits
    # Are numbered photos the frames of one video? auto asks the images, see sequences.py.
    sequences: Literal["auto", True, False]
    frames_per_second: float = Field(gt=0)  # of them: their order, as time
    seed: int = Field(ge=0)  # images without time: which groups go where

    @model_validator(mode="after")
    def _room_for_test(self) -> "Params":
        if self.train + self.validation >= 1:
            raise ValueError("train + validation must be below 1, the rest is the test split")
        return self


def assign_splits(frames: Iterable[Frame], params: Params) -> list[Frame]:
    """Return the frames with group and split filled in, less those that fall into a guard gap.

    Frames with a timestamp are split along the time of their own video: train, validation, test;
    anomalous ones go to test, and the normal ones within the guard gap of these stay out of train
    and validation. Images without one are split by group: whole groups, shuffled by seed. Groups
    with an anomalous image go to test, for the detectors learn from normal images and are tested on
    real defects; where these are most of the groups with normal images, they are shuffled with the
    others, and the anomalous images of those that train are left out. A split that the source gives
    is kept, and where it gives no validation, whole groups leave train for it. Raises InputError
    where a split gets no normal image and where the source gives a group to two splits.
    """
    timed, loose, given = defaultdict(list), [], []
    for frame in frames:
        if frame.split:
            given.append(frame)
        elif frame.timestamp_s is not None:
            timed[frame.source].append(frame)
        else:
            loose.append(frame)
    assigned = [frame for video in timed.values() for frame in _split_by_time(video, params)]
    _check_groups(given)
    tested = {frame.group for frame in given if frame.split == "test"}
    assigned += _split_by_group(loose, tested, params)
    assigned += _split_off_validation(given, params)
    assigned.sort(key=lambda frame: frame.image)
    _check_complete(assigned)
    return assigned


def _split_by_time(video: list[Frame], params: Params) -> list[Frame]:
    """Cut one video into whole blocks of time: train first, then validation, test last."""
    times = [frame.timestamp_s or 0.0 for frame in video]
    anomalous = [time for frame, time in zip(video, times, strict=True) if _is_anomalous(frame)]
    normal = sorted(
        time for frame, time in zip(video, times, strict=True) if not _is_anomalous(frame)
    )
    start = min(times)
    blocks = int((max(normal) - start) / params.block_seconds) + 1 if normal else 0
    borders = [round(blocks * share) for share in (params.train, params.train + params.validation)]
    edges = [start + border * params.block_seconds for border in borders]
    assigned = []
    for frame, time in zip(video, times, strict=True):
        block = int((time - start) / params.block_seconds)
        split, group = (
            SPLITS[sum(block >= border for border in borders)],
            f"{frame.source}/{block:06d}",
        )
        if _is_anomalous(frame):
            if split != "test":  # no group lies in two splits
                split, group = "test", f"{group}/anomalous"
        elif _is_near(time, edges, params) or (
            split != "test" and _is_near(time, anomalous, params)
        ):
            continue
        assigned.append(replace(frame, group=group, split=split))
    return assigned


def _is_near(time: float, others: list[float], params: Params) -> bool:
    """Say whether one of the sorted `others` lies within the guard gap of `time`."""
    after = bisect_left(others, time)
    return any(
        abs(time - other) < params.guard_seconds for other in others[max(0, after - 1) : after + 1]
    )


def _is_anomalous(frame: Frame) -> bool:
    return frame.label == "anomalous"


def defects_left_out(frames: Iterable[Frame], assigned: Iterable[Frame]) -> str:
    """Say how many anomalous photos `assign_splits` left out, and why; "" where it left none."""
    kept = {frame.image for frame in assigned}
    lost = sum(_is_anomalous(frame) and frame.image not in kept for frame in frames)
    if not lost:
        return ""
    return (
        f"{lost} anomalous images are left out: most groups with normal images also hold a defect, "
        "so groups of both kinds train, and what shares a group with them cannot test"
    )


def _split_by_group(frames: list[Frame], tested: set[str], params: Params) -> list[Frame]:
    """Draw a split for each group; those of `tested` are given to the test."""
    by_group = _by_group(frames)
    defective = {name for name, members in by_group.items() if any(map(_is_anomalous, members))}
    normal = {name for name, members in by_group.items() if not all(map(_is_anomalous, members))}
    drawn = normal - defective - tested
    if 2 * len(drawn) < len(normal - tested):
        drawn = normal - tested
    shares = {"train": params.train, "validation": params.validation}
    split_of = _draw(sorted(drawn), shares, params.seed)
    assigned = [replace(frame, split=split_of.get(frame.group, "test")) for frame in frames]
    return [frame for frame in assigned if frame.split == "test" or not _is_anomalous(frame)]


def _split_off_validation(frames: list[Frame], params: Params) -> list[Frame]:
    """Move whole groups from train to validation, in the proportion the two have in the params."""
    if any(frame.split == "validation" for frame in frames):
        return frames
    train = [frame for frame in frames if frame.split == "train"]
    share = params.validation / (params.train + params.validation)
    moved = _draw(sorted(_by_group(train)), {"validation": share}, params.seed)
    return [
        replace(frame, split=moved.get(frame.group, frame.split))
        if frame.split == "train"
        else frame
        for frame in frames
    ]


def _draw(groups: list[str], shares: dict[str, float], seed: int) -> dict[str, str]:
    """Give each split its share of the shuffled groups; groups that remain are in no split."""
    order = generator(seed, "splits").permutation(len(groups))
    drawn: dict[str, str] = {}
    begin = 0
    for split, share in shares.items():
        end = begin + round(share * len(groups))
        drawn |= {groups[index]: split for index in order[begin:end]}
        begin = end
    return drawn


def _by_group(frames: list[Frame]) -> dict[str, list[Frame]]:
    by_group = defaultdict(list)
    for frame in frames:
        by_group[frame.group].append(frame)
    return by_group


def _check_groups(given: list[Frame]) -> None:
    first: dict[str, Frame] = {}
    for frame in given:
        other = first.setdefault(frame.group, frame)
        if other.split != frame.split:
            raise InputError(
                f"the group {frame.group} lies in {other.split} ({other.image}) and in "
                f"{frame.split} ({frame.image}), which the source keeps apart; move its images "
                "together, or change extract_frames.folder.group_pattern"
            )


def _check_complete(frames: list[Frame]) -> None:
    for split in SPLITS:
        if not any(frame.split == split and frame.label == "normal" for frame in frames):
            raise InputError(
                f"the {split} split gets no normal image; give source.path more of them, or lower "
                "split.guard_seconds, split.block_seconds and extract_frames.video.every_n_seconds"
            )
