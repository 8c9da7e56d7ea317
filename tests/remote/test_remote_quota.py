"""Quotas: a flooding peer is refused, while other peers are served."""

from pathlib import Path

import pytest
import trio
import zmq
from hypothesis import given
from hypothesis import strategies as st
from support.serving import ADDRESS, robot

from rt.errors import RemoteCallError
from rt.protocol import rpc
from rt.remote import Client, Handler, SocketNode, quota, route
from rt.remote.quota import Quota


class Busy(Handler):
    def __init__(self) -> None:
        self.proceed = trio.Event()

    @route(inline=True)
    def quick(self) -> int:
        return 1

    @route
    async def wait(self) -> None:
        await self.proceed.wait()

    @route(urgent=True)
    async def halt(self) -> int:
        await trio.lowlevel.checkpoint()
        return 2


@given(st.lists(st.tuples(st.sampled_from(["send", "answer"]), st.floats(0, 0.01)), max_size=1200))
def test_unanswered_messages_are_bounded(steps: list[tuple[str, float]]) -> None:
    counted, now, passed, answers = Quota(), 0.0, 0, 0
    for step, later in steps:
        now += later
        if step == "answer":
            counted.record_answer(b"peer")
            answers += 1
        else:
            passed += counted.spend(b"peer", now)
    assert passed <= quota.MAX_UNANSWERED + answers + now * quota.RATE + 1
    assert counted.spend(b"other", now)


@given(st.integers(1, quota.MAX_UNANSWERED))
def test_peer_that_waits_for_responses_is_never_refused(pending: int) -> None:
    counted = Quota()
    for _ in range(20):
        assert all(counted.spend(b"peer", 0.0) for _ in range(pending))
        for _ in range(pending):
            counted.record_answer(b"peer")


def test_number_of_counted_peers_is_bounded() -> None:
    counted = Quota()
    for number in range(quota.PEERS_MAX + 10):
        assert counted.spend(str(number).encode(), 0.0)
    assert len(counted) == quota.PEERS_MAX
    counted.forget(b"4000")
    counted.forget(b"never there")
    assert len(counted) == quota.PEERS_MAX - 1


async def test_flooding_peer_is_refused_while_another_is_served(tmp_path: Path) -> None:
    handler = Busy()
    async with robot(tmp_path, handler, quota=Quota(rate=0.0)) as (client, serving):
        other_node = SocketNode(zmq.DEALER, "other", connections=[f"ipc://{tmp_path}/f"])
        async with Client(other_node, address=ADDRESS, timeout=20) as other:
            assert await other.call.quick() == await client.call.quick() == 1
            assert isinstance(client.node, SocketNode)
            for _ in range(900):
                client.node.send_nowait(ADDRESS.encode(), rpc.encode(rpc.Notification("wait", [])))
            with pytest.raises(
                RemoteCallError,
                match="128 messages of this peer are unanswered; wait for the responses",
            ):
                await client.call.quick()
            assert await other.call.halt() == 2
            for _ in range(2 * quota.MAX_UNANSWERED):
                assert await other.call.quick() == 1
            assert serving.counters.calls == quota.MAX_UNANSWERED + 1 + 2 + 2 * quota.MAX_UNANSWERED
            handler.proceed.set()
