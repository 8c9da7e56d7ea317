"""Fixtures of the tests of the log."""

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def restored_log() -> Iterator[None]:
    """Restore the log of the test process."""
    yield
    structlog.reset_defaults()
