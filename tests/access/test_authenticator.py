"""Sockets that listen on the network: who is let in, who is thrown out, and what a stranger is told."""

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog
import trio
import zmq

from rt.access import authenticator as gate_module
from rt.access.authenticator import UNKNOWN_KEY, Authenticator, curve_options
from rt.access.bundle import Bundle
from rt.access.keyring import Keyring
from rt.access.peer import Peer, PeerTable
from rt.access.probe import probe
from rt.access.stations import StationSide
from rt.access.time_budget import TimeBudget
from rt.errors import ConfigError, RemoteCallError
from rt.remote import Client, Handler, Router, Service, SocketNode, route
from rt.transport.zmq_socket import Socket, rebind_socket_files

Context = zmq.Context[zmq.Socket[bytes]]


class Greeter(Handler):
    @route(inline=True)
    def greet(self, name: str) -> str:
        return f"hello {name}"


class Place:
    """A robot's router that is open to the network, and its keys."""

    def __init__(self, folder: Path, context: Context) -> None:
        self.folder = folder
        self.context = context
        self.keys = Keyring(folder / "keys")
        self.authenticator = Authenticator(Keyring(folder / "keys"), context=context)
        # As "*" it is open to the network; the test comes over the loopback interface.
        self.router = Router(
            ["tcp://*:*", f"ipc://{folder}/front"],
            [f"ipc://{folder}/back"],
            context=context,
            authenticator=self.authenticator,
        )
        self.log = SocketNode(
            zmq.PUB, bindings=["tcp://*:*"], context=context, authenticator=self.authenticator
        )

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.router.frontends[0].rpartition(':')[2]}"

    @property
    def log_address(self) -> str:
        return f"tcp://127.0.0.1:{self.log.endpoints[0].rpartition(':')[2]}"

    def client(self, bundle: Bundle | None, address: str | None = None) -> Client:
        node = SocketNode(
            zmq.DEALER,
            connections=[address or self.address],
            options={**(curve_options(bundle) if bundle else {}), zmq.SNDTIMEO: 500},
            context=self.context,
        )
        return Client(node, address="greeter-service", timeout=10)

    def listener(self, bundle: Bundle | None) -> SocketNode:
        return SocketNode(
            zmq.SUB,
            connections=[self.log_address],
            subscriptions=[b""],
            options=curve_options(bundle) if bundle else {},
            context=self.context,
        )

    async def publish(self) -> None:
        while True:
            await self.log.send(b"info", b"a line")
            await trio.sleep(0.01)


@pytest.fixture
async def place(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Place]:
    context: Context = zmq.Context()
    place = Place(tmp_path, context)
    async with trio.open_nursery() as inner:
        await inner.start(place.authenticator.run)
        await inner.start(place.router.run)
        node = SocketNode(
            zmq.DEALER, "greeter-service", connections=[f"ipc://{tmp_path}/back"], context=context
        )
        await inner.start(Service(node, Greeter()).run)
        async with place.log:
            inner.start_soon(place.publish)
            yield place
            inner.cancel_scope.cancel()
    context.destroy(linger=0)


async def hears(node: SocketNode) -> bool:
    with trio.move_on_after(0.5):
        await node.recv()
        return True
    return False


async def test_a_station_with_its_key_calls_and_listens(place: Place) -> None:
    key = place.keys.new("blue")
    with trio.fail_after(20):
        async with place.client(key) as client, place.listener(key) as listener:
            assert await client.call.greet("robot") == "hello robot"
            assert (await listener.recv())[1] == b"a line"
    assert (place.authenticator.counters.admitted, place.authenticator.refusals.counts) == (2, {})


