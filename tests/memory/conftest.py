"""One embedder and one set of drawn defects for all these tests."""

import pytest
from memory_drawings import eight_of_each, tiny_embedder, write_found


@pytest.fixture(scope="session")
def embedder(tmp_path_factory):
    return tiny_embedder(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def defects(embedder):
    return eight_of_each(embedder)


@pytest.fixture
def found(tmp_path, embedder, defects):
    return write_found(tmp_path / "found", embedder, defects)
