from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the log of the test process as it was."""
    yield
    structlog.reset_defaults()
