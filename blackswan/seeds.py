"""One threaded seed: every random choice draws from a generator named after what it is for."""

import hashlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of (seed, names), so that order of work and workers do not matter."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, dtype="<u4").tolist()])
