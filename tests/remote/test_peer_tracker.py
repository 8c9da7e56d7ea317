"""Nobody works for somebody who does not wait: time limits, cancelled calls, and callers that have gone."""

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from rt.errors import DeviceError, RemoteCallError
from rt.log import get_logger
from rt.protocol import rpc
from rt.remote import Client, Handler, Router, Service, SocketNode, peer_tracker, route
from rt.remote.disconnects import Disconnects
from rt.transport.counters import RouterCounters
from rt.transport.zmq_socket import Socket

ADDRESS = "slow-service"


class Slow(Handler):
    """Methods that take their time, and say how they went."""

    def __init__(self) -> None:
        self.news: dict[str, trio.Event] = {
            name: trio.Event() for name in ("entered", "stopped", "finished")
        }
        self.authenticator = trio.Event()
        self.thread = threading.Event()

    async def _wait(self) -> str:
        self.news["entered"].set()
        try:
            await self.authenticator.wait()
        except trio.Cancelled:
            self.news["stopped"].set()
            raise
        self.news["finished"].set()
        return "done"

    @route
    async def wait(self) -> str:
        return await self._wait()

    @route(urgent=True)
    async def halt(self) -> str:
        return await self._wait()

    @route(limit=0.02)
    async def short(self) -> str:
        return await self._wait()

    @route(limit=0.02)
    def short_thread(self) -> None:
        self.thread.wait()

    @route(inline=True)
    def quick(self) -> int:
        return 1


class Here:
    """A router, a service and a client of it."""

    def __init__(self, client: Client, service: Service, router: Router) -> None:
        self.client = client
        self.service = service
        self.router = router

    def visitor(self, name: str = "") -> Client:
        return Client(
            SocketNode(zmq.DEALER, name, connections=self.router.frontends),
            address=ADDRESS,
            timeout=20,
        )


@asynccontextmanager
async def serving(tmp_path: Path, handler: Handler, **options: Any) -> AsyncIterator[Here]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            router = Router([f"ipc://{tmp_path}/f"], [f"ipc://{tmp_path}/b"])
            await nursery.start(router.run)
            service = Service(
                SocketNode(zmq.DEALER, ADDRESS, connections=router.backends), handler, **options
            )
            await nursery.start(service.run)
            node = SocketNode(zmq.DEALER, "test-client", connections=router.frontends)
            async with Client(node, address=ADDRESS, timeout=10) as client:
                yield Here(client, service, router)
            nursery.cancel_scope.cancel()


async def test_a_call_that_is_cancelled_stops_its_method(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.client.call.wait)
            await handler.news["entered"].wait()
            nursery.cancel_scope.cancel()
        await handler.news["stopped"].wait()
        assert await here.client.call.quick() == 1
        assert here.service.counters.cancelled == 1
        assert not here.service._running


async def test_a_call_that_nobody_waits_for_any_more_stops_its_method(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        with pytest.raises(RemoteCallError, match="did not answer wait within"):
            await here.client.call.wait(timeout=0.05)
        await handler.news["stopped"].wait()


async def test_a_call_that_waits_for_its_turn_is_forgotten_when_it_is_cancelled(
    tmp_path: Path,
) -> None:
    handler = Slow()
    async with serving(tmp_path, handler, concurrency=1) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.client.call.wait)
        await handler.news["entered"].wait()
        with pytest.raises(RemoteCallError):
            await here.client.call.wait(timeout=0.02)
        while here.service.counters.cancelled == 0:
            await here.client.call.quick()
        assert here.service._open == 1
        handler.authenticator.set()


async def test_what_is_urgent_ends_although_its_caller_does_not_wait(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler, limit=0.01) as here:
        with pytest.raises(RemoteCallError):
            await here.client.call.halt(timeout=0.05)
        assert await here.client.call.quick() == 1
        handler.authenticator.set()
        await handler.news["finished"].wait()
        assert not handler.news["stopped"].is_set()


async def test_a_service_answers_what_is_taken_back_and_ignores_what_it_does_not_know(
    tmp_path: Path,
) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        node = SocketNode(zmq.DEALER, "bare", connections=here.router.frontends)
        async with node:

            async def say(message: rpc.Envelope) -> None:
                await node.send(ADDRESS.encode(), rpc.encode(message))

            await say(rpc.Request(7, "wait", []))
            await handler.news["entered"].wait()
            for params in ([], ["7"], [8], [7, 7], [[7]], [-1], [None]):
                await say(rpc.Notification("$cancel", params))
            await say(rpc.Notification("$gone", [b"bare"]))  # only a router may say so
            await say(rpc.Notification("$trace", [1]))
            await say(rpc.Request(8, "quick", []))
            assert rpc.decode((await node.recv())[1]) == rpc.Response(8, None, 1)
            await say(rpc.Notification("$cancel", [7]))
            answer = rpc.decode((await node.recv())[1])
            assert isinstance(answer, rpc.Response)
            assert answer.error is not None
            assert answer.error[0] == "wait was stopped: its caller does not wait any more"
        assert here.service.counters.errors == 1


