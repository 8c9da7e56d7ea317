"""Access to sockets on the network: admission, revocation, and errors for refused clients."""

import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import structlog
import trio
import zmq

from rt.access import authenticator as authenticator_module
from rt.access.authenticator import UNKNOWN_KEY, Authenticator, curve_options
from rt.access.keyring import Keyring
from rt.access.peer import Peer, PeerTable
from rt.access.probe import probe
from rt.access.station_key import StationKey
from rt.access.station_sockets import StationSide
from rt.access.time_budget import TimeBudget
from rt.errors import ConfigError, RemoteCallError
from rt.remote import Client, Handler, Router, Service, SocketNode, route
from rt.transport.zmq_socket import Socket, rebind_socket_files

Context = zmq.Context[zmq.Socket[bytes]]


class Greeter(Handler):
    @route(inline=True)
    def greet(self, name: str) -> str:
        return f"hello {name}"


class Setup:
    """A robot's router that listens on the network, and its keys."""

    def __init__(self, folder: Path, context: Context) -> None:
        self.folder = folder
        self.context = context
        self.keys = Keyring(folder / "keys")
        self.authenticator = Authenticator(Keyring(folder / "keys"), context=context)
        # "*" counts as the network, although the test connects over loopback.
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

    def client(self, station_key: StationKey | None, address: str | None = None) -> Client:
        node = SocketNode(
            zmq.DEALER,
            connections=[address or self.address],
            options={**(curve_options(station_key) if station_key else {}), zmq.SNDTIMEO: 500},
            context=self.context,
        )
        return Client(node, address="greeter-service", timeout=10)

    def listener(self, station_key: StationKey | None) -> SocketNode:
        return SocketNode(
            zmq.SUB,
            connections=[self.log_address],
            subscriptions=[b""],
            options=curve_options(station_key) if station_key else {},
            context=self.context,
        )

    async def publish(self) -> None:
        while True:
            await self.log.send(b"info", b"a line")
            await trio.sleep(0.01)


@pytest.fixture
async def setup(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Setup]:
    context: Context = zmq.Context()
    setup = Setup(tmp_path, context)
    async with trio.open_nursery() as inner:
        await inner.start(setup.authenticator.run)
        await inner.start(setup.router.run)
        node = SocketNode(
            zmq.DEALER, "greeter-service", connections=[f"ipc://{tmp_path}/back"], context=context
        )
        await inner.start(Service(node, Greeter()).run)
        async with setup.log:
            inner.start_soon(setup.publish)
            yield setup
            inner.cancel_scope.cancel()
    context.destroy(linger=0)


async def receives(node: SocketNode) -> bool:
    with trio.move_on_after(0.5):
        await node.recv()
        return True
    return False


async def test_station_with_key_calls_and_receives_the_log(setup: Setup) -> None:
    key = setup.keys.new("blue")
    with trio.fail_after(20):
        async with setup.client(key) as client, setup.listener(key) as listener:
            assert await client.call.greet("robot") == "hello robot"
            assert (await listener.recv())[1] == b"a line"
    assert (setup.authenticator.admitted, setup.authenticator.refusals.counts) == (2, {})


async def test_costly_lookups_delay_connections_and_refuse_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = 0.0
    lookups: list[float] = []
    all_done = trio.Event()
    original = PeerTable.peer_of

    def recording_peer_of(table: PeerTable, accepted: socket.socket) -> Peer:
        nonlocal used
        lookups.append(trio.current_time())
        if len(lookups) == 8:
            all_done.set()
        with table.budget.spend():
            used += 0.3
        return original(table, accepted)

    monkeypatch.setattr(PeerTable, "peer_of", recording_peer_of)
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
                await all_done.wait()
            inner.cancel_scope.cancel()
    context.destroy(linger=0)
    # The first 7 lookups take 2.1 s of processor time, and the budget is 1 s for each second.
    assert lookups[-1] - lookups[0] >= 0.9
    assert authenticator.refusals.counts == {}


async def test_socket_file_needs_no_key(setup: Setup) -> None:
    with trio.fail_after(20):
        async with setup.client(None, f"ipc://{setup.folder}/front") as client:
            assert await client.call.greet("robot") == "hello robot"


async def test_unknown_key_is_refused(setup: Setup, tmp_path: Path) -> None:
    setup.keys.new("blue")
    elsewhere = Keyring(tmp_path / "elsewhere").new("blue")
    # Knowing the public key of the robot, like a revoked station, is not enough.
    unknown = StationKey(
        "x", setup.keys.robot().public, elsewhere.public, elsewhere.secret, elsewhere.datagram
    )
    for station_key in (None, elsewhere, unknown):
        with trio.fail_after(20):
            async with setup.client(station_key) as client, setup.listener(station_key) as listener:
                with pytest.raises(RemoteCallError, match="cannot send greet"):
                    await client.call.greet("robot")
                assert not await receives(listener)
    assert setup.authenticator.admitted == 0
    assert setup.authenticator.refusals.counts[UNKNOWN_KEY] >= 2


