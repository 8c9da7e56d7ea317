"""The router: delivery, errors for absent recipients, and robustness against malformed input."""

import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio
import zmq

import rt
from rt.errors import InstanceBusyError, RemoteCallError
from rt.protocol import rpc
from rt.remote import Client, Handler, Router, Service, SocketNode, route
from rt.remote.quota import Quota
from rt.remote.router import IMMEDIATE_MAX
from rt.transport.zmq_socket import Socket


class Echo(Handler):
    @route
    async def echo(self, value: object) -> object:
        return value


@contextlib.asynccontextmanager
async def routing(*frontends: str, backend: str) -> AsyncIterator[tuple[Router, trio.Nursery]]:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            router = Router(frontends, [backend])
            await nursery.start(router.run)
            yield router, nursery
            nursery.cancel_scope.cancel()


def echo_service(address: str, name: str = "echo-service") -> Service:
    return Service(SocketNode(zmq.DEALER, name, connections=[address]), Echo())


@pytest.mark.parametrize("kind", ["ipc", "inproc", "tcp"])
async def test_call_works_over_every_transport(kind: str, tmp_path: Path) -> None:
    front, back = {
        "ipc": (f"ipc://{tmp_path}/f", f"ipc://{tmp_path}/b"),
        "inproc": (f"inproc://{tmp_path}/f", f"inproc://{tmp_path}/b"),
        "tcp": ("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"),
    }[kind]
    async with routing(front, backend=back) as (router, nursery):
        await nursery.start(echo_service(router.backends[0]).run)
        async with Client(
            SocketNode(zmq.DEALER, "a-client", connections=router.frontends)
        ) as client:
            assert await client.call.echo(["x", 1], address="echo-service") == ["x", 1]


async def test_frontend_listens_at_several_addresses(tmp_path: Path) -> None:
    async with routing(
        "tcp://127.0.0.1:*", f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b"
    ) as (router, nursery):
        await nursery.start(echo_service(router.backends[0]).run)
        for address in router.frontends:
            async with Client(
                SocketNode(zmq.DEALER, connections=[address]), address="echo-service"
            ) as client:
                assert await client.call.echo(address) == address


