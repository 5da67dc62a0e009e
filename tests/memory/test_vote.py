"""Neighbours vote, and are honest about what they do not know."""

import numpy as np
import pytest

from blackswan.memory.vote import Calibration, Params, calibrate, judge, tally

EQUAL = Params(neighbors=3, temperature=1e6, alpha=0.1)
SURE = Calibration(asked=9, least_similarity=0.5, shares=[0.4, 1], accuracies=[0.3, 0.9])


def learnt(embeddings, types, groups):
    """Learn from pages of seven."""
    begins = range(0, len(types), 7)
    pages = [(embeddings[n : n + 7], types[n : n + 7], groups[n : n + 7]) for n in begins]
    return calibrate(lambda: iter(pages), len(types), EQUAL)


def clusters(rng, count=20, spread=0.1, kinds=("a", "b")):
    """Embeddings of length 1 about an axis for each kind, two of a group."""
    axes = np.repeat(np.eye(len(kinds), 8), count, axis=0)
    found = axes + rng.normal(0, spread, (len(axes), 8))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    types = [kind for kind in kinds for _ in range(count)]
    return found.astype(np.float32), types, [f"{n // 2}" for n in range(len(types))]


@pytest.mark.parametrize(
    ("types", "winner", "share"),
    [
        ("aab", "a", 2 / 3),
        ("abb", "b", 2 / 3),
        ("abc", "a", 1 / 3),  # of equals the nearest
        ("aabbbb", "a", 2 / 3),  # three vote
        ("a", "a", 1),
    ],
)
def test_a_vote(types, winner, share):
    found = tally([0.9] * len(types), list(types), EQUAL)
    assert found == (winner, pytest.approx(share, abs=1e-5))


def test_the_nearer_weigh_more():
    params = Params(neighbors=3, temperature=0.1, alpha=0.1)
    assert tally([0.9, 0.6, 0.6], ["a", "b", "b"], params) == (
        "a", pytest.approx(1 / (1 + 2 * np.exp(-3)))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("similarities", "types", "known", "confidence", "why"),
    [
        ([0.9, 0.9, 0.9], "aaa", "a", 0.9, None),
        ([0.9, 0.9, 0.9], "aab", "a", 0.3 + 0.6 * (2 / 3 - 0.4) / 0.6, None),
        ([0.9, 0.9, 0.9], "abc", None, 0.3, "the neighbours disagree"),
        ([0.4, 0.4, 0.4], "aaa", None, 0.9, "no remembered defect is similar enough"),
        ([], "", None, 0, "there is no neighbour"),
    ],
)
def test_a_judgement(similarities, types, known, confidence, why):
    vote = judge(similarities, list(types), EQUAL, SURE)
    assert vote.type == known
    assert vote.likeliest == (types[0] if types else None)
    assert vote.confidence == pytest.approx(confidence, abs=1e-5)
    assert vote.why_unknown == why


def test_few_defects_are_no_ground_for_a_type():
    one = learnt(np.eye(1, 8, dtype=np.float32), ["a"], ["0"])
    assert one == Calibration(asked=0, least_similarity=-1, shares=[], accuracies=[])
    vote = judge([0.9], ["a"], EQUAL, one)
    assert (vote.type, vote.likeliest, vote.confidence) == (None, "a", 0)


def test_kinds_that_lie_apart_are_trusted_but_never_wholly():
    found = learnt(*clusters(np.random.default_rng(0)))
    assert found.asked == 40
    assert found.accuracies[-1] == pytest.approx(1 - 1 / 42)
    # 4 of 40 have their nearest neighbour below it, or at it
    assert 0.8 < found.least_similarity < 1


def test_the_own_group_has_no_vote():
    embeddings, types, _ = clusters(np.random.default_rng(0), kinds=("a",))
    types = [f"{number // 2}" for number in range(20)]  # each type in one group alone
    found = learnt(embeddings, types, types)
    assert (found.asked, found.accuracies[-1]) == (20, 0)


def test_noise_is_called_unknown_and_alpha_holds():
    rng = np.random.default_rng(1)
    embeddings, types, groups = clusters(rng, count=200)
    found = learnt(embeddings[::2], types[::2], groups[::2])
    nearest = (embeddings[1::2] @ embeddings[::2].T).max(axis=1)
    assert (nearest < found.least_similarity).mean() == pytest.approx(0.1, abs=0.05)
    noise = rng.normal(size=(100, 8)) * [0, 0, 1, 1, 1, 1, 1, 1]
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    assert ((noise @ embeddings[::2].T).max(axis=1) < found.least_similarity).all()


def test_many_are_asked_evenly(monkeypatch):
    monkeypatch.setattr("blackswan.memory.vote.ASKED", 10)
    assert learnt(*clusters(np.random.default_rng(0))).asked == 10


def test_pages_teach_what_all_at_once_do(monkeypatch):
    many = clusters(np.random.default_rng(2), count=40, spread=0.4)
    at_once = calibrate(lambda: [many], 80, EQUAL)
    monkeypatch.setattr("blackswan.memory.vote.AT_ONCE", 9)
    apart = learnt(*many)
    assert apart.asked == at_once.asked == 80
    assert apart.accuracies == pytest.approx(at_once.accuracies)
    assert apart.shares == pytest.approx(at_once.shares)
    assert apart.least_similarity == pytest.approx(at_once.least_similarity, abs=1e-6)
