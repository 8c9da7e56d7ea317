"""Calls that end early: time limits, cancellation, and disconnected callers and services."""

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

from rt.access.station_sockets import StationSide
from rt.errors import DeviceError, RemoteCallError
from rt.log import get_logger
from rt.protocol import rpc
from rt.remote import Client, Handler, Router, Service, SocketNode, route
from rt.remote.disconnects import Disconnects
from rt.remote.peer_tracker import RETURN_TIME, PeerTracker
from rt.transport.counters import RouterCounters
from rt.transport.zmq_socket import Socket

ADDRESS = "slow-service"


class Slow(Handler):
    """Methods that wait for `proceed`, and set an event at each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, trio.Event] = {
            name: trio.Event() for name in ("entered", "stopped", "finished")
        }
        self.proceed = trio.Event()
        self.thread = threading.Event()

    async def _wait(self) -> str:
        self.stages["entered"].set()
        try:
            await self.proceed.wait()
        except trio.Cancelled:
            self.stages["stopped"].set()
            raise
        self.stages["finished"].set()
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


class Setup:
    """A router, a service and a client."""

    def __init__(self, client: Client, service: Service, router: Router) -> None:
        self.client = client
        self.service = service
        self.router = router

    def new_client(self, name: str = "") -> Client:
        return Client(
            SocketNode(zmq.DEALER, name, connections=self.router.frontends),
            address=ADDRESS,
            timeout=20,
        )


@asynccontextmanager
async def serving(
    tmp_path: Path, handler: Handler, *, return_time: float = RETURN_TIME, **options: Any
) -> AsyncIterator[Setup]:
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            router = Router(
                [f"ipc://{tmp_path}/f"], [f"ipc://{tmp_path}/b"], return_time=return_time
            )
            await nursery.start(router.run)
            service = Service(
                SocketNode(zmq.DEALER, ADDRESS, connections=router.backends), handler, **options
            )
            await nursery.start(service.run)
            node = SocketNode(zmq.DEALER, "test-client", connections=router.frontends)
            async with Client(node, address=ADDRESS, timeout=10) as client:
                yield Setup(client, service, router)
            nursery.cancel_scope.cancel()


async def test_cancelled_call_stops_its_method(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(here.client.call.wait)
            await handler.stages["entered"].wait()
            nursery.cancel_scope.cancel()
        await handler.stages["stopped"].wait()
        assert await here.client.call.quick() == 1
        assert here.service.counters.cancelled == 1
        assert not here.service._running


async def test_timed_out_call_stops_its_method(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        with pytest.raises(RemoteCallError, match="did not answer wait within"):
            await here.client.call.wait(timeout=0.05)
        await handler.stages["stopped"].wait()


async def test_waiting_call_is_removed_when_cancelled(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler, concurrency=1) as here, trio.open_nursery() as nursery:
        nursery.start_soon(here.client.call.wait)
        await handler.stages["entered"].wait()
        with pytest.raises(RemoteCallError):
            await here.client.call.wait(timeout=0.02)
        while here.service.counters.cancelled == 0:
            await here.client.call.quick()
        assert here.service._open == 1
        handler.proceed.set()


async def test_urgent_call_completes_without_its_caller(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler, limit=0.01) as here:
        with pytest.raises(RemoteCallError):
            await here.client.call.halt(timeout=0.05)
        assert await here.client.call.quick() == 1
        handler.proceed.set()
        await handler.stages["finished"].wait()
        assert not handler.stages["stopped"].is_set()


async def test_service_answers_cancelled_call_and_ignores_invalid_protocol_messages(
    tmp_path: Path,
) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        node = SocketNode(zmq.DEALER, "bare", connections=here.router.frontends)
        async with node:

            async def send(message: rpc.Envelope) -> None:
                await node.send(ADDRESS.encode(), rpc.encode(message))

            await send(rpc.Request(7, "wait", []))
            await handler.stages["entered"].wait()
            for params in ([], ["7"], [8], [7, 7], [[7]], [-1], [None]):
                await send(rpc.Notification("$cancel", params))
            await send(rpc.Notification("$gone", [b"bare"]))  # only valid from a router
            await send(rpc.Notification("$trace", [1]))
            await send(rpc.Request(8, "quick", []))
            assert rpc.decode((await node.recv())[1]) == rpc.Response(8, None, 1)
            await send(rpc.Notification("$cancel", [7]))
            answer = rpc.decode((await node.recv())[1])
            assert isinstance(answer, rpc.Response)
            assert answer.error is not None
            assert answer.error[0] == "wait was stopped: its caller cancelled it"
        assert here.service.counters.errors == 1


async def test_peer_cannot_cancel_the_call_of_another(tmp_path: Path) -> None:
    handler = Slow()
    async with (
        serving(tmp_path, handler) as here,
        here.new_client() as stranger,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(here.client.call.wait)
        await handler.stages["entered"].wait()
        (number,) = here.client._calls
        await stranger.issue_call("$cancel", number, notification=True)
        assert await stranger.call.quick() == 1
        assert not handler.stages["stopped"].is_set()
        handler.proceed.set()


@pytest.mark.parametrize("name", ["", "named"])
async def test_method_stops_when_its_caller_disconnects(tmp_path: Path, name: str) -> None:
    handler = Slow()
    async with serving(tmp_path, handler, return_time=0.05) as here:
        async with SocketNode(zmq.DEALER, name, connections=here.router.frontends) as node:
            await node.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "wait", [])))
            await handler.stages["entered"].wait()
        await handler.stages["stopped"].wait()
        assert await here.client.call.quick() == 1
        assert here.router.counters.gone == 1
        assert len(here.router._peer_tracker) == 2  # the client and the service


async def test_caller_that_reconnects_in_time_keeps_its_call(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler, return_time=0.2) as here:
        async with SocketNode(zmq.DEALER, "named", connections=here.router.frontends) as node:
            await node.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "wait", [])))
            await handler.stages["entered"].wait()
        async with SocketNode(zmq.DEALER, "named", connections=here.router.frontends) as again:
            await again.send(b"", b"")
            assert await again.recv() == (b"", b"")  # a hello, which the router may also send
            await trio.sleep(0.4)
            assert not handler.stages["stopped"].is_set()
            handler.proceed.set()
            while not (answer := await again.recv())[1]:
                pass
            assert (answer[0], rpc.decode(answer[1])) == (
                ADDRESS.encode(),
                rpc.Response(1, None, "done"),
            )
        assert here.router.counters.gone == 0


@pytest.mark.parametrize("method", ["short", "short_thread"])
async def test_method_that_exceeds_its_time_limit_is_stopped(tmp_path: Path, method: str) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here:
        with pytest.raises(
            RemoteCallError, match=rf"{method} was stopped .* its time limit of 0\.02 s"
        ) as caught:
            await here.client.call[method]()
        assert caught.value.context == {"method": method, "limit": 0.02}
        assert here.service.counters.timed_out == 1
        assert await here.client.call.quick() == 1
        handler.thread.set()


async def test_service_limits_routes_without_a_limit(autojump_clock: MockClock) -> None:
    service = Service(SocketNode(zmq.DEALER, ADDRESS), handler := Slow(), limit=30)
    with pytest.raises(RemoteCallError, match="limit of 30 s"):
        await service._invoke(handler.routes()["wait"], [])
    assert trio.current_time() >= 30


@pytest.mark.parametrize(
    ("inline", "limit"), [(False, 0.0), (False, -1.0), (False, float("nan")), (True, 1.0)]
)
def test_invalid_limit_is_refused(inline: bool, limit: float) -> None:
    with pytest.raises(ValueError, match="invalid limit"):

        @route(inline=inline, limit=limit)
        def method() -> None: ...


class Front(Handler):
    """A service that calls another one."""

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


async def test_error_keeps_its_context_through_another_service(tmp_path: Path) -> None:
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


async def test_connection_numbers_of_the_two_sides_are_independent(tmp_path: Path) -> None:
    # The kernel reuses the number of a closed connection before the router has seen either event.
    with Socket(zmq.ROUTER) as front, Socket(zmq.ROUTER) as back:
        tracker = PeerTracker(
            front, back, StationSide({}), {}, RouterCounters(), logger=get_logger(), public={}
        )
        assert tracker.disconnects_of(back).record(7, b"device-service") is None
        assert tracker.disconnects_of(front).record(7, b"caller") is None
        assert tracker.disconnects_of(back).remove([7]) == [b"device-service"]
        assert len(tracker) == 1


async def test_peer_whose_connection_number_is_reused_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[bytes] = []
    monkeypatch.setattr(PeerTracker, "report_gone", lambda _self, gone: reported.extend(gone))
    monkeypatch.setattr(
        Disconnects, "record", lambda _self, _connection, identity: b"before " + identity
    )
    async with serving(tmp_path, Slow()):
        assert reported == [b"before " + ADDRESS.encode()]


events = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([b"", b"a", b"b", b"c"])))


@given(events)
def test_identity_is_gone_exactly_when_its_newest_connection_is(
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
            replaced = disconnects.record(connection, identity)
            assert ([replaced] if replaced else []) == gone
            if before != identity:
                open_[connection] = identity
                newest[identity] = connection
        else:
            assert disconnects.remove([connection]) == gone
            open_.pop(connection, None)
        for each in gone:
            if newest.get(each) == connection:
                del newest[each]
        assert len(disconnects) == len(open_)


async def test_call_to_an_exited_service_ends_at_once_and_others_continue(tmp_path: Path) -> None:
    handler, mortal = Slow(), Slow()
    async with serving(tmp_path, handler) as here, trio.open_nursery() as callers:

        async def call() -> None:
            with pytest.raises(
                RemoteCallError,
                match=r"mortal-service exited before it answered wait; see `rt logs`",
            ):
                await here.client.call.wait(address="mortal-service", timeout=1000)

        async with trio.open_nursery() as nursery:
            node = SocketNode(zmq.DEALER, "mortal-service", connections=here.router.backends)
            await nursery.start(Service(node, mortal).run)
            callers.start_soon(here.client.call.wait)
            callers.start_soon(call)
            await handler.stages["entered"].wait()
            await mortal.stages["entered"].wait()
            nursery.cancel_scope.cancel()
        while len(here.client._calls) == 2:
            assert await here.client.call.quick() == 1
        assert not handler.stages["stopped"].is_set()
        handler.proceed.set()


async def test_impostor_of_a_service_does_not_end_its_calls_by_leaving(tmp_path: Path) -> None:
    handler = Slow()
    async with serving(tmp_path, handler) as here, trio.open_nursery() as callers:
        callers.start_soon(here.client.call.wait)
        await handler.stages["entered"].wait()
        async with SocketNode(zmq.DEALER, ADDRESS, connections=here.router.frontends) as impostor:
            await impostor.send(b"test-client", b"?")
        async with here.new_client() as stranger:
            assert await stranger.call.quick() == 1
        while here.router.counters.gone == 0:  # the stranger left after the impostor
            assert await here.client.call.quick() == 1
        assert len(here.client._calls) == 1
        handler.proceed.set()


async def test_only_peers_that_announced_it_get_disconnect_notifications(tmp_path: Path) -> None:
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
                async with here.new_client() as stranger:
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


async def test_foreign_peer_that_reconnects_silently_is_sent_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path, Slow(), return_time=0.2) as here:
        assert await here.client.call.quick() == 1
        async with SocketNode(zmq.DEALER, "foreign", connections=here.router.frontends) as node:
            await node.send(ADDRESS.encode(), rpc.encode(rpc.Request(1, "quick", [])))
            await node.recv()
        while len(here.router._peer_tracker) > 2:  # the client and the service
            assert await here.client.call.quick() == 1
        async with SocketNode(zmq.DEALER, "foreign", connections=here.router.frontends) as again:
            while here.router.counters.gone < 1:
                assert await here.client.call.quick() == 1
            await again.send(ADDRESS.encode(), rpc.encode(rpc.Request(2, "quick", [])))
            assert await again.recv() == (ADDRESS.encode(), rpc.encode(rpc.Response(2, None, 1)))


async def test_announcement_ends_with_its_connection(tmp_path: Path) -> None:
    async with serving(tmp_path, Slow()) as here:
        assert await here.client.call.quick() == 1
        tracker = here.router._peer_tracker
        assert tracker is not None
        while not tracker._understands(b"test-client"):
            assert await here.client.call.quick() == 1
        assert tracker._understands(ADDRESS.encode())
        async with SocketNode(zmq.DEALER, "twin", connections=here.router.frontends) as node:
            await node.send(b"", rpc.HELLO_MESSAGE)
            assert await node.recv() == (b"", b"")
            assert tracker._understands(b"twin")
            async with SocketNode(zmq.DEALER, "twin", connections=here.router.frontends) as foreign:
                await foreign.send(b"", b"")
                assert await foreign.recv() == (b"", b"")
                assert not tracker._understands(b"twin")
        async with here.new_client() as stranger:
            assert await stranger.call.quick() == 1
        while len(tracker._announced) > 2:
            assert await here.client.call.quick() == 1
        assert set(tracker._announced) == {b"test-client", ADDRESS.encode()}


@pytest.mark.parametrize(
    "payload",
    [
        rpc.encode(rpc.Notification("$hello", [])),
        rpc.encode(rpc.Notification("$hello", [7, None, ["$gone"], {"$gone": 1}])),
        rpc.encode(rpc.Notification("$hello", ["$gone", "x" * 2000])),
    ],
)
async def test_hello_with_unknown_features_is_answered(tmp_path: Path, payload: bytes) -> None:
    async with (
        serving(tmp_path, Slow()) as here,
        SocketNode(zmq.DEALER, "odd", connections=here.router.frontends) as node,
    ):
        await node.send(b"", payload)
        assert await node.recv() == (b"", b"")
        assert b"odd" not in here.router._peer_tracker._announced


@pytest.mark.parametrize(
    "payload", [b"\xc1", b"\x93\x02\xa6$hello\xc1", b"\x93\x02\xa6$hello", b"x" * 9000]
)
async def test_malformed_hello_is_dropped(tmp_path: Path, payload: bytes) -> None:
    async with (
        serving(tmp_path, Slow()) as here,
        SocketNode(zmq.DEALER, "odd", connections=here.router.frontends) as node,
    ):
        await node.send(b"", payload)
        await node.send(b"", b"")
        assert await node.recv() == (b"", b"")
        assert await here.client.call.quick() == 1