async def test_costly_lookups_delay_connections_and_refuse_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = 0.0
    looks: list[float] = []
    all_looked = trio.Event()
    original = PeerTable.peer_of

    def look(table: PeerTable, accepted: socket.socket) -> Peer:
        nonlocal used
        looks.append(trio.current_time())
        if len(looks) == 8:
            all_looked.set()
        with table.budget.spend():
            used += 0.3
        return original(table, accepted)

    monkeypatch.setattr(PeerTable, "peer_of", look)
    context: Context = zmq.Context()
    authenticator = Authenticator(Keyring(tmp_path / "keys"), context=context)
    authenticator._peers.budget = TimeBudget(1.0, timer=lambda: used)
    router = Router(
        ["tcp://127.0.0.1:*"],
        [f"ipc://{tmp_path}/back"],
        context=context,
        authenticator=authenticator,
    )
    with trio.fail_after(30):
        async with trio.open_nursery() as inner:
            await inner.start(authenticator.run)
            await inner.start(router.run)
            port = int(router.frontends[0].rpartition(":")[2])
            with contextlib.ExitStack() as stack:
                for _ in range(8):
                    stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                await all_looked.wait()
            inner.cancel_scope.cancel()
    context.destroy(linger=0)
    # 2.1 s of processor time before the last look, and a budget of one second for each second.
    assert looks[-1] - looks[0] >= 0.9
    assert authenticator.refusals.counts == {}


async def test_a_socket_file_needs_no_key(place: Place) -> None:
    with trio.fail_after(20):
        async with place.client(None, f"ipc://{place.folder}/front") as client:
            assert await client.call.greet("robot") == "hello robot"


async def test_a_stranger_gets_nothing(place: Place, tmp_path: Path) -> None:
    place.keys.new("blue")
    elsewhere = Keyring(tmp_path / "elsewhere").new("blue")
    # Whoever knows the public key of the robot, as a station that was revoked does, has no key that
    # counts yet.
    unknown = Bundle(
        "x", place.keys.robot().public, elsewhere.public, elsewhere.secret, elsewhere.datagram
    )
    for bundle in (None, elsewhere, unknown):
        with trio.fail_after(20):
            async with place.client(bundle) as client, place.listener(bundle) as listener:
                with pytest.raises(RemoteCallError, match="was not sent"):
                    await client.call.greet("robot")
                assert not await hears(listener)
    assert place.authenticator.counters.admitted == 0
    assert place.authenticator.refusals.counts[UNKNOWN_KEY] >= 2


async def test_an_address_that_is_bound_later_is_behind_the_gate_too(place: Place) -> None:
    key = place.keys.new("blue")
    async with SocketNode(
        zmq.PUB,
        bindings=["tcp://127.0.0.1:*"],
        context=place.context,
        authenticator=place.authenticator,
    ) as node:
        before, place.log = place.log, node
        later = f"tcp://127.0.0.1:{node.bind('tcp://*:*').rpartition(':')[2]}"
        for bundle in (None, key):
            options = curve_options(bundle) if bundle else {}
            listener = SocketNode(
                zmq.SUB,
                connections=[later],
                subscriptions=[b""],
                options=options,
                context=place.context,
            )
            async with listener:
                assert await hears(listener) == (bundle is key)
        place.log = before  # somebody publishes on it


@pytest.mark.parametrize(
    "greeting",
    [
        b"\x01\x00" + b"\x01\x00" * 20,  # ZMTP 1.0, which knows no security
        b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00",  # ZMTP 2.0, neither
        b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48),  # ZMTP 3.0 without a mechanism
        b"GET / HTTP/1.1\r\n\r\n" + bytes(64),
    ],
)
async def test_an_older_way_in_is_shut_too(place: Place, greeting: bytes) -> None:
    port = int(place.address.rpartition(":")[2])
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(greeting)
            await hung_up(stream)


async def test_a_key_that_is_made_while_the_robot_runs_counts_at_once(place: Place) -> None:
    with trio.fail_after(20):
        async with place.client(place.keys.new("late")) as client:
            assert await client.call.greet("robot") == "hello robot"


async def test_a_station_that_is_revoked_is_thrown_out_and_the_others_are_back(
    place: Place,
) -> None:
    blue, red = place.keys.new("blue"), place.keys.new("red")
    with trio.fail_after(30):
        async with (
            place.client(blue) as out,
            place.client(red) as stays,
            place.listener(blue) as deaf,
            place.listener(red) as listener,
            place.client(None, f"ipc://{place.folder}/front") as local,
        ):
            for client in (out, stays, local):
                await client.call.greet("robot")
            await deaf.recv()
            place.keys.revoke("blue")
            while await outcome(out) == "hello robot":
                assert await outcome(local) == "hello robot"
            while await hears(deaf):
                pass
            while await outcome(stays) != "hello robot":
                pass
            await listener.recv()
            assert await outcome(local) == "hello robot"
            assert isinstance(await outcome(out), RemoteCallError)


