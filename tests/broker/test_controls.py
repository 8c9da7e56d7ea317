"""Gamepad updates by datagram and by call, and the refusal notices that stations receive."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from rt import catalog
from rt.access.keyring import Keyring
from rt.broker import Broker, GamepadFeed
from rt.broker.commander import Sender
from rt.broker.serving import NOTICES_PER_SECOND, Controls
from rt.buffer import BufferStore
from rt.config import Config
from rt.errors import RemoteCallError
from rt.protocol.datagrams import NEUTRAL, GamepadState, Stamp, decode_refused, encode_gamepads
from rt.remote import Client, DatagramNode, Router, Service, SocketNode
from rt.remote.caller import Caller, SourceAddress, set_caller
from rt.remote.signed_node import StationNode, VerifyingNode

PUSHED = GamepadState(0.0, 0.5, 0.0, 0.0, 0)
PATIENCE = 30.0


@dataclass
class Served:
    """A running broker and its addresses."""

    feed: GamepadFeed
    ring: Keyring
    node: VerifyingNode
    router: str

    @property
    def port(self) -> int:
        return self.node.port

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition on the broker's state."""
        with trio.fail_after(PATIENCE):
            while not condition():  # noqa: ASYNC110 - counters send no events
                await trio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def station(
        self, name: str | None = None, state: GamepadState = NEUTRAL
    ) -> AsyncIterator[StationNode]:
        """Run a station that sends within the block."""
        station_key = self.ring.new(name) if name else None
        self.ring.refresh()
        node = StationNode("127.0.0.1", self.port, station_key)
        async with Client(node) as client, trio.open_nursery() as nursery:

            async def send() -> None:
                run = secrets.token_hex(8)
                for number in range(1_000_000):
                    stamp = Stamp(run, number)
                    await client.issue_call(
                        "update_gamepads", {"0": state}, stamp, notification=True
                    )
                    await trio.sleep(0.02)

            nursery.start_soon(send)
            yield node
            nursery.cancel_scope.cancel()

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[Client]:
        node = SocketNode(zmq_dealer(), f"test-{secrets.token_hex(4)}", connections=[self.router])
        async with Client(node, address="broker-service", timeout=PATIENCE) as client:
            yield client


def zmq_dealer() -> int:
    import zmq

    return int(zmq.DEALER)


@pytest.fixture
async def served(tmp_path: Path, nursery: trio.Nursery) -> Served:
    feed = GamepadFeed(BufferStore(catalog.load(), "", shared=False))
    broker = Broker(Config(), feed, dict, state=tmp_path / "state", directory=tmp_path)
    ring = Keyring(tmp_path / "keys")
    node = VerifyingNode("127.0.0.1", 0, ring, required=False)
    controls = Controls(broker)
    await nursery.start(Service(node, controls).run)
    controls.answer_through(node)
    front, back = (f"ipc://{tmp_path}/{end}" for end in ("front", "back"))
    await nursery.start(Router([front], [back]).run)
    service = SocketNode(zmq_dealer(), "broker-service", connections=[back])
    await nursery.start(Service(service, broker).run)
    nursery.start_soon(feed.run)
    return Served(feed, ring, node, front)


@pytest.mark.parametrize("names", [("blue", "red"), (None, None), ("blue", None), (None, "red")])
async def test_refused_station_receives_a_notice_and_takes_over(
    served: Served, names: tuple[str | None, str | None]
) -> None:
    driving = served.feed.driving
    async with served.station(names[0]):
        await served.until(lambda: driving.driver.is_live)
        first = driving.report().commander
        async with served.station(names[1], PUSHED) as second, served.caller() as user:
            await served.until(lambda: second.refused is not None)
            assert second.refused is not None
            assert second.refused.by == first
            assert not driving.driver.is_present or driving.report().commander == first
            await user.call.take_control(second.refused.you)
            await served.until(lambda: driving.driver.state == "waiting")
            assert driving.report().commander == second.refused.you
            if names[1]:
                assert second.refused.you == names[1]


