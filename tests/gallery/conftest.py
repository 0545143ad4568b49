import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real pictures; tests that ask for it skip where there is none."""
    default = Path(__file__).parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("MIEN_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set MIEN_TEST_DATA)")
    return folder
