import math

import pytest
import structlog
import trio
from trio.testing import MockClock

from rt import catalog
from rt.broker.gamepads import SILENCE, GamepadFeed
from rt.buffer import BufferStore
from rt.errors import BufferBusyError, DeviceBufferError, RemoteProtocolError
from rt.protocol.control import NEUTRAL, GamepadState, Stamp

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


async def test_a_recorded_update_does_not_bring_a_silent_gamepad_back(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    recorded = Stamp(station="driver", seq=7, time=100.0)
    feed.feed({0: PUSHED}, recorded)
    buffer = store.get_or_open(("gamepad", 0))
    await trio.sleep(SILENCE + 0.5)
    assert not buffer.valid
    for stamp in (recorded, Stamp(station="driver", seq=6), Stamp(station="driver", seq=8, time=100.1)):
        with pytest.raises(RemoteProtocolError):
            feed.feed({0: PUSHED}, stamp)
    assert not buffer.valid
    feed.feed({0: NEUTRAL}, Stamp(station="driver", seq=9, time=101.0))
    assert buffer.valid
    assert buffer.get("joystick_left_x") == 0.0


async def test_a_gamepad_that_falls_silent_says_so_and_comes_back_by_itself(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    with structlog.testing.capture_logs() as events:
        feed._log = structlog.get_logger()
        for _ in range(2):
            feed.feed({0: PUSHED})
            await trio.sleep(SILENCE + 0.2)
    of_gamepads = [event for event in events if "the gamepad" in event["event"]]
    assert [(event["log_level"], event["event"]) for event in of_gamepads] == [
        ("info", "the gamepad is connected"),
        ("warning", "the gamepad is silent: it reads neutral"),
    ] * 2


async def test_without_a_gamepad_nothing_wakes_the_process(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    def next_deadline() -> float:
        return trio.lowlevel.current_statistics().seconds_to_next_deadline

    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    await trio.testing.wait_all_tasks_blocked()
    assert next_deadline() == math.inf
    feed.feed({0: PUSHED, 1: PUSHED})
    await trio.testing.wait_all_tasks_blocked()
    assert next_deadline() == pytest.approx(SILENCE)
    await trio.sleep(SILENCE)
    await trio.testing.wait_all_tasks_blocked()
    assert not store.get_or_open(("gamepad", 0)).valid
    assert not store.get_or_open(("gamepad", 1)).valid
    assert next_deadline() == math.inf


async def test_a_gamepad_whose_buffer_somebody_has_is_silent_as_soon_as_it_is_free(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    feed.feed({0: PUSHED})
    buffer = store.get_or_open(("gamepad", 0))

    def busy(_key: tuple[str, int]) -> object:
        raise BufferBusyError("somebody holds the lock")

    with monkeypatch.context() as patch:
        patch.setattr(store, "get_or_open", busy)
        await trio.sleep(SILENCE + 0.2)
        assert buffer.valid
    await trio.sleep(0.05)
    assert not buffer.valid


async def test_a_buffer_that_cannot_be_marked_does_not_end_the_watch(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    feed.feed({0: PUSHED, 1: PUSHED})
    second = store.get_or_open(("gamepad", 1))
    real = store.get_or_open

    def broken(key: tuple[str, int]) -> object:
        if key == ("gamepad", 0):
            raise DeviceBufferError("there is no room")
        return real(key)

    monkeypatch.setattr(store, "get_or_open", broken)
    await trio.sleep(SILENCE + 0.3)
    assert not second.valid


def test_bit_i_is_the_button_with_the_ith_id(store: BufferStore) -> None:
    feed = GamepadFeed(store)
    assert [param.id for param in feed.button_params] == list(range(17))
    assert feed.buttons == [param.name for param in feed.button_params]
