"""The clock of a film: times that rise from frame to frame, whatever the container says."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

_JITTER_S = 1.0  # a clock that steps back by less is out of order, by more it began anew
_SAME_S = 1e-5  # less between two frames is rounding
_CONSTANT = 0.9  # share of the steps that are alike where a film has one rate
_ALIKE = 0.2  # of a step: containers round times to a millisecond
_FEWEST = 10  # steps that tell the rate


class Clock:
    """Makes times rise: a step back adds an offset, a clock that stands falls back to the rate."""

    def __init__(self, rate: Fraction) -> None:
        self._step = float(1 / rate)
        self._offset = 0.0
        self._last: float | None = None
        self.mended = 0

    def read(self, time: float | None) -> float:
        """Return the time in seconds of the next frame, given its own, which may be unknown."""
        following = 0.0 if self._last is None else self._last + self._step
        if time is None:
            self.mended += 1
            self._last = following
        elif self._last is None or time + self._offset > self._last + _SAME_S:
            self._last = time + self._offset
        else:
            self.mended += 1
            if self._last - time - self._offset >= max(_JITTER_S, 10 * self._step):
                self._offset = following - time
            self._last = following
        return self._last


def missing(times: Sequence[float]) -> int:
    """Return how many frames the gaps in rising times leave out, 0 where the rate varies."""
    steps = np.diff(times)
    if len(steps) < _FEWEST:
        return 0
    alike = np.abs(steps / np.median(steps) - 1) < _ALIKE
    if alike.mean() < _CONSTANT:
        return 0
    in_steps = np.rint(steps / steps[alike].mean()).astype(int)
    return int(np.maximum(in_steps - 1, 0).sum())