async def test_nobody_can_take_back_the_call_of_another(tmp_path: Path) -> None:
    handler = Slow()
    async with (
        serving(tmp_path, handler) as here,
        here.visitor() as stranger,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(here.client.call.wait)
        await handler.news["entered"].wait()
        (number,) = here.client._calls
        await stranger.issue_call("$cancel", number, notification=True)
        assert await stranger.call.quick() == 1
        assert not handler.news["stopped"].is_set()
        handler.authenticator.set()


@pytest.mark.parametrize("name", ["", "named"])
async def test_a_method_stops_when_its_caller_has_gone(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_tracker, "RETURN_TIME", 0.05)
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        async with SocketNode(zmq.DEALER, name, connections=here.router.frontends) as node:
            await node.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "wait", [])))
            await handler.news["entered"].wait()
        await handler.news["stopped"].wait()
        assert await here.client.call.quick() == 1
        assert here.router.counters.gone == 1
        assert here.router._peer_tracker is not None
        assert len(here.router._peer_tracker) == 2  # the client and the service are still there


async def test_a_caller_that_comes_back_in_time_has_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_tracker, "RETURN_TIME", 0.2)
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        async with SocketNode(zmq.DEALER, "named", connections=here.router.frontends) as node:
            await node.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "wait", [])))
            await handler.news["entered"].wait()
        async with SocketNode(zmq.DEALER, "named", connections=here.router.frontends) as again:
            await again.send(b"", b"")
            assert await again.recv() == (b"", b"")  # it is there; the router may ask so too
            await trio.sleep(2 * peer_tracker.RETURN_TIME)
            assert not handler.news["stopped"].is_set()
            handler.authenticator.set()
            while not (answer := await again.recv())[1]:
                pass
            assert (answer[0], rpc.decode(answer[1])) == (
                ADDRESS.encode(),
                rpc.Response(1, None, "done"),
            )
        assert here.router.counters.gone == 0


@pytest.mark.parametrize("method", ["short", "short_thread"])
async def test_a_method_that_runs_longer_than_its_limit_is_stopped_and_says_so(
    tmp_path: Path, method: str
) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        with pytest.raises(
            RemoteCallError, match=rf"{method} was stopped: .* its limit of 0\.02 s"
        ) as caught:
            await here.client.call[method]()
        assert caught.value.context == {"method": method, "limit": 0.02}
        assert here.service.counters.timed_out == 1
        assert await here.client.call.quick() == 1
        handler.thread.set()


