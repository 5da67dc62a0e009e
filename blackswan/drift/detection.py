"""Has the world moved? Tests of what is being scored against held-out normal images.

Three tests of a window, each with a p-value that is valid whatever the distribution, for under no
drift reference and window are exchangeable: Kolmogorov and Smirnov on the score and on principal
components with Bonferroni's correction, maximum mean discrepancy with permutations (Gretton et al.,
JMLR 2012), and a domain classifier judged on images that it has not seen (Lopez-Paz and Oquab, ICLR
2017; Rabanser et al., NeurIPS 2019 compare them). A stream is watched by a conformal martingale in
the form of a CUSUM (Volkhonskiy et al., COPA 2017).

Frames that follow one another are near copies, and no test here knows that: thin them by
`verdict.correlation_frames` first.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.stats import ks_2samp, mannwhitneyu
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from blackswan.errors import InputError
from blackswan.evaluation.thresholds import finite_scores
from blackswan.seeds import generator

FEWEST = 10  # images of a side that a window test takes
COMPONENTS = 5  # that Kolmogorov and Smirnov look at, at most
PERMUTATIONS = 199
EXPONENT = 0.3  # of the bets: p ** (EXPONENT - 1), on small and on large p-values alike
SIMULATED, LENGTH = 500, 2000  # streams, images of each, that set the limit of a CUSUM

# Scores and embeddings side by side: (N, 1 + D), the score first.
WindowTest = Callable[[np.ndarray, np.ndarray, np.random.Generator], float]


def kolmogorov_smirnov(
    reference: np.ndarray, window: np.ndarray, rng: np.random.Generator | None = None
) -> float:
    """Return the p-value for scores (N, 1 + D) and principal components, Bonferroni.

    The components are those of both together: found on one side alone they would fit that better.
    """
    reference, window = _checked(reference, window)
    both = _scaled(np.concatenate([reference, window])[:, 1:])
    count = min(COMPONENTS, *both.shape)
    columns = [np.append(reference[:, 0], window[:, 0])]
    if count and both.any():
        columns += list(PCA(count, svd_solver="full").fit_transform(both).T)
    cut = len(reference)
    p_values = [ks_2samp(column[:cut], column[cut:]).pvalue for column in columns]
    return min(1.0, len(columns) * float(min(p_values)))


def maximum_mean_discrepancy(
    reference: np.ndarray, window: np.ndarray, rng: np.random.Generator
) -> float:
    """Return the p-value by PERMUTATIONS, with a Gaussian kernel as wide as the median distance."""
    reference, window = _checked(reference, window)
    both = _scaled(np.concatenate([reference, window]))
    squares = (both**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * both @ both.T, 0)
    width = float(np.median(distances[np.triu_indices(len(both), 1)])) or 1.0
    kernel = np.exp(-distances / width)
    cut = len(reference)
    sides = np.repeat([1 / cut, -1 / len(window)], [cut, len(window)])
    signs = np.stack([sides, *(rng.permutation(sides) for _ in range(PERMUTATIONS))])
    found = ((signs @ kernel) * signs).sum(1)
    return float((found >= found[0] - 1e-12).sum() / (PERMUTATIONS + 1))


def domain_classifier(reference: np.ndarray, window: np.ndarray, rng: np.random.Generator) -> float:
    """Return the p-value of a classifier that tells the sides apart on the half it has not seen.

    By Mann and Whitney: do images of the window get the higher probabilities?
    """
    reference, window = _checked(reference, window)
    halves = [np.array_split(rng.permutation(side), 2) for side in (reference, window)]
    learnt = np.concatenate([half[0] for half in halves])
    labels = np.repeat([0, 1], [len(half[0]) for half in halves])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    classifier.fit(learnt, labels)
    normal, new = (classifier.decision_function(half[1]) for half in halves)
    return float(mannwhitneyu(new, normal, alternative="greater").pvalue)


WINDOW_TESTS: dict[str, WindowTest] = {
    "kolmogorov_smirnov": kolmogorov_smirnov,
    "maximum_mean_discrepancy": maximum_mean_discrepancy,
    "domain_classifier": domain_classifier,
}


class Cusum:
    """A conformal martingale that forgets what spoke against a drift, and reports what speaks for.

    Each image has several strangenesses, such as its score and its distance from what is usual.
    The p-value of each, two-sided by its bets, is counted among held-out images; the mean of the
    bets multiplies the capital, which is never below 1, and a report sets it back. The limit is
    simulated for the number of held-out images: without drift there is at most one report per
    `images_per_report` images, in the mean over held-out images that are drawn anew.
    """

    def __init__(self, calibration: np.ndarray, images_per_report: int, seed: int) -> None:
        """Take the strangenesses (N, F) of held-out normal images."""
        if len(calibration) < FEWEST:
            raise InputError(
                f"{len(calibration)} held-out normal images, near copies counted once, are too few "
                f"to watch a stream by, it takes {FEWEST}; fit the detector on a longer source"
            )
        self._sorted = np.sort(_finite(calibration, "held-out normal images"), axis=0)
        self.limit = limit_for(len(calibration), images_per_report)
        self._rng = generator(seed, "cusum")
        self.log_capital = 0.0

    def add(self, strangeness: np.ndarray) -> bool:
        """Take the next image (F,) and tell whether this is a report."""
        values = _finite(np.atleast_2d(strangeness), "the stream")[0]
        below = np.array(
            [
                (np.searchsorted(column, value, "left"), np.searchsorted(column, value, "right"))
                for column, value in zip(self._sorted.T, values, strict=True)
            ]
        )
        count = len(self._sorted)
        above, ties = count - below[:, 1], below[:, 1] - below[:, 0] + 1
        p_values = (above + self._rng.random(len(values)) * ties) / (count + 1)
        self.log_capital = max(0.0, self.log_capital + float(np.log(_bets(p_values).mean())))
        if self.log_capital < self.limit:
            return False
        self.log_capital = 0.0
        return True


def reports(cusum: Cusum, stream: np.ndarray) -> list[int]:
    """Return the positions in a stream of strangenesses (N, F) at which there is a report.

    Raises InputError for a stream of constants: a camera that hangs shows no drift, nor none.
    """
    if len(stream) > 1 and not np.ptp(_finite(stream, "the stream"), axis=0).any():
        raise InputError(
            f"all {len(stream)} images of the stream score the same, as copies do; see whether the "
            "camera hangs"
        )
    return [position for position, row in enumerate(stream) if cusum.add(row)]


@lru_cache(maxsize=64)
def limit_for(calibration: int, images_per_report: int) -> float:
    """Return the limit of the log capital, by simulation with `calibration` held-out images.

    Scores are uniform, which is no restriction: only ranks count. Strangenesses that always agree
    are the worst case, and simulated.
    """
    rng = generator(0, f"cusum {calibration}")
    held_out = np.sort(rng.random((SIMULATED, calibration)), axis=1)
    logs = np.empty((LENGTH, SIMULATED))
    for step in range(LENGTH):
        above = (held_out > rng.random((SIMULATED, 1))).sum(1)
        logs[step] = np.log(_bets((above + rng.random(SIMULATED)) / (calibration + 1)))
    low, high = 0.0, 100.0
    for _ in range(12):
        limit = (low + high) / 2
        capital, count = np.zeros(SIMULATED), 0
        for paid in logs:
            capital = np.maximum(0, capital + paid)
            reported = capital >= limit
            count += int(reported.sum())
            capital[reported] = 0
        low, high = (limit, high) if count * images_per_report > logs.size else (low, limit)
    return high


def strangeness(embeddings: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Return how far embeddings (N, D) lie from `usual` ones (M, D), in their spread: (N,).

    The mean over dimensions, so that no covariance of few images is inverted.
    """
    centre, spread = usual.mean(0), usual.std(0)
    spread = np.where(spread > 0, spread, 1)
    return np.sqrt((((embeddings - centre) / spread) ** 2).mean(1))


