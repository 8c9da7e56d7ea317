"""The ZMQ socket: wakeups, cancellation, high-water marks and errors."""

import itertools
import os
import random
import select
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
import zmq
from trio.testing import MockClock

from rt.errors import ConfigError, InstanceBusyError, LocalProtocolError
from rt.remote import SocketNode
from rt.transport.zmq_socket import MAX_FRAMES, Socket

MESSAGES = int(os.environ.get("WAKEUP_MESSAGES", "100000"))
"""Number of messages in the test of concurrent sends and receives on one socket."""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Socket, Socket]]:
    """Two connected DEALERs over ipc, so that every message passes through libzmq's thread."""
    with Socket(zmq.DEALER) as left, Socket(zmq.DEALER) as right:
        right.connect(left.bind(f"ipc://{tmp_path}/s"))
        yield left, right


async def test_receiver_wakes_while_another_task_sends(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    got = 0

    async def echo() -> None:
        for _ in range(MESSAGES):
            await right.send(await right.recv())

    async def receive() -> None:
        nonlocal got
        for number in range(MESSAGES):
            assert await left.recv() == [b"%d" % number]
            got += 1

    with trio.fail_after(30 + MESSAGES / 500):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo)
            nursery.start_soon(receive)
            for number in range(MESSAGES):
                # Every send consumes the edge of the descriptor for which the receiver waits.
                await left.send([b"%d" % number])
    assert got == left.counters.sent == left.counters.received == MESSAGES


async def test_send_that_consumes_the_edge_wakes_the_receiver(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(left.recv)
            await trio.testing.wait_all_tasks_blocked()
            right.send_nowait([b"message"])
            # The message has arrived, but trio has not polled yet: the send consumes the edge.
            select.select([left._fd], [], [], 10)
            left.send_nowait([b"other"])
            assert not select.select([left._fd], [], [], 0)[0]


async def test_request_and_reply_work_next_to_a_busy_sender(pair: tuple[Socket, Socket]) -> None:
    left, right = pair

    async def send_noise() -> None:
        while True:
            await left.send([b"noise"])

    async def answer() -> None:
        while True:
            if await right.recv() == [b"ask"]:
                await right.send([b"answer"])

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_noise)
            nursery.start_soon(answer)
            for _ in range(40):  # each behind a queue of noise
                await left.send([b"ask"])
                assert await left.recv() == [b"answer"]
            nursery.cancel_scope.cancel()


async def test_receiver_that_reads_events_wakes_a_sender(tmp_path: Path) -> None:
    with Socket(zmq.DEALER, options={zmq.IMMEDIATE: 1}) as left, Socket(zmq.DEALER) as right:
        left.connect(f"ipc://{tmp_path}/s")
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(left.send, [b"payload"])
                await trio.testing.wait_all_tasks_blocked()
                right.bind(f"ipc://{tmp_path}/s")
                # The connection makes the send possible, but the receiver reads the events first,
                # before trio polls.
                select.select([left._fd], [], [], 10)
                nursery.start_soon(right.recv)
                with trio.CancelScope() as scope:
                    nursery.start_soon(_cancel_when_sent, left, scope)
                    await left.recv()