async def hung_up(stream: trio.SocketStream) -> None:
    """Go on talking until the other side hangs up."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            await stream.send_all(b"\x00\x05hello")


async def outcome(client: Client) -> object:
    try:
        return await client.call.greet("robot", timeout=1)
    except RemoteCallError as error:
        return error


async def test_a_revoked_name_may_be_given_again_and_the_old_key_stays_out(place: Place) -> None:
    old = place.keys.new("blue")
    await probe(place.address, old, context=place.context)
    place.keys.revoke("blue")
    new = place.keys.new("blue")
    await probe(place.address, new, context=place.context)
    with pytest.raises(RemoteCallError, match="does not know the key of 'blue', or it was revoked"):
        await probe(place.address, old, context=place.context)


async def test_nobody_is_let_in_while_the_gate_does_not_answer(tmp_path: Path) -> None:
    context: Context = zmq.Context()
    keys = Keyring(tmp_path / "keys")
    key = keys.new("blue")
    authenticator = Authenticator(keys, context=context)
    async with trio.open_nursery() as nursery:
        await nursery.start(authenticator.run)
        log = SocketNode(
            zmq.PUB, bindings=["tcp://*:*"], context=context, authenticator=authenticator
        )
        async with log:
            address = f"tcp://127.0.0.1:{log.endpoints[0].rpartition(':')[2]}"
            await probe(address, key, socket_type=zmq.SUB, context=context)
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True), pytest.raises(RemoteCallError):
                await probe(address, key, timeout=1, socket_type=zmq.SUB, context=context)
    context.destroy(linger=0)


async def test_an_insecure_gate_is_open_and_a_key_is_told_to_be_of_no_use(tmp_path: Path) -> None:
    context: Context = zmq.Context()
    keys = Keyring(tmp_path / "keys")
    authenticator = Authenticator(keys, insecure=True, context=context)
    async with trio.open_nursery() as nursery:
        await nursery.start(authenticator.run)
        async with SocketNode(
            zmq.PUB, bindings=["tcp://*:*"], context=context, authenticator=authenticator
        ) as log:
            address = f"tcp://127.0.0.1:{log.endpoints[0].rpartition(':')[2]}"
            await probe(address, None, socket_type=zmq.SUB, context=context)
            with pytest.raises(RemoteCallError, match="takes no keys"):
                await probe(address, keys.new("blue"), socket_type=zmq.SUB, context=context)
        nursery.cancel_scope.cancel()
    context.destroy(linger=0)


async def test_who_is_not_let_in_is_told_why_at_once(place: Place, tmp_path: Path) -> None:
    elsewhere = Keyring(tmp_path / "elsewhere").new("green")
    with trio.fail_after(20):
        with pytest.raises(RemoteCallError, match=r"wants a key: .*--key"):
            await probe(place.address, None, context=place.context)
        with pytest.raises(
            RemoteCallError, match="is not the one that the key of 'green' was made for"
        ):
            await probe(place.address, elsewhere, context=place.context)
        with pytest.raises(RemoteCallError, match="nothing listens at"):
            await probe("tcp://127.0.0.1:1", elsewhere, context=place.context)


async def test_a_machine_that_says_nothing_is_told_after_a_while(place: Place) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        with (
            trio.fail_after(20),
            pytest.raises(RemoteCallError, match=r"did not answer within 0\.3 s"),
        ):
            await probe(
                f"tcp://127.0.0.1:{mute.getsockname()[1]}", None, timeout=0.3, context=place.context
            )


@pytest.mark.parametrize(
    "address", ["robot:6000", "tcp://robot", "udp://robot:1", "tcp://:6000", "tcp://robot:x"]
)
async def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="write tcp://HOST:PORT"):
        await probe(address, None)


async def test_a_host_without_an_ipv4_address_is_told_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="reached by IPv4"):
        await probe("tcp://[::1]:6000", None)

    async def find(_host: str, _port: int, family: int = 0) -> list[object]:
        await trio.lowlevel.checkpoint()
        if family == socket.AF_INET:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return []

    monkeypatch.setattr(trio.socket, "getaddrinfo", find)
    with pytest.raises(ConfigError, match=r"the host robot\.local is not known"):
        await probe("tcp://robot.local:6000", None)


async def test_a_host_that_nobody_knows_is_told() -> None:
    with pytest.raises(ConfigError, match=r"the host nobody\.invalid is not known"):
        await probe("tcp://nobody.invalid:6000", None)


async def test_wrong_files_are_told_once_and_end_nothing(place: Place) -> None:
    with structlog.testing.capture_logs() as logs, trio.fail_after(20):
        place.authenticator._log = structlog.get_logger()
        key = place.keys.new("blue")
        (place.keys.directory / "bad.station").write_text("?")
        (place.keys.directory / "bad.station").chmod(0o600)
        for _ in range(2):
            await probe(place.address, key, context=place.context)
            (place.keys.directory / "x").touch()
    assert len([entry for entry in logs if "bad.station" in entry["event"]]) == 1
    assert [entry["station"] for entry in logs if entry["event"] == "a station has connected"] == [
        "blue",
        "blue",
    ]


async def test_removed_socket_file_needs_no_key_and_the_network_does(place: Place) -> None:
    place.keys.new("blue")
    file = place.folder / "front"
    file.unlink()
    assert f"ipc://{file}" in rebind_socket_files()
    with trio.fail_after(20):
        async with place.client(None, f"ipc://{file}") as client:
            assert await client.call.greet("robot") == "hello robot"
        async with place.client(None) as client:
            with pytest.raises(RemoteCallError, match="was not sent"):
                await client.call.greet("robot")
    place.keys.revoke("blue")
    key = place.keys.new("red")
    with trio.fail_after(20):
        async with place.client(key) as client:
            while True:  # the address is bound anew after a key was revoked
                with contextlib.suppress(RemoteCallError):
                    assert await client.call.greet("robot") == "hello robot"
                    break
        async with place.client(None) as client:
            with pytest.raises(RemoteCallError, match="was not sent"):
                await client.call.greet("robot")


ERRORS: dict[str, Exception] = {
    "of libzmq": zmq.ZMQError(zmq.ENOTSOCK),
    "of the system": OSError(errno.EMFILE, "too many open files"),
    "of a broken stream": trio.BrokenResourceError(),
    "of rt": ZeroDivisionError("on purpose"),
    "in a group": ExceptionGroup(
        "two", [ZeroDivisionError("on purpose"), zmq.ZMQError(zmq.ENOTSOCK)]
    ),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_error_of_one_stations_connection_ends_that_connection_only(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    key = place.keys.new("blue")
    failed: list[Socket] = []

    async def fail(_side: StationSide, socket: Socket, _station: Callable[[], str]) -> None:
        await socket.recv()
        failed.append(socket)
        raise ERRORS[name]

    with trio.fail_after(30), structlog.testing.capture_logs() as logs:
        place.authenticator._log = structlog.get_logger()
        with monkeypatch.context() as patch:
            patch.setattr(StationSide, "serve", fail)
            async with trio.open_nursery() as nursery, place.client(key) as client:
                nursery.start_soon(outcome, client)
                while not (failed and failed[0].closed):  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        async with place.client(key) as client:
            assert await client.call.greet("robot") == "hello robot"
    said = [event for event in logs if event["event"] == "connection closed by an error"]
    if name in {"of rt", "in a group"}:
        assert "ZeroDivisionError: on purpose" in said[0]["reason"]
        assert said[0]["log_level"] == "error"
    else:
        assert not said


async def test_error_of_a_trusted_connection_ends_that_connection_only(
    place: Place, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(outer: trio.SocketStream, inner: trio.SocketStream) -> None:
        async with outer, inner:
            raise ExceptionGroup("of the nursery", [OSError(errno.EIO, "on purpose")])

    router = Router(
        ["tcp://127.0.0.1:*"],
        [f"ipc://{place.folder}/other"],
        context=place.context,
        authenticator=place.authenticator,
    )
    await nursery.start(router.run)
    host, _, port = router.frontends[0].removeprefix("tcp://").rpartition(":")
    with trio.fail_after(30):
        with monkeypatch.context() as patch:
            patch.setattr(gate_module, "relay", fail)
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await hung_up(stream)
        async with place.client(place.keys.new("blue")) as client:
            assert await client.call.greet("robot") == "hello robot"
    nursery.cancel_scope.cancel()
