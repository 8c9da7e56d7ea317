"""A faulty line drops, corrupts and delays frames both ways, disconnects, and freezes."""

import functools
import itertools
import os
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from rt import catalog
from rt.emulator.faults import FREEZE_TIME, Faults, parse_faults
from rt.emulator.faulty_link import FaultyLink
from rt.emulator.lines import EmulatedDevice, connect_emulated, run_emulated, serve_pty
from rt.link.link import LinkGoneError, StreamLink
from rt.link.serial import SerialLink
from rt.protocol import frames
from rt.protocol.message import DevData, HbReq, HbRes, Message, Ping, SubReq, SubRes

CATALOG = catalog.load()
SENT = [frames.encode(HbReq(number)) for number in range(100)]


def faulty(stream: trio.abc.Stream, *faults: str, seed: int = 1) -> FaultyLink:
    return FaultyLink(StreamLink(stream, "line"), Faults(parse_faults(faults), seed, 7))


def make_switch() -> EmulatedDevice:
    return EmulatedDevice(CATALOG["limit-switch"], 7)


async def collect(receive: StreamLink | FaultyLink, until: float) -> list[tuple[float, bytes]]:
    """Return what arrives until a time, and when."""
    found = []
    with trio.move_on_at(until):
        while True:
            data = await receive.receive()
            found += [(trio.current_time(), frame + b"\0") for frame in data.split(b"\0") if frame]
    return found


@pytest.mark.parametrize("way", ["sends", "receives"])
async def test_line_without_faults_changes_nothing(way: str, autojump_clock: MockClock) -> None:
    assert [frame for _, frame in await transfer(way)] == SENT


@pytest.mark.parametrize("way", ["sends", "receives"])
async def test_dropped_frames_are_missing_both_ways(way: str, autojump_clock: MockClock) -> None:
    found = [frame for _, frame in await transfer(way, "drop=0.3")]
    assert 40 < len(found) < 95
    assert found == [frame for frame in SENT if frame in found]


@pytest.mark.parametrize("way", ["sends", "receives"])
async def test_frames_are_corrupted_both_ways(way: str, autojump_clock: MockClock) -> None:
    found = [frame for _, frame in await transfer(way, "corrupt=0.3")]
    assert 40 < sum(frame in SENT for frame in found) < 95
    assert any(frame not in SENT for frame in found)


@pytest.mark.parametrize("way", ["sends", "receives"])
async def test_delayed_frames_keep_their_order_both_ways(
    way: str, autojump_clock: MockClock
) -> None:
    start = trio.current_time()
    found = await transfer(way, "delay=2")
    assert [frame for _, frame in found] == SENT
    delays = [when - start - 0.1 * number for number, (when, _) in enumerate(found)]
    assert all(-0.01 <= late <= 2.01 for late in delays)
    assert max(delays) > 1


async def transfer(way: str, *faults: str) -> list[tuple[float, bytes]]:
    """Return what is left of a hundred frames, one each 0.1 s, sent or received by a device."""
    ours, theirs = trio.testing.memory_stream_pair()
    robot, device = StreamLink(ours, "robot"), faulty(theirs, *faults)
    sender, receiver = (device, robot) if way == "sends" else (robot, device)
    found: list[tuple[float, bytes]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)

        async def receive() -> None:
            found.extend(await collect(receiver, trio.current_time() + 20))
            nursery.cancel_scope.cancel()

        nursery.start_soon(receive)
        for frame in SENT:
            await sender.send(frame)
            await trio.sleep(0.1)
    return found