async def test_peers_call_each_other_across_and_within_sides(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        await nursery.start(echo_service(router.backends[0]).run)
        await nursery.start(echo_service(router.frontends[0], "friend").run)
        for address in (*router.backends, *router.frontends):
            async with Client(SocketNode(zmq.DEALER, connections=[address])) as client:
                assert await client.call.echo(1, address="echo-service") == 1
                assert await client.call.echo(2, address="friend") == 2


async def test_frontend_peer_cannot_use_the_name_of_a_service(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        options: dict[int, int | bytes] = {zmq.ROUTING_ID: b"echo-service"}
        with Socket(zmq.DEALER, options=options) as thief:
            thief.connect(router.frontends[0])
            await thief.send((b"", b""))
            await thief.recv()
            async with Client(
                SocketNode(zmq.DEALER, "a-client", connections=router.frontends)
            ) as client:
                with pytest.raises(RemoteCallError, match="there is no service echo-service"):
                    await client.call.echo(1, address="echo-service", timeout=20)
                call_id, _ = client._open_call(b"echo-service")
                await thief.send((b"a-client", rpc.encode(rpc.Response(call_id, None, "a lie"))))
                await thief.send((b"a-client", rpc.encode(rpc.Request(1, "x", []))))
                answer = rpc.decode((await thief.recv())[1])
                assert isinstance(answer, rpc.Response)
                assert answer.error == (
                    "cannot send to a-client as echo-service: services must connect to the backend",
                    {"address": "a-client", "method": "x"},
                )
                assert client._calls[call_id].answer is None
                await nursery.start(echo_service(router.backends[0]).run)
                assert await client.call.echo(1, address="echo-service", timeout=20) == 1


async def test_call_to_unknown_service_fails_at_once_with_suggestion(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        await nursery.start(echo_service(router.backends[0]).run)
        async with Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client:
            # The time limit of the call exceeds that of the test, so only a response can end it.
            with pytest.raises(
                RemoteCallError, match="no service ecko-service; did you mean echo-service"
            ) as caught:
                await client.call.ping(address="ecko-service", timeout=100)
            assert caught.value.context == {"address": "ecko-service", "method": "ping"}
        assert router.counters.answered == 1


@pytest.mark.parametrize("name", ["executor-service", "device-service", "broker-service"])
async def test_error_for_absent_service_of_the_robot_suggests_no_other(
    tmp_path: Path, name: str
) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        other = SocketNode(zmq.DEALER, "evice-service", connections=router.backends)
        await nursery.start(Service(other, Echo()).run)
        async with Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client:
            with pytest.raises(
                RemoteCallError,
                match=f"{name} is not connected because it is starting or has exited; try again",
            ):
                await client.call.ping(address=name, timeout=100)


async def test_error_for_exited_service_suggests_no_other(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        await nursery.start(echo_service(router.backends[0]).run)
        async with Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client:

            async def error() -> str:
                with pytest.raises(RemoteCallError) as caught:
                    await client.call.ping(address="camera-service", timeout=100)
                return caught.value.message

            assert "there is no service camera-service" in await error()
            async with trio.open_nursery() as mortals:
                mortal = SocketNode(zmq.DEALER, "camera-service", connections=router.backends)
                await mortals.start(Service(mortal, Echo()).run)
                assert await client.call.echo(1, address="camera-service", timeout=20) == 1
                mortals.cancel_scope.cancel()
            while "camera-service exited before it answered" in (message := await error()):
                pass
            assert "camera-service is not connected because it is starting or has exited" in message


async def test_long_message_to_absent_service_is_answered_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []
    decode = rpc.decode

    def recording_decode(data: bytes) -> rpc.Envelope:
        lengths.append(len(data))
        return decode(data)

    async with (
        routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, _),
        Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client,
    ):
        monkeypatch.setattr(rpc, "decode", recording_decode)
        with pytest.raises(RemoteCallError, match="there is no service x"):
            await client.issue_call("ping", ["m1"] * 250_000, address="x" * 250, timeout=100)
        assert max(lengths) < 2000


async def test_message_to_its_sender_is_refused(tmp_path: Path) -> None:
    async with (
        routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, _),
        Client(SocketNode(zmq.DEALER, "me-client", connections=router.frontends)) as client,
    ):
        with pytest.raises(RemoteCallError, match="cannot send a message to its sender"):
            await client.call.ping(address="me-client", timeout=100)


async def test_hello_is_answered_with_hello(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, _):
        async with SocketNode(zmq.DEALER, "new-service", connections=router.backends) as node:
            await node.send(b"", b"")
            assert await node.recv() == (b"", b"")
        assert router.counters.hellos == 1


async def test_random_frames_are_counted_and_harmless(tmp_path: Path) -> None:
    chance = random.Random(7)
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        await nursery.start(echo_service(router.backends[0]).run)
        with Socket(zmq.DEALER) as stranger:
            for address in (*router.frontends, *router.backends):
                stranger.connect(address)
            names = [b"", b"echo-service", b"nobody", b"\0", b"\xff" * 300]
            for _ in range(1000):
                frames = [
                    chance.choice(names)
                    if chance.random() < 0.5
                    else chance.randbytes(chance.randrange(40))
                    for _ in range(chance.randrange(1, 6))
                ]
                await stranger.send(frames)
            async with Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client:
                assert (
                    await client.call.echo("still here", address="echo-service", timeout=20)
                    == "still here"
                )
        assert router.counters.malformed > 100


async def test_full_queue_of_one_peer_does_not_block_others(tmp_path: Path) -> None:
    small: dict[int, int | bytes] = {
        zmq.RCVHWM: 1,
        zmq.RCVBUF: 4096,
        zmq.ROUTING_ID: b"lazy-service",
    }
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        router._quota = Quota(limit=1 << 30)  # one sender stands for many
        await nursery.start(echo_service(router.backends[0]).run)
        with Socket(zmq.DEALER, options=small) as lazy:
            lazy.connect(router.backends[0])
            await lazy.send([b"", b""])
            assert await lazy.recv() == [b"", b""]
            async with Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client:
                blob = bytes(10_000)
                while not router.counters.dropped:
                    await client.call.take(blob, address="lazy-service", notification=True)
                with pytest.raises(RemoteCallError, match="queue of lazy-service is full"):
                    await client.call.take(address="lazy-service", timeout=100)
                assert await client.call.echo(1, address="echo-service", timeout=20) == 1


SERVICE = """
import sys, trio, zmq
from rt.remote.handler import Handler, route
from rt.remote.service import Service
from rt.remote.node import SocketNode
import os
class Who(Handler):
    @route(inline=True)
    def pid(self) -> int:
        return os.getpid()
trio.run(Service(SocketNode(zmq.DEALER, "who-service", connections=[sys.argv[1]]), Who()).run)
"""


async def test_restarted_service_gets_its_name_back(tmp_path: Path) -> None:
    home = Path(rt.__file__).parents[1]
    async with (
        routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, _),
        Client(
            SocketNode(zmq.DEALER, connections=router.frontends), address="who-service"
        ) as client,
    ):
        for _ in range(2):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-P", "-c", SERVICE, router.backends[0]],
                env={**os.environ, "PYTHONPATH": str(home)},
            )
            try:
                assert await wait_until_connected(client) == process.pid
            finally:
                process.kill()
                await process.wait()


async def wait_until_connected(client: Client) -> int:
    while True:
        try:
            return int(await client.call.pid())
        except RemoteCallError:
            continue  # the router answers at once that the service is not connected