async def _cancel_when_sent(socket: Socket, scope: trio.CancelScope) -> None:
    while not socket.counters.sent:
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_concurrent_receivers_share_all_messages(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    got: list[bytes] = []

    async def receive() -> None:
        for _ in range(100):
            got.extend(await left.recv())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(receive)
            for number in range(500):
                await right.send([b"%d" % number])
    assert sorted(got, key=int) == [b"%d" % number for number in range(500)]


async def test_cancelled_receiver_loses_no_message(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    got: list[int] = []

    async def send() -> None:
        for number in range(500):
            await right.send([b"%d" % number])

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            for attempt in itertools.count():
                if len(got) == 500:
                    break
                # Deadlines that have passed or are about to pass cancel before, in and after the
                # wait.
                with trio.move_on_after(attempt % 7 * 1e-5):
                    while len(got) < 500:
                        got.append(int((await left.recv())[0]))
                await trio.lowlevel.checkpoint()
    assert got == list(range(500))


class RandomCanceller:
    """Repeats steps, each of which may be cancelled at any point."""

    def __init__(self, seed: int, nursery: trio.Nursery) -> None:
        self._chance = random.Random(seed)
        self._nursery = nursery

    async def do(self, step: Callable[[], Awaitable[None]], done: Callable[[], bool]) -> None:
        while not done():
            with trio.CancelScope() as scope:
                kind = self._chance.randrange(4)
                if kind == 0:
                    scope.cancel()
                elif kind == 1:
                    scope.deadline = trio.current_time() + self._chance.random() * 2e-4
                elif kind == 2:
                    self._nursery.start_soon(self._cancel_soon, scope, self._chance.randrange(5))
                await step()
            await trio.lowlevel.checkpoint()

    async def _cancel_soon(self, scope: trio.CancelScope, turns: int) -> None:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        scope.cancel()


@pytest.mark.parametrize("seed", range(5))
async def test_random_cancels_lose_no_message(pair: tuple[Socket, Socket], seed: int) -> None:
    count = 400
    got: dict[Socket, list[int]] = {socket: [] for socket in pair}

    async def send_all(socket: Socket, canceller: RandomCanceller) -> None:
        unsent = list(range(count))

        async def step() -> None:
            await socket.send([b"%d" % unsent[0]])
            unsent.pop(0)

        await canceller.do(step, lambda: not unsent)

    async def receive_all(socket: Socket, canceller: RandomCanceller) -> None:
        async def step() -> None:
            got[socket].append(int((await socket.recv())[0]))

        await canceller.do(step, lambda: len(got[socket]) == count)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for socket in pair:
                nursery.start_soon(send_all, socket, RandomCanceller(seed, nursery))
                nursery.start_soon(receive_all, socket, RandomCanceller(seed + 100, nursery))
    assert all(numbers == list(range(count)) for numbers in got.values())
    assert all(socket.counters.sent == count for socket in pair)
    assert not any(socket._waiters for socket in pair)


async def test_another_receiver_replaces_a_cancelled_one(
    pair: tuple[Socket, Socket], nursery: trio.Nursery
) -> None:
    left, right = pair
    first = trio.CancelScope()
    got = trio.Event()

    async def watch() -> None:
        with first:
            await left.recv()

    async def receive() -> None:
        assert await left.recv() == [b"late"]
        got.set()

    nursery.start_soon(watch)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    first.cancel()
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(30):
        await right.send([b"late"])
        await got.wait()


async def test_cancelled_send_sends_nothing(tmp_path: Path) -> None:
    with Socket(zmq.DEALER, options={zmq.IMMEDIATE: 1}) as left, Socket(zmq.DEALER) as right:
        left.connect(f"ipc://{tmp_path}/s")
        with trio.move_on_after(0.01) as scope:
            await left.send([b"given", b"up"])
        assert scope.cancelled_caught
        right.bind(f"ipc://{tmp_path}/s")
        with trio.fail_after(30):
            await left.send([b"meant"])
            assert await right.recv() == [b"meant"]


async def test_send_waits_at_the_high_water_mark(tmp_path: Path) -> None:
    small: dict[int, int | bytes] = {
        zmq.SNDHWM: 1,
        zmq.RCVHWM: 1,
        zmq.SNDBUF: 4096,
        zmq.RCVBUF: 4096,
    }
    with Socket(zmq.DEALER, options=small) as left, Socket(zmq.DEALER, options=small) as right:
        right.connect(left.bind(f"ipc://{tmp_path}/s"))
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(50):
                await left.send([b"%d" % number, bytes(20_000)])
                sent += 1

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send)
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert sent < 50
                for number in range(50):
                    assert (await right.recv())[0] == b"%d" % number


async def test_sndtimeo_limits_a_send_without_connection(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    with Socket(zmq.DEALER, options={zmq.IMMEDIATE: 1, zmq.SNDTIMEO: 1500}) as socket:
        socket.connect(f"ipc://{tmp_path}/none")
        with pytest.raises(trio.TooSlowError, match=r"1\.5 s"):
            await socket.send([b"x"])
        assert (socket.counters.sent, socket.counters.dropped) == (0, 1)


async def test_close_wakes_waiting_tasks(pair: tuple[Socket, Socket]) -> None:
    left, _ = pair
    ended = []

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await left.recv()
        ended.append(1)

    with trio.fail_after(30):
        async with trio.open_nursery() as inner:
            for _ in range(3):
                inner.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            left.close()
    assert len(ended) == 3
    for call in (left.send_nowait, lambda _frames: left.recv_nowait()):
        with pytest.raises(trio.ClosedResourceError):
            call([b"x"])


async def test_second_close_does_not_touch_the_descriptor(
    pair: tuple[Socket, Socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    dealer, _ = pair
    async with trio.open_nursery() as nursery:

        async def receive() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await dealer.recv()

        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        dealer.close()
        monkeypatch.setattr(
            trio.lowlevel,
            "notify_closing",
            lambda _fd: pytest.fail("the descriptor may have been reused"),
        )
        dealer.close()


async def test_too_long_frame_closes_only_its_connection(tmp_path: Path) -> None:
    with Socket(zmq.ROUTER) as server, Socket(zmq.DEALER) as giant, Socket(zmq.DEALER) as polite:
        address = server.bind(f"ipc://{tmp_path}/s")
        giant.connect(address)
        polite.connect(address)
        with trio.fail_after(30):
            await giant.send([bytes(2 << 20)])
            await polite.send([b"hello"])
            assert (await server.recv())[1:] == [b"hello"]


@pytest.mark.parametrize("count", [MAX_FRAMES, MAX_FRAMES + 1, 2 * MAX_FRAMES + 2, 1000])
async def test_parts_of_a_long_message_do_not_look_like_messages(
    pair: tuple[Socket, Socket], count: int
) -> None:
    left, right = pair
    await left.send([b"x"] * count)
    await left.send([b"a", b"b"])
    parts = []
    with trio.fail_after(10):
        while (frames := await right.recv()) != [b"a", b"b"]:
            parts.append(len(frames))
    assert parts == [MAX_FRAMES] * -(-count // MAX_FRAMES)


async def test_invalid_frame_leaves_no_partial_message(pair: tuple[Socket, Socket]) -> None:
    left, right = pair
    with pytest.raises(TypeError):
        left.send_nowait([b"first", "second"])  # type: ignore[list-item]
    with trio.fail_after(30):
        await left.send([b"whole"])
        assert await right.recv() == [b"whole"]


async def test_address_in_use_is_reported_with_a_remedy() -> None:
    with Socket(zmq.PUB) as first, Socket(zmq.PUB) as second:
        address = first.bind("tcp://127.0.0.1:*")
        with pytest.raises(InstanceBusyError, match=r"is in use.*--port-base") as caught:
            second.bind(address)
        assert caught.value.context == {"address": address}


@pytest.mark.parametrize(
    "address", ["tcp://203.0.113.1:1", "nonsense", "tcp://127.0.0.1:x", "ipc:///" + "x" * 200]
)
async def test_invalid_address_to_bind_is_reported(address: str) -> None:
    with Socket(zmq.PUB) as socket, pytest.raises(ConfigError) as caught:
        socket.bind(address)
    assert "addr=" not in caught.value.message  # which pyzmq appends


def test_invalid_address_to_connect_to_is_reported() -> None:
    with (
        Socket(zmq.DEALER) as socket,
        pytest.raises(ConfigError, match=r"^cannot connect to tcp://x: .*; use tcp://HOST:PORT$"),
    ):
        socket.connect("tcp://x")


def test_unknown_option_is_reported_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="unknown ZMQ option SNDTIMO; did you mean SNDTIMEO"):
        SocketNode(zmq.DEALER, options={"SNDTIMO": 1000})


def test_invalid_value_of_an_option_is_reported() -> None:
    with pytest.raises(ConfigError, match="invalid value -5 of ZMQ option SNDHWM"):
        Socket(zmq.DEALER, options={zmq.SNDHWM: -5})


def test_req_and_rep_are_refused() -> None:
    with pytest.raises(ValueError, match="DEALER and ROUTER"):
        Socket(zmq.REQ)


async def test_subscriber_receives_only_its_topics() -> None:
    with trio.fail_after(30):
        async with (
            SocketNode(zmq.SUB, bindings=["tcp://127.0.0.1:*"], subscriptions=["info"]) as sub,
            SocketNode(zmq.PUB, connections=sub.endpoints) as pub,
            trio.open_nursery() as nursery,
        ):

            async def publish() -> None:
                # A publisher drops messages until the subscription has reached it.
                while True:
                    pub.send_nowait(b"debug", b"no")
                    await pub.send(b"info", b"yes")

            nursery.start_soon(publish)
            for _ in range(3):
                assert await sub.recv() == (b"info", b"yes")
            nursery.cancel_scope.cancel()


async def test_error_names_the_state_of_the_node() -> None:
    node = SocketNode(zmq.SUB)
    with pytest.raises(trio.ClosedResourceError, match="not open yet"):
        await node.recv()
    with pytest.raises(trio.ClosedResourceError, match="not open yet"):
        node.send_nowait(b"", b"")
    async with node:
        with pytest.raises(LocalProtocolError, match="only receives"):
            await node.send(b"", b"")
        with pytest.raises(trio.BusyResourceError, match="already open"):
            await node.__aenter__()
    with pytest.raises(trio.ClosedResourceError, match="node is closed"):
        await node.recv()
    with pytest.raises(trio.ClosedResourceError, match="create a new one"):
        await node.__aenter__()


def test_node_exposes_its_parameters() -> None:
    node = SocketNode(zmq.SUB, bindings=["ipc:///a"], subscriptions=["info"], options={"RCVHWM": 5})
    assert (node.socket_type, node.bindings, node.subscriptions) == (
        zmq.SUB,
        ("ipc:///a",),
        (b"info",),
    )
    assert node.options == {zmq.RCVHWM: 5}
    with pytest.raises(ValueError, match="only a SUB"):
        SocketNode(zmq.DEALER, subscriptions=["info"])
