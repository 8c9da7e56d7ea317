"""The driver in the broker: accepted updates, refused stations, listeners and log events."""

import contextlib
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from rt import catalog
from rt.broker.commander import HANDOVER, Sender
from rt.broker.driver_state import State
from rt.broker.driving import WARNING_INTERVAL, ControlRefusedError, sender_of
from rt.broker.gamepads import GamepadFeed
from rt.buffer import BufferStore
from rt.buffer.lease import Bar
from rt.errors import RemoteCallError, RemoteProtocolError
from rt.protocol.datagrams import NEUTRAL, SILENCE, GamepadState, Stamp
from rt.remote.caller import LOCAL, Caller, SourceAddress

PUSHED = GamepadState(0.0, 0.5, 0.0, 0.0, 0)
PULLED = GamepadState(0.0, -0.5, 0.0, 0.0, 0)
FIRST = Sender(host="10.0.0.1", line="10.0.0.1:5000")
SECOND = Sender(host="10.0.0.2", line="10.0.0.2:5000")


def station(name: str) -> Caller:
    address = SourceAddress(b"10.0.0.7:5000")
    address.station = name
    return Caller(address)


@pytest.fixture
def feed() -> GamepadFeed:
    return GamepadFeed(BufferStore(catalog.load(), "", shared=False))


@pytest.fixture
def changes(feed: GamepadFeed) -> list[State]:
    """The states in which a listener is called."""
    states: list[State] = []
    feed.driving.listen(lambda: states.append(feed.driving.driver.state))
    return states


def stick(feed: GamepadFeed, index: int = 0) -> float:
    buffer = feed._store.get_or_open(("gamepad", index))
    return float(buffer.get("joystick_left_y")) if buffer.valid else 0.0