async def test_newest_connection_of_a_name_gets_its_messages(tmp_path: Path) -> None:
    async with (
        routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, _),
        SocketNode(zmq.DEALER, "twin-service", connections=router.backends) as old,
        SocketNode(zmq.DEALER, connections=router.frontends) as client,
    ):
        await old.send(b"", b"")
        await old.recv()
        async with SocketNode(zmq.DEALER, "twin-service", connections=router.backends) as new:
            await new.send(b"", b"")
            await new.recv()
            await client.send(b"twin-service", rpc.encode(rpc.Notification("hello", [])))
            assert rpc.decode((await new.recv())[1]) == rpc.Notification("hello", [])


async def test_name_used_by_two_clients_is_logged_once(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (
            router,
            nursery,
        ):
            router._log = structlog.get_logger()
            await nursery.start(echo_service(router.backends[0]).run)
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(3):
                    node = SocketNode(zmq.DEALER, "dashboard-client", connections=router.frontends)
                    client = await stack.enter_async_context(
                        Client(node, address="echo-service", timeout=20)
                    )
                    for _ in range(2):
                        assert await client.call.echo(1) == 1
            assert router.counters.takeovers == 2
    assert [
        (entry["event"], entry["name"]) for entry in logs if entry["log_level"] == "warning"
    ] == [("name connected twice; only the newest connection is served", "dashboard-client")]


async def test_address_in_use_is_reported(tmp_path: Path) -> None:
    async with routing("tcp://127.0.0.1:*", backend=f"ipc://{tmp_path}/b") as (router, _):
        with pytest.raises(InstanceBusyError, match=f"{router.frontends[0]} is in use"):
            await Router(router.frontends, [f"ipc://{tmp_path}/b2"]).run()


async def test_reserved_name_cannot_be_taken(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        identity = router.reserve("echo-service")
        service = Service(SocketNode(zmq.DEALER, identity, connections=router.backends), Echo())
        await nursery.start(service.run)
        async with Client(
            SocketNode(zmq.DEALER, "a-client", connections=router.frontends)
        ) as client:
            assert await client.call.echo("before", address="echo-service") == "before"
            with (
                structlog.testing.capture_logs() as events,
                Socket(zmq.DEALER, options={zmq.ROUTING_ID: b"echo-service"}) as thief,
            ):
                thief.connect(router.backends[0])
                for frames in (
                    [b"", b""],
                    [b"a-client", rpc.encode(rpc.Response(1, None, "forged"))],
                ):
                    await thief.send(frames)
                while router.counters.malformed < 2:  # noqa: ASYNC110 - no event for a counter
                    await trio.sleep(0.005)
                for number in range(20):
                    assert await client.call.echo(number, address="echo-service") == number
                assert not thief.has_message()
            assert [event["name"] for event in events if "reserved name" in event["event"]] == [
                "echo-service"
            ]
            assert not any(identity.decode() in str(event) for event in events)
            assert await client.call.echo("after", address="echo-service") == "after"
            with pytest.raises(RemoteCallError) as info:
                await client.call.echo(1, address="ecko-service")
            assert "did you mean echo-service" in str(info.value)
            assert "\\x01" not in str(info.value)


async def test_immediate_call_acts_though_its_service_is_absent(tmp_path: Path) -> None:
    acted: list[str] = []
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, _):
        router.set_immediate_calls("slow-service", {"halt": lambda: acted.append("halt")})
        async with Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client:
            refused: list[tuple[str, list[int | str]]] = [
                ("halt", [1]),
                ("other", []),
                ("halt", ["x" * IMMEDIATE_MAX]),
            ]
            for method, params in refused:
                with pytest.raises(RemoteCallError, match="slow-service"):
                    await client.issue_call(method, *params, address="slow-service")
            assert acted == []
            with pytest.raises(RemoteCallError, match="slow-service"):
                await client.issue_call("halt", address="slow-service")
            assert acted == ["halt"]
            await client.issue_call("halt", address="slow-service", notification=True)
            with pytest.raises(RemoteCallError, match="other-service"):
                await client.issue_call("halt", address="other-service")
            assert acted == ["halt", "halt"]


async def test_service_with_reserved_name_gets_disconnect_notifications(tmp_path: Path) -> None:
    async with routing(f"ipc://{tmp_path}/f", backend=f"ipc://{tmp_path}/b") as (router, nursery):
        started = trio.Event()
        ended = trio.Event()

        class Waits(Handler):
            @route
            async def wait(self) -> None:
                started.set()
                try:
                    await trio.sleep_forever()
                finally:
                    ended.set()

        identity = router.reserve("waits-service")
        await nursery.start(
            Service(SocketNode(zmq.DEALER, identity, connections=router.backends), Waits()).run
        )
        async with (
            Client(SocketNode(zmq.DEALER, connections=router.frontends)) as client,
            trio.open_nursery() as calls,
        ):
            calls.start_soon(partial(client.call.wait, address="waits-service"))
            await started.wait()
            calls.cancel_scope.cancel()
        await ended.wait()
