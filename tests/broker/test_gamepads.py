"""Gamepad updates in their buffers: values, silence, busy buffers and log events."""

import math

import pytest
import structlog
import trio
from trio.testing import MockClock

from rt import catalog
from rt.broker.commander import Sender
from rt.broker.driver_state import State
from rt.broker.driving import ControlRefusedError
from rt.broker.gamepads import GamepadFeed
from rt.buffer import BufferStore
from rt.errors import BufferBusyError, DeviceBufferError, RemoteProtocolError
from rt.protocol.datagrams import NEUTRAL, SILENCE, GamepadState, Stamp
from rt.remote.caller import LOCAL

PUSHED = GamepadState(0.5, -0.25, 0.0, 1.0, 0b1000001)


@pytest.fixture
def store() -> BufferStore:
    return BufferStore(catalog.load(), "", shared=False)


async def test_update_is_stored_in_the_buffer(store: BufferStore) -> None:
    GamepadFeed(store).feed({0: PUSHED})
    values = store.get_or_open(("gamepad", 0)).snapshot()
    assert values["joystick_left_x"] == 0.5
    assert values["joystick_left_y"] == -0.25
    assert values["joystick_right_y"] == 1.0
    assert [name for name, value in values.items() if value is True] == ["button_a", "l_trigger"]


async def test_stick_is_limited_to_the_unit_circle(store: BufferStore) -> None:
    GamepadFeed(store).feed({1: GamepadState(1.0, 1.0, 0.0, 0.0, 0)})
    assert store.get_or_open(("gamepad", 1)).get("joystick_left_x") == pytest.approx(2**-0.5)


