"""A peer that floods a router is refused; one that waits for its answers is not, and neither are the others."""

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
        self.authenticator = trio.Event()

    @route(inline=True)
    def quick(self) -> int:
        return 1

    @route
    async def wait(self) -> None:
        await self.authenticator.wait()

    @route(urgent=True)
    async def halt(self) -> int:
        await trio.lowlevel.checkpoint()
        return 2


@given(st.lists(st.tuples(st.sampled_from(["send", "answer"]), st.floats(0, 0.01)), max_size=1200))
def test_what_passes_is_what_was_answered_and_a_bounded_rest(
    steps: list[tuple[str, float]],
) -> None:
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
def test_a_peer_that_waits_for_its_answers_is_never_refused(under_way: int) -> None:
    counted = Quota()
    for _ in range(20):
        assert all(counted.spend(b"peer", 0.0) for _ in range(under_way))
        for _ in range(under_way):
            counted.record_answer(b"peer")


def test_the_number_of_counted_peers_is_bounded() -> None:
    counted = Quota()
    for number in range(quota.PEERS_MAX + 10):
        assert counted.spend(str(number).encode(), 0.0)
    assert len(counted) == quota.PEERS_MAX
    counted.forget(b"4000")
    counted.forget(b"never there")
    assert len(counted) == quota.PEERS_MAX - 1


async def test_a_flooding_peer_is_refused_at_the_router_and_another_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "RATE", 0.0)
    handler = Busy()
    async with robot(tmp_path, handler) as (client, serving):
        other_node = SocketNode(zmq.DEALER, "other", connections=[f"ipc://{tmp_path}/f"])
        async with Client(other_node, address=ADDRESS, timeout=20) as other:
            assert await other.call.quick() == await client.call.quick() == 1
            assert isinstance(client.node, SocketNode)
            for _ in range(900):
                client.node.send_nowait(ADDRESS.encode(), rpc.encode(rpc.Notification("wait", [])))
            with pytest.raises(
                RemoteCallError,
                match="128 messages of this peer are unanswered; wait for the answers",
            ):
                await client.call.quick()
            assert await other.call.halt() == 2
            for _ in range(2 * quota.MAX_UNANSWERED):
                assert await other.call.quick() == 1
            assert serving.counters.calls == quota.MAX_UNANSWERED + 1 + 2 + 2 * quota.MAX_UNANSWERED
            handler.authenticator.set()
