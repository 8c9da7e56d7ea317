"""The log hub on real sockets: published events, submitted events, slow subscribers, limits."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing
import zmq

from rt import log
from rt.app import Application
from rt.config import Config
from rt.logs import hub as log_hub
from rt.logs.feed import ConnectionChange, LogFeed
from rt.logs.hub import LogHub, LogPublisher
from rt.logs.queue import LogQueue
from rt.protocol import logevent
from rt.remote import Handler, route
from rt.transport.zmq_socket import Socket

DEADLINE = 10.0


@pytest.fixture(autouse=True)
def stream() -> Iterator[io.StringIO]:
    text = io.StringIO()
    log.configure(stream=text, level="info", listener_level="debug", app="root")
    yield text
    structlog.reset_defaults()


@pytest.fixture
def front(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/front.sock"


@pytest.fixture
def back(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/back.sock"


async def connected(feed: LogFeed) -> None:
    """Wait until a feed receives events, a moment after it is connected."""
    while await feed.change() is not ConnectionChange.CONNECTED:
        pass
    while True:
        log.get_logger().info("probe")
        with trio.move_on_after(0.05):
            await feed.event()
            break
    log.get_logger().info("connected")
    while (await feed.event())["event"] != "connected":
        pass


async def test_event_is_published_with_its_level_as_topic(
    nursery: trio.Nursery, front: str
) -> None:
    await nursery.start(LogHub([front]).run)
    with Socket(zmq.SUB) as socket, trio.fail_after(DEADLINE):
        socket.subscribe(b"warning")
        socket.connect(front)
        frames: list[bytes] = []
        while not frames:
            log.get_logger().info("another level")
            log.get_logger().warning("gamepad silent", gamepad=0)
            with trio.move_on_after(0.05):
                frames = await socket.recv()
    assert frames[0] == b"warning"
    event = logevent.decode(frames)
    assert (
        event.items()
        >= {"event": "gamepad silent", "level": "warning", "app": "root", "gamepad": 0}.items()
    )


async def test_events_of_a_thread_arrive_in_order_and_are_numbered(
    nursery: trio.Nursery, front: str
) -> None:
    await nursery.start(LogHub([front]).run)

    def log_many() -> None:
        for number in range(500):
            log.get_logger().error("from a thread", number=number)

    with LogFeed(front, ["error", "info"]) as feed, trio.fail_after(DEADLINE):
        await connected(feed)
        thread = threading.Thread(target=log_many)
        thread.start()
        gaps = logevent.GapCounter()
        for expected in range(500):
            event = await feed.event()
            assert gaps.count(event) == 0
            assert event["number"] == expected
        thread.join()


async def test_last_event_before_a_cancel_is_published(nursery: trio.Nursery, front: str) -> None:
    with LogFeed(front, ["info"]) as feed, trio.fail_after(DEADLINE):
        async with trio.open_nursery() as inner:
            await inner.start(LogHub([front]).run)
            await connected(feed)
            log.get_logger().info("goodbye")
            inner.cancel_scope.cancel()
        assert (await feed.event())["event"] == "goodbye"
        assert await feed.change() is ConnectionChange.LOST


async def test_another_process_submits_events(nursery: trio.Nursery, front: str, back: str) -> None:
    hub = LogHub([front], [back])
    await nursery.start(hub.run)
    with LogFeed(front, ["info"]) as feed, Socket(zmq.PUB) as other, trio.fail_after(DEADLINE):
        await connected(feed)
        other.connect(back)
        event = {
            "event": "hello",
            "level": "info",
            "app": "camera",
            "timestamp": "2026-01-01T00:00:00Z",
            "seq": 7,
        }
        while hub.counters.received == 0:
            other.send_nowait(logevent.encode(event))
            await trio.sleep(0.01)
        got = await feed.event()
        assert (got["event"], got["app"], got["timestamp"]) == (
            "hello",
            "camera",
            "2026-01-01T00:00:00Z",
        )
        assert got["seq"] < 1000


@pytest.mark.parametrize("app", ["root", "Device", " executor ", 7, None])
async def test_submitted_event_cannot_claim_to_be_from_the_robot(
    nursery: trio.Nursery, front: str, back: str, app: object
) -> None:
    hub = LogHub([front], [back])
    await nursery.start(hub.run)
    with (
        LogFeed(front, ["info", "critical"]) as feed,
        Socket(zmq.PUB) as other,
        trio.fail_after(DEADLINE),
    ):
        await connected(feed)
        other.connect(back)
        forged = {
            "event": "the robot stops",
            "level": "critical",
            "app": app,
            "child": "device",
            "pid": 1,
        }
        forged |= {
            "source": "print",
            "clock_moved": 5.0,
            "timestamp": "2124-01-01T00:00:00Z",
            "instance": "another",
        }
        while hub.counters.received == 0:
            other.send_nowait(logevent.encode(forged))
            await trio.sleep(0.01)
        while (got := await feed.event())["level"] != "critical":
            continue
    assert (got["app"], got["via"]) == ("external", "hub")
    assert not got.keys() & {"child", "pid", "source", "clock_moved", "instance"}
    assert not got["timestamp"].startswith("2124")


async def test_flood_of_another_process_is_bounded(
    nursery: trio.Nursery, front: str, back: str
) -> None:
    hub = LogHub([front], [back])
    await nursery.start(hub.run)
    events: list[Any] = []
    options: dict[int, int | bytes] = {zmq.SNDHWM: 20_000}
    with (
        log.listening(events.append),
        trio.fail_after(DEADLINE),
        Socket(zmq.PUB, options=options) as other,
    ):
        other.connect(back)
        while hub.counters.received < 6000:
            for _ in range(100):
                other.send_nowait(logevent.encode({"event": "flood", "level": "info"}))
            await trio.sleep(0.001)
    assert len([event for event in events if event["event"] == "flood"]) < 5000
    assert any("suppressed" in event for event in events)


async def test_started_publisher_loses_no_event(
    nursery: trio.Nursery, front: str, back: str
) -> None:
    seen: list[str] = []
    hub = LogHub([front], [back])
    await nursery.start(hub.run)
    with trio.fail_after(DEADLINE):
        publisher = LogPublisher(back)
        await nursery.start(publisher.run)
        with log.listening(lambda event: seen.append(event["event"])):
            # The hub and the publisher are in one process, so each submitted event is submitted
            # again.
            log.get_logger().debug("again")
            while seen.count("again") < 5:  # noqa: ASYNC110 - a thread of libzmq sends no events
                await trio.sleep(0.01)
    nursery.cancel_scope.cancel()


async def test_publisher_without_a_hub_starts(
    nursery: trio.Nursery, back: str, autojump_clock: trio.testing.MockClock
) -> None:
    await nursery.start(LogPublisher(back).run)
    log.get_logger().info("lost")


async def test_malformed_events_are_refused_counted_and_logged_once(
    nursery: trio.Nursery, front: str, back: str, stream: io.StringIO
) -> None:
    hub = LogHub([front], [back])
    await nursery.start(hub.run)
    with Socket(zmq.PUB) as other, trio.fail_after(DEADLINE):
        other.connect(back)
        while hub.counters.malformed < 20:
            for frames in (
                [b"info"],
                [b"info", b"\xff"],
                [b"loud", b""],
                [b"a", b"b", b"c"],
                [b"info", b"x" * 100_000],
            ):
                other.send_nowait(frames)
            await trio.sleep(0.01)
        while hub.counters.received == 0:
            other.send_nowait(logevent.encode({"event": "still here", "level": "info"}))
            await trio.sleep(0.01)
    text = stream.getvalue()
    assert text.count("submitted log event refused") == 1
    assert "still here" in text


async def test_slow_subscriber_does_not_affect_another(nursery: trio.Nursery, front: str) -> None:
    await nursery.start(LogHub([front]).run)
    with (
        LogFeed(front, ["info"]) as good,
        LogFeed(front, ["info"], options={zmq.RCVHWM: 1, zmq.RCVBUF: 4096}) as idle,
        trio.fail_after(60),
    ):
        await connected(good)
        while await idle.change() is not ConnectionChange.CONNECTED:
            pass
        total = 12_000
        for start in range(0, total, 100):
            for number in range(start, start + 100):
                log.get_logger().info("x" * 400, number=number)
            for number in range(start, start + 100):
                event = await good.event()
                assert event["number"] == number
        gaps = logevent.GapCounter()
        last: dict[str, Any] = {}
        while last.get("number") != total:
            log.get_logger().info("the end", number=total)
            with trio.move_on_after(0.05):
                while last.get("number") != total:
                    last = await idle.event()
                    gaps.count(last)
        assert gaps.missed > 0


async def test_dropped_events_are_reported_and_noticed_by_subscribers(
    nursery: trio.Nursery, front: str, stream: io.StringIO
) -> None:
    hub = LogHub([front])
    await nursery.start(hub.run)
    with LogFeed(front, ["info"]) as feed, trio.fail_after(DEADLINE):
        await connected(feed)
        gaps = logevent.GapCounter()
        for _ in range(500):  # without a checkpoint, so the hub cannot send
            log.get_logger().info("x" * 4000, more="y" * 11_000)
        event: dict[str, Any] = {}
        while event.get("event") != "the end":
            log.get_logger().info("the end")
            event = await feed.event()
            gaps.count(event)
    assert hub.counters.dropped > 0
    assert gaps.missed == hub.counters.dropped
    assert stream.getvalue().count("log events not published") == 1


async def test_unreachable_robot_is_noticed(nursery: trio.Nursery) -> None:
    hub = LogHub(["tcp://127.0.0.1:*"])
    await nursery.start(hub.run)
    port = int(hub.endpoints[0].rpartition(":")[2])
    reachable = True

    async def pump(source: trio.SocketStream, target: trio.SocketStream) -> None:
        async for data in source:
            if not reachable:
                break
            await target.send_all(data)
        await trio.sleep_forever()  # keeps the connection open without data

    async def radio(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", port)
        async with far, trio.open_nursery() as both:
            both.start_soon(pump, near, far)
            both.start_soon(pump, far, near)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, radio, listeners)
    address = f"tcp://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    fast: dict[int, int | bytes] = {zmq.HEARTBEAT_IVL: 100, zmq.HEARTBEAT_TIMEOUT: 300}
    with LogFeed(address, ["info"], options=fast) as feed, trio.fail_after(DEADLINE):
        await connected(feed)
        reachable = False
        while await feed.change() is not ConnectionChange.LOST:
            pass


async def test_value_whose_repr_logs_does_not_deadlock(nursery: trio.Nursery) -> None:
    sink = log_hub._LogSink(log_hub.LogCounters())

    class Odd:
        def __repr__(self) -> str:
            sink.listener({"event": "inner", "level": "info"})
            return "odd"

    thread = threading.Thread(
        target=sink.listener, args=[{"event": "outer", "level": "info", "it": Odd()}], daemon=True
    )
    thread.start()
    await trio.to_thread.run_sync(thread.join, 30)
    assert not thread.is_alive()
    assert [logevent.decode(frames)["event"] for frames in sink._queue.take_nowait()] == [
        "inner",
        "outer",
    ]


async def test_full_queue_drops_and_counts(nursery: trio.Nursery) -> None:
    queue: LogQueue[int] = LogQueue(max_bytes=100)
    assert [queue.put(number, 30) for number in range(5)] == [True, True, True, False, False]
    assert queue.dropped == 2
    assert await queue.take() == [0, 1, 2]
    assert queue.put(9, 100)
    assert await queue.take() == [9]


async def test_put_from_a_thread_wakes_the_task(nursery: trio.Nursery) -> None:
    queue: LogQueue[int] = LogQueue()
    taken: list[int] = []

    async def take() -> None:
        while len(taken) < 1000:
            taken.extend(await queue.take())

    def put() -> None:
        for number in range(1000):
            queue.put(number, 1)

    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as inner:
            inner.start_soon(take)
            await trio.to_thread.run_sync(put)
    assert taken == list(range(1000))


async def test_missing_hub_is_reported_as_refused(nursery: trio.Nursery, front: str) -> None:
    with LogFeed(front, ["info"]) as feed, trio.fail_after(DEADLINE):
        assert await feed.change() is ConnectionChange.REFUSED


class Listener(Handler):
    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    @route(inline=True)
    def warning(self, event: dict[str, Any]) -> None:
        self.seen.append(event)

    @route(inline=True)
    def debug(self, event: dict[str, Any]) -> None:  # noqa: ARG002 - must not be called
        raise AssertionError("below the level of the log")


async def test_methods_of_a_handler_are_named_by_level(tmp_path: Path) -> None:
    config = Config(
        log_frontend=(f"ipc://{tmp_path}/f.sock",), log_backend=(f"ipc://{tmp_path}/b.sock",)
    )
    listener = Listener()
    async with Application("root", config) as app:
        await app.make_log_forwarder()
        await app.make_log_subscriber(listener)
        await app.make_log_publisher()
        with trio.fail_after(DEADLINE):
            while not listener.seen:
                log.get_logger().debug("below the level")
                log.get_logger().error("no method for this level")
                log.relay({"event": "gamepad silent", "level": "warning", "app": "broker"})
                await trio.sleep(0.01)
    assert listener.seen[0]["event"] == "gamepad silent"