async def test_a_service_has_a_limit_for_routes_that_have_none(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    service = Service(SocketNode(zmq.DEALER, ADDRESS), handler := Slow(), limit=30)
    with pytest.raises(RemoteCallError, match="limit of 30 s"):
        await service._invoke(handler.routes()["wait"], [])
    assert trio.current_time() >= 30


@pytest.mark.parametrize(
    ("inline", "limit"), [(False, 0.0), (False, -1.0), (False, float("nan")), (True, 1.0)]
)
def test_a_limit_that_cannot_be_kept_is_refused(inline: bool, limit: float) -> None:
    with pytest.raises(ValueError, match="cannot have the limit"):

        @route(inline=inline, limit=limit)
        def method() -> None: ...


class Front(Handler):
    """A service that asks another one."""

    def __init__(self) -> None:
        self.client: Client | None = None

    @route
    async def ask(self, method: str) -> object:
        assert self.client is not None
        return await self.client.issue_call(method)


class Failing(Handler):
    @route
    async def fail(self) -> None:
        raise DeviceError(
            "the device 7 is gone: ünder",
            uid="7",
            tries=3,
            ports=["a", None, 1.5],
            last={"ok": False},
        )


async def test_an_error_travels_whole_through_a_service_in_between(tmp_path: Path) -> None:
    async with serving(tmp_path, Failing()) as here:
        front = Front()
        front.client = here.client
        async with trio.open_nursery() as nursery:
            node = SocketNode(zmq.DEALER, "front-service", connections=here.router.backends)
            await nursery.start(Service(node, front).run)
            with pytest.raises(RemoteCallError, match=r"^the device 7 is gone: ünder$") as caught:
                await here.client.call.ask("fail", address="front-service")
            assert caught.value.context == {
                "uid": "7",
                "tries": 3,
                "ports": ["a", None, 1.5],
                "last": {"ok": False},
            }
            with pytest.raises(
                RemoteCallError, match="no method fial; did you mean fail"
            ) as caught:
                await here.client.call.ask("fial", address="front-service")
            nursery.cancel_scope.cancel()


async def test_a_number_of_one_side_is_not_that_of_the_other(tmp_path: Path) -> None:
    # The system gives the number of a connection that was closed to the next one, before the router
    # has heard of either.
    with Socket(zmq.ROUTER) as front, Socket(zmq.ROUTER) as back:
        leaving = peer_tracker.PeerTracker(front, back, {}, RouterCounters(), get_logger())
        assert leaving.disconnects_of(back).record(7, b"device-service") is None
        assert leaving.disconnects_of(front).record(7, b"caller") is None
        assert leaving.disconnects_of(back).closed([7]) == [b"device-service"]
        assert len(leaving) == 1


async def test_whose_number_a_new_service_has_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []
    monkeypatch.setattr(
        peer_tracker.PeerTracker, "take_leave", lambda _self, gone: told.extend(gone)
    )
    monkeypatch.setattr(
        Disconnects, "record", lambda _self, _connection, identity: b"before " + identity
    )
    async with serving(tmp_path, Slow()):
        assert told == [b"before " + ADDRESS.encode()]


events = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"", b"a", b"b", b"c"])))


@given(events)
def test_an_identity_is_gone_exactly_when_its_last_connection_is(
    story: list[tuple[int, bytes]],
) -> None:
    disconnects = Disconnects()
    open_: dict[int, bytes] = {}
    newest: dict[bytes, int] = {}
    for connection, identity in story:
        before = open_.get(connection)
        gone = (
            [before] if before and before != identity and newest.get(before) == connection else []
        )
        if identity:
            said = disconnects.record(connection, identity)
            assert ([said] if said else []) == gone
            if before != identity:
                open_[connection] = identity
                newest[identity] = connection
        else:
            assert disconnects.closed([connection]) == gone
            open_.pop(connection, None)
        for each in gone:
            if newest.get(each) == connection:
                del newest[each]
        assert len(disconnects) == len(open_)


async def test_a_call_of_a_service_that_has_gone_ends_at_once_and_others_go_on(
    tmp_path: Path,
) -> None:
    handler, mortal = Slow(), Slow()
    async with serving(tmp_path, handler) as here, trio.open_nursery() as callers:

        async def call() -> None:
            with pytest.raises(
                RemoteCallError,
                match=r"mortal-service has ended without an answer to wait; `rt logs`",
            ):
                await here.client.call.wait(address="mortal-service", timeout=1000)

        async with trio.open_nursery() as nursery:
            node = SocketNode(zmq.DEALER, "mortal-service", connections=here.router.backends)
            await nursery.start(Service(node, mortal).run)
            callers.start_soon(here.client.call.wait)
            callers.start_soon(call)
            await handler.news["entered"].wait()
            await mortal.news["entered"].wait()
            nursery.cancel_scope.cancel()
        while len(here.client._calls) == 2:
            assert await here.client.call.quick() == 1
        assert not handler.news["stopped"].is_set()
        handler.authenticator.set()


