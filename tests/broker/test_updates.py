"""Device updates: contents, intervals, splitting, and busy or leaving devices."""

import itertools

import pytest
import trio
from trio.testing import MockClock

from rt import catalog
from rt.broker.updates import FULL_INTERVAL, UpdatePublisher
from rt.buffer import BufferStore
from rt.errors import BufferBusyError
from rt.protocol import datagrams
from rt.protocol.message import DevData
from rt.protocol.uid import DeviceUID

SWITCH = int(DeviceUID(0, 7, 1))


class Air:
    """A publisher that records decoded updates."""

    def __init__(self) -> None:
        self.updates: list[dict[int, dict[str, datagrams.Value]]] = []

    async def send(self, _peer: bytes, payload: bytes) -> None:
        self.updates.append(datagrams.decode_devices(payload))
        await trio.lowlevel.checkpoint()


def robot(count: int = 1) -> BufferStore:
    store = BufferStore(catalog.load(), "", shared=False)
    for number in range(count):
        store.get_or_open(SWITCH + number).valid = True
    return store


async def test_update_contains_changed_values_and_all_connected_devices(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    store, air = robot(), Air()
    nursery.start_soon(UpdatePublisher(store, air, 0.1).run)
    await trio.sleep(0.05)
    assert air.updates == [{SWITCH: {"switch0": False, "switch1": False, "switch2": False}}]
    store.get_or_open(SWITCH).update(DevData(0b10, b"\x01"))
    await trio.sleep(0.2)
    assert air.updates[1:] == [{SWITCH: {"switch1": True}}, {SWITCH: {}}]


async def test_updates_are_sent_at_once_and_at_multiples_of_the_interval(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    times: list[float] = []

    class Watch:
        async def send(self, _peer: bytes, _payload: bytes) -> None:
            times.append(trio.current_time())
            await trio.lowlevel.checkpoint()

    autojump_clock.jump(0.13)
    nursery.start_soon(UpdatePublisher(robot(), Watch(), 0.1).run)
    await trio.sleep(0.3)
    assert times == pytest.approx([0.13, 0.2, 0.3, 0.4])


async def test_all_values_are_sent_once_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    store, air = robot(), Air()
    nursery.start_soon(UpdatePublisher(store, air, 0.1).run)
    await trio.sleep(3.05)
    assert 25 <= len(air.updates) <= 31
    assert sum(len(update[SWITCH]) == 3 for update in air.updates) in {3, 4}


async def test_disconnected_device_is_left_out(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    store, air = robot(), Air()
    store.get_or_open(SWITCH).valid = False
    nursery.start_soon(UpdatePublisher(store, air, 0.1).run)
    await trio.sleep(0.15)
    assert air.updates == [{}], "without devices, updates are sent twice a second"
    await trio.sleep(0.5)
    assert air.updates == [{}, {}]


async def test_update_is_split_only_if_a_datagram_would_be_too_long(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    whole, parted = Air(), Air()
    nursery.start_soon(UpdatePublisher(robot(20), whole, 0.1).run)
    nursery.start_soon(UpdatePublisher(robot(20), parted, 0.1, max_bytes=150).run)
    await trio.sleep(0.05)
    assert [len(update) for update in whole.updates] == [20]
    parts = parted.updates
    assert len(parts) > 1
    assert {uid for part in parts for uid in part} == {SWITCH + number for number in range(20)}


async def test_device_that_disconnects_while_it_is_read_is_skipped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, air = robot(2), Air()
    monkeypatch.setattr(
        store.get_or_open(SWITCH),
        "get_update",
        lambda: store.get_or_open(SWITCH).invalidate_without_lock(),
    )
    assert list(UpdatePublisher(store, air, 0.1).collect()) == [SWITCH + 1]


@pytest.mark.parametrize("interval", [0.1, 0.3, 0.7, 1.0])
async def test_all_values_of_each_device_are_sent_at_least_once_a_second(
    nursery: trio.Nursery, autojump_clock: MockClock, interval: float
) -> None:
    store = robot(3)
    times: dict[int, list[float]] = {}

    class Watch:
        async def send(self, _peer: bytes, payload: bytes) -> None:
            for uid, values in datagrams.decode_devices(payload).items():
                if len(values) == 3:
                    times.setdefault(uid, []).append(trio.current_time())
            await trio.lowlevel.checkpoint()

    nursery.start_soon(UpdatePublisher(store, Watch(), interval).run)
    await trio.sleep(20)
    assert len(times) == 3
    for moments in times.values():
        assert (
            max(after - before for before, after in itertools.pairwise(moments))
            <= FULL_INTERVAL + 1e-3
        )


async def test_device_that_could_not_be_read_is_sent_completely_next_time(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, air = robot(), Air()
    publisher = UpdatePublisher(store, air, 0.1)
    nursery.start_soon(publisher.run)
    await trio.sleep(0.25)
    buffer = store.get_or_open(SWITCH)

    def busy() -> dict[str, object]:
        raise BufferBusyError("another process holds the lock")

    with monkeypatch.context() as patch:
        patch.setattr(buffer, "get_update", busy)
        await trio.sleep(0.1)
    air.updates.clear()
    await trio.sleep(0.1)
    assert air.updates == [{SWITCH: {"switch0": False, "switch1": False, "switch2": False}}]
    assert publisher.skipped == 1