async def test_gamepad_of_a_silent_station_reads_neutral_until_the_next_update(
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


async def test_replayed_update_does_not_revive_a_silent_gamepad(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    recorded = Stamp(station="driver", seq=7, time=100.0)
    feed.feed({0: PUSHED}, recorded)
    buffer = store.get_or_open(("gamepad", 0))
    await trio.sleep(SILENCE + 0.5)
    assert not buffer.valid
    for stamp in (
        recorded,
        Stamp(station="driver", seq=6),
        Stamp(station="driver", seq=8, time=100.1),
    ):
        with pytest.raises(RemoteProtocolError):
            feed.feed({0: PUSHED}, stamp)
    assert not buffer.valid
    feed.feed({0: NEUTRAL}, Stamp(station="driver", seq=9, time=101.0))
    assert buffer.valid
    assert buffer.get("joystick_left_x") == 0.0


async def test_silent_gamepad_is_logged_and_reconnects(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    with structlog.testing.capture_logs() as events:
        feed._log = structlog.get_logger()
        for _ in range(2):
            feed.feed({0: PUSHED})
            await trio.sleep(SILENCE + 0.2)
    of_gamepads = [event for event in events if event["event"].startswith("gamepad")]
    assert [(event["log_level"], event["event"]) for event in of_gamepads] == [
        ("info", "gamepad connected"),
        ("warning", "gamepad reads neutral"),
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


async def test_silent_gamepad_with_a_busy_buffer_reads_neutral_later(
    store: BufferStore,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    feed.feed({0: PUSHED})
    buffer = store.get_or_open(("gamepad", 0))

    def busy(_key: tuple[str, int]) -> object:
        raise BufferBusyError("another process holds the lock")

    with monkeypatch.context() as patch:
        patch.setattr(store, "get_or_open", busy)
        await trio.sleep(SILENCE + 0.2)
        assert buffer.valid
    await trio.sleep(0.05)
    assert not buffer.valid


async def test_broken_buffer_does_not_affect_other_gamepads(
    store: BufferStore,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
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


DEFLECTED = GamepadState(0.9, 0.0, 0.0, 0.0, 0)


class Busy:
    """A store whose buffers of some gamepads are in use."""

    def __init__(self, store: BufferStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.indices: set[int] = set()
        real = store.get_or_open

        def get_or_open(key: tuple[str, int]) -> object:
            if key[1] in self.indices:
                raise BufferBusyError("another process holds the lock")
            return real(key)

        monkeypatch.setattr(store, "get_or_open", get_or_open)


async def test_skipped_rest_does_not_make_the_driver_live(
    store: BufferStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = GamepadFeed(store)
    feed.feed({0: DEFLECTED})
    buffer = store.get_or_open(("gamepad", 0))
    busy = Busy(store, monkeypatch)
    busy.indices = {0}
    feed.feed({0: NEUTRAL})
    assert feed.skipped == 1
    assert buffer.get("joystick_left_x") == pytest.approx(0.9)
    assert not feed.driving.driver.is_live
    busy.indices = set()
    feed.feed({0: NEUTRAL})
    assert feed.driving.driver.is_live


async def test_skipped_rest_of_one_gamepad_keeps_the_driver_waiting(
    store: BufferStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = GamepadFeed(store)
    feed.feed({0: DEFLECTED, 1: NEUTRAL})
    busy = Busy(store, monkeypatch)
    busy.indices = {0}
    feed.feed({0: NEUTRAL, 1: NEUTRAL})
    assert not feed.driving.driver.is_live
    busy.indices = set()
    feed.feed({0: NEUTRAL, 1: NEUTRAL})
    assert feed.driving.driver.is_live


async def test_driver_whose_states_are_all_skipped_is_silent(
    store: BufferStore,
    nursery: trio.Nursery,
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    feed.feed({0: NEUTRAL})
    Busy(store, monkeypatch).indices = {0}
    for _ in range(10):
        await trio.sleep(SILENCE / 8)
        feed.feed({0: NEUTRAL})
    assert feed.driving.driver.state is State.SILENT


async def test_gamepad_without_a_buffer_does_not_make_the_driver_live(
    store: BufferStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = GamepadFeed(store)

    def broken(_key: tuple[str, int]) -> object:
        raise DeviceBufferError("there is no room")

    monkeypatch.setattr(store, "get_or_open", broken)
    feed.feed({0: NEUTRAL})
    assert not feed.driving.driver.is_live


async def test_new_driver_waits_until_the_former_ones_buffers_are_released(
    store: BufferStore, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = GamepadFeed(store)
    first, second = (
        Sender(host="10.0.0.1", line="10.0.0.1:5000"),
        Sender(host="10.0.0.2", line="10.0.0.2:5000"),
    )
    feed.feed({0: DEFLECTED}, sender=first)
    buffer = store.get_or_open(("gamepad", 0))
    with pytest.raises(ControlRefusedError):
        feed.feed({1: NEUTRAL}, sender=second)
    busy = Busy(store, monkeypatch)
    busy.indices = {0}
    feed.driving.take_control(LOCAL, second.name)
    feed.feed({1: NEUTRAL}, sender=second)
    assert buffer.valid
    assert not feed.driving.driver.is_live
    busy.indices = set()
    feed.feed({1: NEUTRAL}, sender=second)
    assert not buffer.valid
    assert feed.driving.driver.is_live


async def test_many_hand_overs_are_logged_at_a_low_rate(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    senders = [Sender(host=f"10.0.0.{number}", line=f"10.0.0.{number}:5000") for number in (1, 2)]
    nursery.start_soon(feed.run)
    with structlog.testing.capture_logs() as events:
        feed._log = feed.driving._log = structlog.get_logger()
        feed.feed({0: NEUTRAL}, sender=senders[0])
        for number in range(200):
            sender = senders[1 - number % 2]
            with pytest.raises(ControlRefusedError):
                feed.feed({0: NEUTRAL}, sender=sender)
            feed.driving.take_control(LOCAL, sender.name)
            feed.feed({0: NEUTRAL}, sender=sender)
        of_gamepad = [event for event in events if event["event"] == "gamepad reads neutral"]
        assert {event["reason"] for event in of_gamepad} == {"its driver no longer has control"}
        assert len(events) < 40
        until = trio.current_time() + 10
        while trio.current_time() < until:
            feed.feed({0: NEUTRAL}, sender=senders[0])
            await trio.sleep(0.1)
        last = {event["event"].split()[0]: event for event in events}
        assert last["control"]["station"] == senders[0].name
        assert last["driver"]["event"] == "driver live"
        assert last["gamepad"]["event"] == "gamepad connected"
        assert len(events) < 60
        assert sum(event.get("suppressed", 0) for event in events) > 500


async def test_last_suppressed_refusal_is_logged_after_silence(
    store: BufferStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    nursery.start_soon(feed.run)
    with structlog.testing.capture_logs() as events:
        feed._log = feed.driving._log = structlog.get_logger()
        feed.feed({0: NEUTRAL}, sender=Sender(host="10.0.0.1", line="10.0.0.1:5000"))
        for number in range(2, 6):
            with pytest.raises(ControlRefusedError):
                feed.feed(
                    {0: NEUTRAL},
                    sender=Sender(host=f"10.0.0.{number}", line=f"10.0.0.{number}:5000"),
                )
        await trio.sleep(600)
    refused = [event for event in events if event["event"] == "gamepad update refused"]
    assert [event["station"] for event in refused] == ["10.0.0.2:5000", "10.0.0.5:5000"]
    assert refused[-1]["suppressed"] == 2
    await trio.testing.wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf


async def test_suppressed_events_are_logged_when_the_watch_ends(
    store: BufferStore, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(store)
    with structlog.testing.capture_logs() as events:
        feed._log = feed.driving._log = structlog.get_logger()
        feed.feed({0: NEUTRAL}, sender=Sender(host="10.0.0.1", line="10.0.0.1:5000"))
        for number in (2, 3):
            with pytest.raises(ControlRefusedError):
                feed.feed(
                    {0: NEUTRAL},
                    sender=Sender(host=f"10.0.0.{number}", line=f"10.0.0.{number}:5000"),
                )
        async with trio.open_nursery() as inner:
            inner.start_soon(feed.run)
            await trio.testing.wait_all_tasks_blocked()
            inner.cancel_scope.cancel()
    assert events[-1]["station"] == "10.0.0.3:5000"