def _bets(p_values: np.ndarray) -> np.ndarray:
    """Return what a bet on small and one on large p-values pay: 1 in the mean without drift."""
    inside = np.clip(p_values, 1e-9, 1 - 1e-9)
    return EXPONENT / 2 * (inside ** (EXPONENT - 1) + (1 - inside) ** (EXPONENT - 1))


def _checked(reference: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for side, what in ((reference, "held-out normal images"), (window, "images of the window")):
        if len(side) < FEWEST:
            raise InputError(
                f"{len(side)} {what} are too few to test for drift, it takes {FEWEST}; add some"
            )
    if reference.shape[1] != window.shape[1]:
        raise InputError(
            f"held-out images have {reference.shape[1]} values each and those of the window "
            f"{window.shape[1]}; describe both by one detector"
        )
    window = _finite(window, "images of the window")
    if not np.ptp(window, axis=0).any():
        raise InputError(
            f"all {len(window)} images of the window are alike, as copies are; see whether the "
            "camera hangs"
        )
    return _finite(reference, "held-out normal images"), window


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    return finite_scores(np.asarray(values).ravel(), what).reshape(np.shape(values))


def _scaled(values: np.ndarray) -> np.ndarray:
    """Bring each column to mean 0 and deviation 1; a constant one to 0."""
    centred = values - values.mean(0)
    spread = centred.std(0)
    return centred / np.where(spread > 1e-12, spread, 1)