async def test_refused_datagrams_draw_one_short_notice_per_second(served: Served) -> None:
    update = encode_gamepads({0: NEUTRAL})
    async with (
        DatagramNode("127.0.0.1", served.port, bind=False) as first,
        DatagramNode("127.0.0.1", served.port, bind=False) as second,
    ):
        await first.send(b"", update)
        await served.until(lambda: served.feed.updates == 1)
        sent = served.node.counters.sent
        begin = trio.current_time()
        for _ in range(50):
            await first.send(b"", update)
            await second.send(b"", update)
        await served.until(lambda: served.feed.driving.arbiter.refused == 50)
        seconds = trio.current_time() - begin
        with trio.fail_after(PATIENCE):
            _, notice = await second.recv()
        assert served.node.counters.sent - sent <= 1 + seconds
        assert len(notice) <= len(update)
        assert decode_refused(notice).by.startswith("127.0.0.1:")


async def test_forged_sources_draw_a_bounded_number_of_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    feed = GamepadFeed(BufferStore(catalog.load(), "", shared=False))
    feed.feed({0: NEUTRAL}, sender=Sender(key="blue", line="blue"))
    controls = Controls(Broker(Config(), feed, dict, state=tmp_path / "state", directory=tmp_path))
    node = VerifyingNode("127.0.0.1", 0, Keyring(tmp_path / "keys"), required=False)
    controls.answer_through(node)
    notified: list[bytes] = []
    monkeypatch.setattr(node, "send_refusal_notice", lambda source, _: notified.append(source))
    update = {"0": {"lx": 0.0, "ly": 0.0, "rx": 0.0, "ry": 0.0, "btn": 0}}
    for second in range(3):
        for number in range(1000):
            set_caller(Caller(SourceAddress(f"10.0.{second}.1:{number}".encode())))
            controls.update_gamepads(update)
        assert len(notified) == NOTICES_PER_SECOND * (second + 1)
        await trio.sleep(1.0)
    assert len(controls._notified) <= 256


async def test_refused_call_is_answered_with_the_reason(served: Served) -> None:
    state = {"lx": 0.0, "ly": 0.0, "rx": 0.0, "ry": 0.0, "btn": 0}
    async with served.station("blue"), served.caller() as user:
        await served.until(lambda: served.feed.driving.driver.is_live)
        with pytest.raises(
            RemoteCallError, match="blue has control of the robot, not test-"
        ) as caught:
            await user.call.update_gamepads({"0": state})
        assert caught.value.context["commander"] == "blue"
        report = await user.call.commander()
        assert (report["commander"], report["driver"]) == ("blue", "live")
        assert [each["station"] for each in report["refused"]] == [caught.value.context["station"]]
        report = await user.call.take_control()
        assert report["commander"] == caught.value.context["station"]
        await user.call.update_gamepads({"0": state})
        assert served.feed.driving.driver.is_live


async def test_one_run_may_mix_calls_and_datagrams(served: Served) -> None:
    state = {"lx": 0.0, "ly": 0.0, "rx": 0.0, "ry": 0.0, "btn": 0}
    async with served.caller() as user, DatagramNode("127.0.0.1", served.port, bind=False) as node:
        await user.call.update_gamepads({"0": state}, {"station": "run", "seq": 1})
        await node.send(b"", encode_gamepads({0: PUSHED}, Stamp("run", 2)))
        await served.until(lambda: served.feed.updates == 2)
        assert served.feed.driving.driver.is_live
        await user.call.update_gamepads({"0": state}, {"station": "run", "seq": 3})
    assert served.feed.driving.arbiter.refused == 0


async def test_released_control_goes_to_the_station_that_was_refused(served: Served) -> None:
    driving = served.feed.driving
    async with served.station("blue") as blue:
        await served.until(lambda: driving.driver.is_live)
        async with served.station("red") as red, served.caller() as user:
            await served.until(lambda: red.refused is not None)
            await user.call.release_control()
            await served.until(
                lambda: driving.driver.is_live and driving.report().commander == "red"
            )
            await served.until(lambda: blue.refused is not None and blue.refused.by == "red")