async def test_nobody_ends_the_calls_of_a_service_by_leaving_in_its_name(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here, trio.open_nursery() as callers:
        callers.start_soon(here.client.call.wait)
        await handler.news["entered"].wait()
        async with SocketNode(zmq.DEALER, ADDRESS, connections=here.router.frontends) as impostor:
            await impostor.send(b"test-client", b"?")
        async with here.visitor() as stranger:
            assert await stranger.call.quick() == 1
        while here.router.counters.gone == 0:  # the stranger left after the impostor
            assert await here.client.call.quick() == 1
        assert len(here.client._calls) == 1
        handler.authenticator.set()


async def test_only_peers_that_have_announced_it_are_told_who_has_gone(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here, trio.open_nursery() as nursery:
        foreign = SocketNode(zmq.DEALER, "foreign", connections=here.router.frontends)
        polite = SocketNode(zmq.DEALER, "polite", connections=here.router.frontends)
        foreign_service = SocketNode(
            zmq.DEALER, "foreign-service", connections=here.router.backends
        )
        async with foreign, polite, foreign_service:
            for node in (foreign, foreign_service):
                await node.send(b"", b"")
                assert await node.recv() == (b"", b"")
            await foreign.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "quick", [])))
            assert await foreign.recv() == (ADDRESS.encode(), rpc.encode(rpc.Response(1, None, 1)))
            await polite.send(b"", rpc.encode(rpc.Notification("$hello", ["$trace", "$gone"])))
            assert await polite.recv() == (b"", b"")

            async with trio.open_nursery() as mortals:
                node = SocketNode(zmq.DEALER, "mortal-service", connections=here.router.backends)
                await mortals.start(Service(node, Slow()).run)
                async with here.visitor() as stranger:
                    assert await stranger.call.quick() == 1
                mortals.cancel_scope.cancel()
            assert await polite.recv() == (
                b"",
                rpc.encode(rpc.Notification("$gone", [b"mortal-service"])),
            )
            while here.router.counters.gone < 1:  # the stranger
                assert await here.client.call.quick() == 1
            for node in (foreign, foreign_service):
                await node.send(b"", b"")
                assert await node.recv() == (b"", b"")  # and nothing before it
        nursery.cancel_scope.cancel()


async def test_a_foreign_peer_that_comes_back_silently_is_sent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_tracker, "RETURN_TIME", 0.2)
    async with serving(tmp_path, Slow()) as here:
        assert await here.client.call.quick() == 1
        async with SocketNode(zmq.DEALER, "foreign", connections=here.router.frontends) as node:
            await node.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "quick", [])))
            await node.recv()
        assert here.router._peer_tracker is not None
        while len(here.router._peer_tracker) > 2:  # the client and the service
            assert await here.client.call.quick() == 1
        async with SocketNode(zmq.DEALER, "foreign", connections=here.router.frontends) as again:
            while here.router.counters.gone < 1:
                assert await here.client.call.quick() == 1
            await again.send(ADDRESS.encode(), rpc.encode(rpc.Request(2, "quick", [])))
            assert await again.recv() == (ADDRESS.encode(), rpc.encode(rpc.Response(2, None, 1)))


async def test_an_announcement_ends_with_the_connection_that_it_came_over(tmp_path: Path) -> None:
    async with serving(tmp_path, Slow()) as here:
        assert await here.client.call.quick() == 1
        leaving = here.router._peer_tracker
        assert leaving is not None
        while not leaving._understands(b"test-client"):
            assert await here.client.call.quick() == 1
        assert leaving._understands(ADDRESS.encode())
        async with SocketNode(zmq.DEALER, "twin", connections=here.router.frontends) as node:
            await node.send(b"", rpc.ANNOUNCEMENT)
            assert await node.recv() == (b"", b"")
            assert leaving._understands(b"twin")
            async with SocketNode(zmq.DEALER, "twin", connections=here.router.frontends) as foreign:
                await foreign.send(b"", b"")
                assert await foreign.recv() == (b"", b"")
                assert not leaving._understands(b"twin")
        async with here.visitor() as stranger:
            assert await stranger.call.quick() == 1
        while len(leaving._informed) > 2:
            assert await here.client.call.quick() == 1
        assert set(leaving._informed) == {b"test-client", ADDRESS.encode()}


@pytest.mark.parametrize(
    "payload",
    [
        rpc.encode(rpc.Notification("$hello", [])),
        rpc.encode(rpc.Notification("$hello", [7, None, ["$gone"], {"$gone": 1}])),
        rpc.encode(rpc.Notification("$hello", ["$gone", "x" * 2000])),
    ],
)
async def test_a_hello_without_a_known_name_is_a_hello(tmp_path: Path, payload: bytes) -> None:
    async with (
        serving(tmp_path, Slow()) as here,
        SocketNode(zmq.DEALER, "odd", connections=here.router.frontends) as node,
    ):
        await node.send(b"", payload)
        assert await node.recv() == (b"", b"")
        assert here.router._peer_tracker is not None
        assert b"odd" not in here.router._peer_tracker._informed


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x93\x02\xa6$hello\xc1", b"\x93\x02\xa6$hello", b"x" * 9000]
)
async def test_bytes_to_the_router_that_are_no_hello_are_dropped(
    tmp_path: Path, payload: bytes
) -> None:
    async with (
        serving(tmp_path, Slow()) as here,
        SocketNode(zmq.DEALER, "odd", connections=here.router.frontends) as node,
    ):
        await node.send(b"", payload)
        await node.send(b"", b"")
        assert await node.recv() == (b"", b"")
        assert await here.client.call.quick() == 1
