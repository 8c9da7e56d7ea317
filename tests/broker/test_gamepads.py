import pytest
import trio
from trio.testing import MockClock

from rt import catalog
from rt.broker.gamepads import SILENCE, GamepadFeed
from rt.buffer import BufferStore
from rt.protocol.control import NEUTRAL, GamepadState

PUSHED = GamepadState(0.5, -0.25, 0.0, 1.0, 0b1000001)


@pytest.fixture
def store() -> BufferStore:
    return BufferStore(catalog.load(), "", shared=False)


async def test_an_update_is_in_the_buffer(store: BufferStore) -> None:
    GamepadFeed(store).feed({0: PUSHED})
    values = store.get_or_open(("gamepad", 0)).snapshot()
    assert values["joystick_left_x"] == 0.5
    assert values["joystick_left_y"] == -0.25
    assert values["joystick_right_y"] == 1.0
    assert [name for name, value in values.items() if value is True] == ["button_a", "l_trigger"]


async def test_a_stick_is_brought_into_the_unit_circle(store: BufferStore) -> None:
    GamepadFeed(store).feed({1: GamepadState(1.0, 1.0, 0.0, 0.0, 0)})
    assert store.get_or_open(("gamepad", 1)).get("joystick_left_x") == pytest.approx(2**-0.5)


async def test_a_silent_station_reads_neutral_until_it_speaks_again(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    feed.feed({0: PUSHED})
    buffer = store.get_or_open(("gamepad", 0))
    await trio.sleep(SILENCE - 0.1)
    assert buffer.valid
    feed.feed({0: PUSHED})
    await trio.sleep(SILENCE - 0.1)
    assert buffer.valid
    await trio.sleep(0.5)
    assert not buffer.valid
    feed.feed({0: NEUTRAL})
    assert buffer.valid
    assert buffer.get("joystick_left_x") == 0.0
