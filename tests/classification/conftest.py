"""A head and those it was fitted on, for several tests."""

import pytest
from crowd import MODELS, Crowd, crowd

from mien.classification import Head
from mien.classification.fitting import fit


@pytest.fixture(scope="session")
def group() -> Crowd:
    return crowd(people=12, pictures=20)


@pytest.fixture(scope="session")
def stack(group: Crowd) -> Head:
    return fit(MODELS, group.vectors, group.names)