async def test_address_that_is_bound_later_requires_a_key(setup: Setup) -> None:
    key = setup.keys.new("blue")
    async with SocketNode(
        zmq.PUB,
        bindings=["tcp://127.0.0.1:*"],
        context=setup.context,
        authenticator=setup.authenticator,
    ) as node:
        before, setup.log = setup.log, node
        (endpoint,) = setup.authenticator.bind(node._open(), ["tcp://*:*"])
        later = f"tcp://127.0.0.1:{endpoint.rpartition(':')[2]}"
        for station_key in (None, key):
            options = curve_options(station_key) if station_key else {}
            listener = SocketNode(
                zmq.SUB,
                connections=[later],
                subscriptions=[b""],
                options=options,
                context=setup.context,
            )
            async with listener:
                assert await receives(listener) == (station_key is key)
        setup.log = before  # the publishing task uses it


@pytest.mark.parametrize(
    "greeting",
    [
        b"\x01\x00" + b"\x01\x00" * 20,  # ZMTP 1.0, which has no security
        b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00",  # ZMTP 2.0, likewise
        b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48),  # ZMTP 3.0 without a mechanism
        b"GET / HTTP/1.1\r\n\r\n" + bytes(64),
    ],
)
async def test_older_protocols_are_refused(setup: Setup, greeting: bytes) -> None:
    port = int(setup.address.rpartition(":")[2])
    with trio.fail_after(20):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(greeting)
            await wait_until_closed(stream)


async def test_key_created_at_runtime_is_valid_at_once(setup: Setup) -> None:
    with trio.fail_after(20):
        async with setup.client(setup.keys.new("late")) as client:
            assert await client.call.greet("robot") == "hello robot"


async def test_revoked_station_is_disconnected_and_others_are_served(setup: Setup) -> None:
    blue, red = setup.keys.new("blue"), setup.keys.new("red")
    with trio.fail_after(30):
        async with (
            setup.client(blue) as out,
            setup.client(red) as stays,
            setup.listener(blue) as revoked,
            setup.listener(red) as listener,
            setup.client(None, f"ipc://{setup.folder}/front") as local,
        ):
            for client in (out, stays, local):
                await client.call.greet("robot")
            await revoked.recv()
            setup.keys.revoke("blue")
            while await outcome(out) == "hello robot":
                assert await outcome(local) == "hello robot"
            while await receives(revoked):
                pass
            while await outcome(stays) != "hello robot":
                pass
            await listener.recv()
            assert await outcome(local) == "hello robot"
            assert isinstance(await outcome(out), RemoteCallError)


async def wait_until_closed(stream: trio.SocketStream) -> None:
    """Send data until the peer closes the connection."""
    with contextlib.suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            await stream.send_all(b"\x00\x05hello")


async def outcome(client: Client) -> object:
    try:
        return await client.call.greet("robot", timeout=1)
    except RemoteCallError as error:
        return error


async def test_new_key_for_a_revoked_name_does_not_revive_the_old_key(setup: Setup) -> None:
    old = setup.keys.new("blue")
    await probe(setup.address, old, context=setup.context)
    setup.keys.revoke("blue")
    new = setup.keys.new("blue")
    await probe(setup.address, new, context=setup.context)
    with pytest.raises(RemoteCallError, match="the key of 'blue' is unknown to the robot"):
        await probe(setup.address, old, context=setup.context)


async def test_client_is_refused_while_the_authenticator_does_not_run(tmp_path: Path) -> None:
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


async def test_insecure_authenticator_admits_all_and_refuses_keys(tmp_path: Path) -> None:
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
            with pytest.raises(RemoteCallError, match="uses no keys"):
                await probe(address, keys.new("blue"), socket_type=zmq.SUB, context=context)
        nursery.cancel_scope.cancel()
    context.destroy(linger=0)


async def test_probe_reports_the_reason_of_a_refusal(setup: Setup, tmp_path: Path) -> None:
    elsewhere = Keyring(tmp_path / "elsewhere").new("green")
    with trio.fail_after(20):
        with pytest.raises(RemoteCallError, match=r"requires a key; .*--key"):
            await probe(setup.address, None, context=setup.context)
        with pytest.raises(RemoteCallError, match="did not accept the key of 'green'"):
            await probe(setup.address, elsewhere, context=setup.context)
        with pytest.raises(RemoteCallError, match="nothing listens at"):
            await probe("tcp://127.0.0.1:1", elsewhere, context=setup.context)


async def test_probe_of_a_silent_server_times_out(setup: Setup) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            trio.fail_after(20),
            pytest.raises(RemoteCallError, match=r"did not answer within 0\.3 s"),
        ):
            await probe(
                f"tcp://127.0.0.1:{silent.getsockname()[1]}",
                None,
                timeout=0.3,
                context=setup.context,
            )