async def test_frame_that_arrives_in_chunks_is_one_frame(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    device = faulty(theirs, "delay=0.5")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(device.run)
        for byte in SENT[0] + SENT[1]:
            await ours.send_all(bytes((byte,)))
            await trio.sleep(0.01)
        found = await collect(device, trio.current_time() + 2)
        nursery.cancel_scope.cancel()
    assert [frame for _, frame in found] == SENT[:2]


async def test_line_ends_at_its_time(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    device = faulty(theirs, "disconnect=2")
    start = trio.current_time()
    await device.run()
    assert 1 <= trio.current_time() - start <= 3
    with pytest.raises(LinkGoneError):
        await StreamLink(ours, "robot").receive()
    with pytest.raises(trio.ClosedResourceError):
        await device.receive()


async def test_frozen_device_neither_sends_nor_receives(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    device, link = make_switch(), faulty(theirs, "freeze=2")
    received: list[tuple[float, Message]] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.run)
        nursery.start_soon(run_emulated, device, link)
        await ours.send_all(frames.encode(SubReq(1, 100)))
        start = trio.current_time()

        async def ask() -> None:
            for number in range(1000):
                await trio.sleep(0.1)
                await ours.send_all(frames.encode(HbReq(number % 256)))

        nursery.start_soon(ask)
        reader = frames.FrameReader()
        with trio.move_on_after(20):
            while True:
                for item in reader.feed(bytes(await ours.receive_some())):
                    assert isinstance(item, Message)
                    received.append((trio.current_time() - start, item))
        nursery.cancel_scope.cancel()
    times = [when for when, _ in received]
    silences = [
        later - earlier for earlier, later in itertools.pairwise(times) if later - earlier > 1
    ]
    assert len(silences) >= 3
    assert all(silence == pytest.approx(FREEZE_TIME, abs=0.3) for silence in silences)
    # It did not receive either: nothing sent meanwhile is answered later.
    asked = {HbRes(number) for number in range(200)}
    answered = {item for _, item in received if isinstance(item, HbRes)}
    assert len(asked - answered) >= 10 * FREEZE_TIME * len(silences) - 10
    # The subscription continues.
    assert any(isinstance(item, DevData) for when, item in received if when > 15)


async def test_frozen_device_notices_disconnection_after_thaw(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    link = faulty(theirs, "freeze=0.1")
    start = trio.current_time()
    link._faults.frozen_until(start)
    await trio.sleep(0.3)
    await ours.aclose()
    with pytest.raises(LinkGoneError):
        await link.receive()
    assert trio.current_time() - start > FREEZE_TIME


async def test_disconnected_device_returns_over_tcp() -> None:
    endings: list[str] = []

    async def accept(stream: trio.SocketStream) -> None:
        await stream.send_all(frames.encode(Ping()))
        reader = frames.FrameReader()
        try:
            async for data in stream:
                assert reader.feed(bytes(data)) == [SubRes(0, 0, 7)]
            endings.append("closed")
        except trio.BrokenResourceError:
            endings.append("reset")
        if set(endings) == {"closed", "reset"}:
            nursery.cancel_scope.cancel()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            (listener,) = await nursery.start(
                functools.partial(trio.serve_tcp, accept, 0, host="127.0.0.1")
            )
            port = listener.socket.getsockname()[1]
            faults = Faults(parse_faults(["disconnect=0.1"]), 1, 7)

            async def connect() -> None:
                await connect_emulated(make_switch(), "127.0.0.1", port, faults=faults)

            nursery.start_soon(connect)
    assert set(endings) == {"closed", "reset"}


async def until_gone(link: SerialLink) -> None:
    try:
        while True:
            await link.receive()
    except LinkGoneError:
        await link.aclose()


async def test_vanished_port_returns_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "ttyACM0"
    ports: list[str] = []
    faults = Faults(parse_faults(["disconnect=0.2"]), 1, 7)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            async def serve(task_status: trio.TaskStatus[str]) -> None:
                await serve_pty(
                    make_switch(),
                    path,
                    faults=faults,
                    on_port=ports.append,
                    task_status=task_status,
                )

            assert await nursery.start(serve) == str(path)
            count = 0
            while count < 3:
                try:
                    link = await SerialLink.open(str(path))
                except OSError:
                    await trio.sleep(0.01)  # serial ports have no event for this
                    continue
                await until_gone(link)
                count += 1
            nursery.cancel_scope.cancel()
    assert set(ports) == {str(path)}
    assert len(ports) >= 3
    assert not os.listdir(tmp_path)  # noqa: PTH208 - the loop has nothing else to do