async def test_silent_driver_is_reported_exactly_after_the_silence(
    feed: GamepadFeed, changes: list[State], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    for state in (NEUTRAL, PUSHED, PUSHED):
        feed.feed({0: state})
        await trio.sleep(0.02)
    begun = trio.current_time() - 0.02
    assert changes == [State.LIVE]
    await trio.sleep_until(begun + SILENCE - 0.001)
    assert feed.driving.driver.is_live
    await trio.sleep_until(begun + SILENCE + 0.001)
    assert changes[1:] == [State.SILENT]
    feed.feed({0: PUSHED})
    assert feed.driving.driver.state is State.WAITING
    feed.feed({0: NEUTRAL})
    assert [state is State.LIVE for state in changes] == [True, False, True]


async def test_gaps_shorter_than_the_silence_are_not_reported(
    feed: GamepadFeed, changes: list[State], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    feed.feed({0: NEUTRAL})
    for _ in range(50):
        await trio.sleep(0.45)
        feed.feed({0: PUSHED})
    assert changes == [State.LIVE]


IGNORED_UPDATES: dict[str, Callable[[GamepadFeed], None]] = {
    "repeated": lambda feed: feed.feed({0: PUSHED}, Stamp("run", 1, 100.0), FIRST),
    "late": lambda feed: feed.feed({0: PUSHED}, Stamp("run", 9, 1.0), FIRST),
    "of another station": lambda feed: feed.feed({0: PUSHED}, Stamp("other", 1), SECOND),
    "empty": lambda feed: feed.feed({}, Stamp("run", 9), FIRST),
}


@pytest.mark.parametrize("update", IGNORED_UPDATES)
async def test_refused_updates_do_not_prevent_silence(
    feed: GamepadFeed, nursery: trio.Nursery, autojump_clock: MockClock, update: str
) -> None:
    nursery.start_soon(feed.run)
    feed.feed({0: NEUTRAL}, Stamp("run", 1, 100.0), FIRST)
    for _ in range(20):
        await trio.sleep(0.05)
        try:
            IGNORED_UPDATES[update](feed)
        except (RemoteProtocolError, ControlRefusedError):
            continue
        assert update == "empty" or trio.current_time() < SILENCE
    assert feed.driving.driver.state is State.SILENT
    assert not feed._store.get_or_open(("gamepad", 0)).valid


async def test_stamped_updates_are_accepted_with_any_clock(
    feed: GamepadFeed, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    for number in range(100):
        feed.feed(
            {0: PUSHED if number else NEUTRAL}, Stamp("run", number, 1e9 + number * 0.0201), FIRST
        )
        await trio.sleep(0.02)
        assert feed.driving.driver.is_live


async def test_two_stations_at_once_do_not_mix(
    feed: GamepadFeed, changes: list[State], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    feed.feed({0: NEUTRAL}, sender=FIRST)
    for _ in range(100):
        feed.feed({0: PUSHED}, sender=FIRST)
        with pytest.raises(ControlRefusedError, match=r"10\.0\.0\.1:5000 has control of the robot"):
            feed.feed({0: PULLED, 1: PULLED}, sender=SECOND)
        assert (stick(feed), stick(feed, 1)) == (0.5, 0.0)
        await trio.sleep(0.02)
    assert changes == [State.LIVE]
    assert feed.driving.report().refused[0].updates == 100


async def test_take_over_resets_gamepads_and_requires_sticks_at_rest(
    feed: GamepadFeed, changes: list[State], autojump_clock: MockClock
) -> None:
    feed.feed({0: NEUTRAL, 1: NEUTRAL}, sender=FIRST)
    feed.feed({0: PUSHED, 1: PUSHED}, sender=FIRST)
    with pytest.raises(ControlRefusedError):
        feed.feed({0: PULLED}, sender=SECOND)
    feed.driving.take_control(LOCAL)
    assert changes[-1] is State.ABSENT
    with pytest.raises(ControlRefusedError):
        feed.feed({0: PUSHED, 1: PUSHED}, sender=FIRST)
    feed.feed({0: PULLED}, sender=SECOND)
    assert not feed.driving.driver.is_live
    assert stick(feed, 1) == 0.0
    feed.feed({0: NEUTRAL}, sender=SECOND)
    assert feed.driving.driver.is_live


async def test_control_changes_hands_after_a_long_silence(
    feed: GamepadFeed, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    feed.feed({0: NEUTRAL}, sender=FIRST)
    refused = 0
    while feed.driving.report().commander != SECOND.name:
        try:
            feed.feed({0: PUSHED}, sender=SECOND)
        except ControlRefusedError:
            refused += 1
            await trio.sleep(0.1)
    assert trio.current_time() == pytest.approx(HANDOVER, abs=0.2)
    assert refused == pytest.approx(50, abs=3)
    assert not feed.driving.driver.is_live


async def test_restarted_station_drives_again_after_its_silence(
    feed: GamepadFeed, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    for number in range(3):
        feed.feed(
            {0: NEUTRAL},
            Stamp("one", number, number * 0.02),
            Sender("blue", "10.0.0.1", "10.0.0.1:1", "one"),
        )
        await trio.sleep(0.02)
    await trio.sleep(2.0)
    feed.feed({0: NEUTRAL}, Stamp("two", 0, 0.0), Sender("blue", "10.0.0.1", "10.0.0.1:2", "two"))
    assert feed.driving.driver.is_live


async def test_begin_returns_a_hint_of_what_is_missing(
    feed: GamepadFeed, autojump_clock: MockClock
) -> None:
    assert "no gamepad is connected" in str(feed.driving.begin())
    feed.feed({0: PUSHED})
    assert "is held" in str(feed.driving.begin())
    feed.feed({0: NEUTRAL})
    assert feed.driving.begin() is None
    feed.feed({0: PUSHED})
    assert feed.driving.driver.is_live
    assert "is held" in str(feed.driving.begin())
    assert not feed.driving.driver.is_live
    await trio.sleep(SILENCE)
    assert "is silent" in str(feed.driving.begin())


async def test_changes_of_the_driver_are_logged(
    feed: GamepadFeed, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    with structlog.testing.capture_logs() as events:
        feed.driving._log = structlog.get_logger()
        feed.feed({0: PUSHED}, sender=FIRST)
        feed.feed({0: NEUTRAL}, sender=FIRST)
        await trio.sleep(SILENCE + 0.1)
        feed.feed({0: PUSHED}, sender=FIRST)
        feed.driving.begin()
        feed.feed({0: NEUTRAL}, sender=FIRST)
    logged = [event["event"] for event in events if "gamepad" not in event["event"]]
    assert logged == [
        "control taken",
        "waiting for the sticks to be at rest",
        "driver live",
        "driver silent",
        "waiting for the sticks to be at rest",
        "waiting for the sticks to be at rest",
        "driver live again",
    ]


async def test_refused_station_is_logged_once_and_many_at_a_low_rate(
    feed: GamepadFeed, autojump_clock: MockClock
) -> None:
    def refuse(number: int) -> None:
        with pytest.raises(ControlRefusedError):
            feed.feed({0: PULLED}, sender=Sender(host=str(number), line=f"{number}:1"))

    with structlog.testing.capture_logs() as events:
        feed.driving._log = structlog.get_logger()
        for _ in range(40):
            feed.feed({0: PUSHED}, sender=FIRST)
            refuse(1)
            await trio.sleep(0.1)
        for number in range(2, 30):
            refuse(number)
        await trio.sleep(WARNING_INTERVAL)
        refuse(30)
    warnings = [event for event in events if event["event"] == "gamepad update refused"]
    assert [event["station"] for event in warnings] == ["1:1", "2:1", "30:1"]
    assert warnings[-1]["suppressed"] == 27


async def test_only_station_in_control_and_own_user_may_command(
    feed: GamepadFeed, autojump_clock: MockClock
) -> None:
    driving = feed.driving
    assert driving.may_command(station("red")) is None
    feed.feed({0: NEUTRAL}, sender=sender_of(station("blue")))
    assert driving.may_command(station("blue")) is None
    assert driving.may_command(Caller(b"cli-1-client", is_routed=True)) is None
    sentence = driving.may_command(station("red"))
    assert sentence == (
        "blue has control of the robot, not red; `rt call take_control` at that station, or"
        " `rt call take_control red` at the robot, takes it over"
    )
    driving.take_control(station("red"))
    assert driving.may_command(station("red")) is None
    assert driving.may_command(station("blue")) is not None
    await trio.sleep(HANDOVER)
    assert driving.may_command(station("blue")) is None


async def test_station_is_the_same_driver_by_call_and_by_datagram(
    feed: GamepadFeed, autojump_clock: MockClock
) -> None:
    driving = feed.driving
    call = Caller(b"blue/panel", is_routed=True)
    feed.feed({0: NEUTRAL}, Stamp("run", 1), sender_of(station("blue"), "run"))
    feed.feed({0: PUSHED}, Stamp("run", 2), sender_of(call, "run"))
    assert (driving.driver.is_live, driving.report().commander) == (True, "blue")
    assert driving.may_command(call) is None
    assert driving.may_command(Caller(b"red/panel", is_routed=True)) is not None
    driving.take_control(Caller(b"red/panel", is_routed=True))
    assert driving.report().commander == "red"
    with pytest.raises(ControlRefusedError):
        feed.feed({0: NEUTRAL}, Stamp("run", 3), sender_of(call, "run"))
    feed.feed({0: NEUTRAL}, Stamp("other", 1), sender_of(station("red"), "other"))
    assert driving.driver.is_live


async def test_revoked_key_ends_control(
    feed: GamepadFeed, changes: list[State], autojump_clock: MockClock
) -> None:
    revoked: set[str] = set()
    feed.driving.is_revoked = revoked.__contains__
    blue, red = sender_of(station("blue")), sender_of(station("red"))
    feed.feed({0: NEUTRAL}, sender=blue)
    feed.feed({0: PUSHED}, sender=blue)
    with pytest.raises(ControlRefusedError):
        feed.feed({0: NEUTRAL}, sender=red)
    revoked.add("blue")
    feed.feed({0: NEUTRAL}, sender=red)
    assert (feed.driving.report().commander, feed.driving.driver.is_live, stick(feed)) == (
        "red",
        True,
        0.0,
    )
    assert [state is State.LIVE for state in changes] == [True, False, True]


async def test_each_way_to_lose_the_driver_has_its_own_bar(
    feed: GamepadFeed, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    nursery.start_soon(feed.run)
    driving = feed.driving
    revoked: set[str] = set()
    driving.is_revoked = revoked.__contains__
    bars: list[Bar] = []
    driving.listen(lambda: None if driving.driver.is_live else bars.append(driving.bar))
    blue, red = sender_of(station("blue")), sender_of(station("red"))

    async def live(sender: Sender) -> None:
        await trio.sleep(0.02)
        feed.feed({0: NEUTRAL}, sender=sender)
        assert (driving.driver.is_live, driving.bar) == (True, Bar.NONE)

    await live(blue)
    driving.take_control(station("red"))
    await live(red)
    driving.release_control(station("red"))
    await live(blue)
    feed.feed({1: PUSHED}, sender=blue)
    feed.feed({1: NEUTRAL}, sender=blue)
    await live(blue)
    revoked.add("blue")
    with contextlib.suppress(ControlRefusedError):
        feed.feed({0: PUSHED}, sender=red)
    await live(red)
    await trio.sleep(SILENCE + 0.1)
    assert bars == [Bar.TAKEN, Bar.RELEASED, Bar.HELD, Bar.RELEASED, Bar.DRIVER]


async def test_take_and_release_control_check_the_caller(
    feed: GamepadFeed, autojump_clock: MockClock
) -> None:
    driving = feed.driving
    with pytest.raises(RemoteCallError, match="name the station"):
        driving.take_control(LOCAL)
    with pytest.raises(
        RemoteCallError, match="no station 'x' sends gamepads; no station was refused"
    ):
        driving.take_control(LOCAL, "x")
    with pytest.raises(RemoteCallError, match="for itself only"):
        driving.take_control(station("red"), "blue")
    feed.feed({0: NEUTRAL}, sender=sender_of(station("blue")))
    with pytest.raises(RemoteCallError, match="only the station in control can release it"):
        driving.release_control(station("red"))
    for sender in (FIRST, SECOND):
        with pytest.raises(ControlRefusedError):
            feed.feed({0: NEUTRAL}, sender=sender)
    with pytest.raises(
        RemoteCallError, match=r"name the station .*10\.0\.0\.1:5000, 10\.0\.0\.2:5000"
    ):
        driving.take_control(LOCAL)
    driving.take_control(LOCAL, SECOND.name)
    assert driving.report().commander == SECOND.name
    driving.release_control(LOCAL)
    assert driving.report().commander is None
    driving.take_control(LOCAL, SECOND.name)
    feed.feed({0: NEUTRAL}, sender=SECOND)
    assert driving.driver.is_live


async def test_report_contains_plain_values(feed: GamepadFeed, autojump_clock: MockClock) -> None:
    import msgspec

    empty: dict[str, Any] = msgspec.to_builtins(feed.driving.report())
    assert empty == {"commander": None, "since": None, "driver": "absent", "refused": []}
    feed.feed({0: NEUTRAL}, sender=FIRST)
    with pytest.raises(ControlRefusedError):
        feed.feed({0: NEUTRAL}, sender=SECOND)
    full = msgspec.to_builtins(feed.driving.report())
    assert (full["commander"], full["driver"]) == (FIRST.name, "live")
    assert full["refused"] == [{"station": SECOND.name, "updates": 1, "seconds": 0.0}]


async def test_many_stations_do_not_displace_stamps_of_the_one_in_control(
    feed: GamepadFeed, autojump_clock: MockClock
) -> None:
    recorded = Stamp("run", 5)
    feed.feed({0: NEUTRAL}, recorded, FIRST)
    for number in range(100):
        with pytest.raises(ControlRefusedError):
            feed.feed(
                {0: PULLED},
                Stamp(str(number), 1),
                Sender(host="10.0.0.2", line="x", run=str(number)),
            )
    with pytest.raises(RemoteProtocolError, match="sent twice"):
        feed.feed({0: PUSHED}, recorded, FIRST)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(("send", "send", "send", "begin", "take", "release")),
        st.sampled_from((FIRST, SECOND)),
        st.sampled_from((NEUTRAL, PUSHED, PULLED)),
        st.floats(0, 0.7),
    ),
    max_size=40,
)


@settings(deadline=None)
@given(MOVES)
def test_values_are_from_the_driver_in_control_and_listeners_see_changes(
    moves: list[tuple[str, Sender, GamepadState, float]],
) -> None:
    async def drive() -> None:
        feed = GamepadFeed(BufferStore(catalog.load(), "", shared=False))
        received: list[bool] = []
        feed.driving.listen(lambda: received.append(feed.driving.driver.is_live))
        last: tuple[Sender, GamepadState, float] | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed.run)
            for move, sender, state, pause in moves:
                await trio.sleep(pause)
                if move == "send":
                    with contextlib.suppress(ControlRefusedError):
                        feed.feed({0: state}, sender=sender)
                        last = sender, state, trio.current_time()
                elif move == "begin":
                    assert (feed.driving.begin() is None) == feed.driving.driver.is_live
                elif move == "take":
                    with contextlib.suppress(RemoteCallError):
                        feed.driving.take_control(LOCAL, sender.name)
                else:
                    feed.driving.release_control(LOCAL)
                commander = feed.driving.report().commander
                if last is None or commander != last[0].name:
                    assert stick(feed) == 0.0
                    assert not feed.driving.driver.is_live
                elif trio.current_time() < last[2] + SILENCE:
                    assert stick(feed) in {last[1].ly, 0.0}
                if received:
                    assert received[-1] == feed.driving.driver.is_live
                else:
                    assert not feed.driving.driver.is_live
                assert all(one != other for one, other in itertools.pairwise(received))
            nursery.cancel_scope.cancel()

    trio.run(drive, clock=MockClock(autojump_threshold=0))
