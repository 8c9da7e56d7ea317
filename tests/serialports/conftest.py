"""A fixture with the device side of a robot."""

from collections.abc import AsyncIterator

import pytest
from support.device_robot import Robot, open_robot


@pytest.fixture
async def robot(prefix: str) -> AsyncIterator[Robot]:
    async with open_robot(prefix) as opened:
        yield opened
