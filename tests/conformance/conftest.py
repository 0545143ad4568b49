"""The suites are ordinary modules; their assertions should explain themselves all the same."""

import pytest

pytest.register_assert_rewrite("store_suite", "detector_suite", "embedder_suite")