@pytest.mark.parametrize(
    "address", ["robot:6000", "tcp://robot", "udp://robot:1", "tcp://:6000", "tcp://robot:x"]
)
async def test_invalid_address_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="use tcp://HOST:PORT"):
        await probe(address, None)


async def test_host_without_ipv4_address_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="IPv6 is not supported"):
        await probe("tcp://[::1]:6000", None)

    async def find(_host: str, _port: int, family: int = 0) -> list[object]:
        await trio.lowlevel.checkpoint()
        if family == socket.AF_INET:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return []

    monkeypatch.setattr(trio.socket, "getaddrinfo", find)
    with pytest.raises(ConfigError, match=r"cannot resolve host robot\.local"):
        await probe("tcp://robot.local:6000", None)


async def test_unknown_host_is_reported() -> None:
    with pytest.raises(ConfigError, match=r"cannot resolve host unknown\.invalid"):
        await probe("tcp://unknown.invalid:6000", None)


async def test_invalid_key_files_are_logged_once(setup: Setup) -> None:
    with structlog.testing.capture_logs() as logs, trio.fail_after(20):
        setup.authenticator._log = structlog.get_logger()
        key = setup.keys.new("blue")
        (setup.keys.directory / "bad.station").write_text("?")
        (setup.keys.directory / "bad.station").chmod(0o600)
        for _ in range(2):
            await probe(setup.address, key, context=setup.context)
            (setup.keys.directory / "x").touch()
    assert len([entry for entry in logs if "bad.station" in entry["event"]]) == 1
    assert [entry["station"] for entry in logs if entry["event"] == "station connected"] == [
        "blue",
        "blue",
    ]


async def test_rebound_socket_file_still_needs_no_key(setup: Setup) -> None:
    setup.keys.new("blue")
    file = setup.folder / "front"
    file.unlink()
    assert f"ipc://{file}" in rebind_socket_files()
    with trio.fail_after(20):
        async with setup.client(None, f"ipc://{file}") as client:
            assert await client.call.greet("robot") == "hello robot"
        async with setup.client(None) as client:
            with pytest.raises(RemoteCallError, match="cannot send greet"):
                await client.call.greet("robot")
    setup.keys.revoke("blue")
    key = setup.keys.new("red")
    with trio.fail_after(20):
        async with setup.client(key) as client:
            while True:  # the revocation takes effect asynchronously
                with contextlib.suppress(RemoteCallError):
                    assert await client.call.greet("robot") == "hello robot"
                    break
        async with setup.client(None) as client:
            with pytest.raises(RemoteCallError, match="cannot send greet"):
                await client.call.greet("robot")


ERRORS: dict[str, Exception] = {
    "libzmq": zmq.ZMQError(zmq.ENOTSOCK),
    "system": OSError(errno.EMFILE, "too many open files"),
    "broken stream": trio.BrokenResourceError(),
    "bug": ZeroDivisionError("on purpose"),
    "group": ExceptionGroup("two", [ZeroDivisionError("on purpose"), zmq.ZMQError(zmq.ENOTSOCK)]),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_error_of_a_keyed_connection_ends_only_that_connection(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    key = setup.keys.new("blue")
    failed: list[Socket] = []

    async def fail(_side: StationSide, socket: Socket, _station: Callable[[], str]) -> None:
        await socket.recv()
        failed.append(socket)
        raise ERRORS[name]

    with trio.fail_after(30), structlog.testing.capture_logs() as logs:
        setup.authenticator._log = structlog.get_logger()
        with monkeypatch.context() as patch:
            patch.setattr(StationSide, "serve", fail)
            async with trio.open_nursery() as nursery, setup.client(key) as client:
                nursery.start_soon(outcome, client)
                while not (failed and failed[0].closed):  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        async with setup.client(key) as client:
            assert await client.call.greet("robot") == "hello robot"
    logged = [event for event in logs if event["event"] == "connection closed by an error"]
    if name in {"bug", "group"}:
        assert "ZeroDivisionError: on purpose" in logged[0]["reason"]
        assert logged[0]["log_level"] == "error"
    else:
        assert not logged


async def test_error_of_a_trusted_connection_ends_only_that_connection(
    setup: Setup, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(outer: trio.SocketStream, inner: trio.SocketStream) -> None:
        async with outer, inner:
            raise ExceptionGroup("of the nursery", [OSError(errno.EIO, "on purpose")])

    router = Router(
        ["tcp://127.0.0.1:*"],
        [f"ipc://{setup.folder}/other"],
        context=setup.context,
        authenticator=setup.authenticator,
    )
    await nursery.start(router.run)
    host, _, port = router.frontends[0].removeprefix("tcp://").rpartition(":")
    with trio.fail_after(30):
        with monkeypatch.context() as patch:
            patch.setattr(authenticator_module, "relay", fail)
            async with await trio.open_tcp_stream(host, int(port)) as stream:
                await wait_until_closed(stream)
        async with setup.client(setup.keys.new("blue")) as client:
            assert await client.call.greet("robot") == "hello robot"
    nursery.cancel_scope.cancel()
