"""Access over TCP by this user, other users of the computer and stations."""

import contextlib
import errno
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.lowlevel
import zmq
from support.stranger import UID, require_another_user, run_stranger, start_stranger
from support.strangers import GREETING

from rt import log
from rt.access.authenticator import (
    CROWDED,
    CROWDED_STATION,
    CROWDED_STATIONS,
    FAILED,
    NO_KEY,
    NO_STATIONS,
    NOT_ZMTP,
    UNKNOWN_KEY,
    UNUSABLE,
    Authenticator,
    Limits,
    curve_options,
)
from rt.access.keyring import Keyring
from rt.access.peer import ANOTHER_USER
from rt.access.probe import probe
from rt.access.station_key import StationKey
from rt.access.station_sockets import StationSide, station_of
from rt.errors import RemoteCallError
from rt.log.caller_throttle import BURST, CallerThrottle
from rt.protocol import rpc
from rt.remote import Client, Handler, Router, Service, SocketNode, route
from rt.remote.quota import MAX_UNANSWERED, STATION_SCALE, Quota

Context = zmq.Context[zmq.Socket[bytes]]

CALL = """
strangers.call(int(sys.argv[1]), sys.argv[2].encode())
"""
LISTEN = """
stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream.settimeout(30)
strangers.subscribe(stream)
received = b"".join(iter(lambda: stream.recv(4096), b""))
print(len(received) > 200)
"""
WITH_KEY = """
context = zmq.Context()
client = context.socket(zmq.DEALER)
keys = [each.encode() for each in sys.argv[2:5]]
client.curve_serverkey, client.curve_publickey, client.curve_secretkey = keys
client.connect("tcp://127.0.0.1:" + sys.argv[1])
client.send_multipart([b"greeter-service", bytes.fromhex(sys.argv[5])])
print(client.poll(20000) and client.recv_multipart()[1].hex())
context.destroy(linger=0)
"""


class Greeter(Handler):
    def __init__(self) -> None:
        self.greeted = 0

    @route(inline=True)
    def greet(self, name: str) -> str:
        self.greeted += 1
        return f"hello {name}"

    @route(urgent=True)
    async def fail(self) -> None:
        raise ValueError("a bug")

    @route(urgent=True)
    async def hang(self) -> None:
        await trio.sleep_forever()


class Setup:
    """A robot's router, log publisher, keys, and a service."""

    service: Service

    def __init__(self, folder: Path, context: Context, host: str) -> None:
        self.folder = folder
        self.context = context
        self.keys = Keyring(folder / "keys")
        self.authenticator = Authenticator(Keyring(folder / "keys"), context=context)
        self.router = Router(
            [f"tcp://{host}:*", f"ipc://{folder}/front"],
            ["tcp://127.0.0.1:*", f"ipc://{folder}/back"],
            context=context,
            authenticator=self.authenticator,
        )
        self.log = SocketNode(
            zmq.PUB, bindings=[f"tcp://{host}:*"], context=context, authenticator=self.authenticator
        )
        self.greeter = Greeter()

    @property
    def port(self) -> int:
        return int(self.router.frontends[0].rpartition(":")[2])

    @property
    def log_port(self) -> int:
        return int(self.log.endpoints[0].rpartition(":")[2])

    def node(self, station_key: StationKey | None, name: str = "", **options: Any) -> SocketNode:
        return SocketNode(
            zmq.DEALER,
            name,
            connections=[f"tcp://127.0.0.1:{self.port}"],
            options={**(curve_options(station_key) if station_key else {}), zmq.SNDTIMEO: 5000},
            context=options.get("context", self.context),
        )

    def client(self, station_key: StationKey | None, name: str = "", **options: Any) -> Client:
        return Client(
            self.node(station_key, name, **options), address="greeter-service", timeout=10
        )

    async def refused(self, reason: str, count: int = 1) -> None:
        """Wait for a number of connections that are refused for a reason."""
        counts = self.authenticator.refusals.counts
        while counts.get(reason, 0) < count:  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)


@contextlib.asynccontextmanager
async def run_setup(folder: Path, host: str) -> AsyncIterator[Setup]:
    context: Context = zmq.Context()
    setup = Setup(folder, context, host)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await nursery.start(setup.authenticator.run)
            await nursery.start(setup.router.run)
            node = SocketNode(
                zmq.DEALER, "greeter-service", connections=[f"ipc://{folder}/back"], context=context
            )
            setup.service = Service(node, setup.greeter)
            await nursery.start(setup.service.run)
            async with setup.log:
                nursery.start_soon(publish, setup.log)
                yield setup
                nursery.cancel_scope.cancel()
    context.destroy(linger=0)


async def publish(log: SocketNode) -> None:
    while True:
        await log.send(b"info", b"a line" * 10)
        await trio.sleep(0.01)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Setup]:
    """A robot that listens on loopback only."""
    async with run_setup(tmp_path, "127.0.0.1") as setup:
        yield setup


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Setup]:
    """A robot that listens on the network."""
    async with run_setup(tmp_path, "*") as setup:
        yield setup


def local_client(setup: Setup) -> Client:
    """A client of the robot's user."""
    node = SocketNode(
        zmq.DEALER, "own", connections=[f"ipc://{setup.folder}/front"], context=setup.context
    )
    return Client(node, address="greeter-service", timeout=10)


async def as_another(program: str, *arguments: object) -> str:
    return await trio.to_thread.run_sync(lambda: run_stranger(program, *map(str, arguments)))


async def test_this_user_needs_no_key_over_tcp(local: Setup) -> None:
    async with local.client(None) as client:
        assert await client.call.greet("robot") == "hello robot"


async def test_another_user_is_refused_over_tcp(local: Setup) -> None:
    require_another_user()
    payload = rpc.encode(rpc.Request(1, "greet", ["stranger"])).hex()
    with structlog.testing.capture_logs() as logs:
        local.authenticator.refusals._log = structlog.get_logger()
        assert await as_another(CALL, local.port, payload) == "closed"
        await local.refused(NO_KEY)
    assert local.greeter.greeted == 0
    assert [entry["uid"] for entry in logs if entry["event"] == "connection refused"] == [UID]


async def test_another_user_cannot_read_the_log(local: Setup) -> None:
    require_another_user()
    assert await as_another(LISTEN, local.log_port) == "False"


async def test_another_user_cannot_connect_as_a_service(local: Setup) -> None:
    require_another_user()
    backend = int(local.router.backends[0].rpartition(":")[2])
    assert await as_another(CALL, backend, "00") == "closed"
    await local.refused(ANOTHER_USER)


async def test_another_user_with_a_key_acts_as_the_station(local: Setup) -> None:
    require_another_user()
    key = local.keys.new("blue")
    payload = rpc.encode(rpc.Request(1, "greet", ["blue"])).hex()
    keys = (key.robot_public, key.public, key.secret)
    answer = rpc.decode(bytes.fromhex(await as_another(WITH_KEY, local.port, *keys, payload)))
    assert isinstance(answer, rpc.Response)
    assert answer.result == "hello blue"


async def test_key_of_another_robot_is_refused(local: Setup, tmp_path: Path) -> None:
    require_another_user()
    key = Keyring(tmp_path / "elsewhere").new("blue")
    keys = (key.robot_public, key.public, key.secret)
    with start_stranger(WITH_KEY, str(local.port), *keys, "00") as process:
        await local.refused(NO_STATIONS)
        process.kill()
    assert local.greeter.greeted == 0


async def test_messages_of_closed_foreign_connections_are_dropped(local: Setup) -> None:
    # The kernel lists a closed socket as root's; its earlier messages must not count as root's.
    require_another_user()
    program = """
for _ in range(50):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as stream:
        stream.sendall(strangers.pipelined(bytes.fromhex(sys.argv[2])))
"""
    await as_another(program, local.port, rpc.encode(rpc.Notification("greet", ["stranger"])).hex())
    async with local.client(None) as client:
        assert await client.call.greet("robot") == "hello robot"
    assert local.greeter.greeted == 1


async def test_abstract_socket_refuses_other_users(tmp_path: Path) -> None:
    require_another_user()
    context: Context = zmq.Context()
    authenticator = Authenticator(Keyring(tmp_path / "keys"), context=context)
    name = f"rt-test-{tmp_path.name}-{tmp_path.parent.name}"
    program = """
stream = socket.socket(socket.AF_UNIX)
stream.connect(chr(0) + sys.argv[1])
stream.settimeout(30)
try:
    print(stream.recv(100))
except ConnectionError:
    print(b"")
"""
    async with SocketNode(
        zmq.PUB, bindings=[f"ipc://@{name}"], context=context, authenticator=authenticator
    ):
        assert await as_another(program, name) == "b''"
        async with SocketNode(zmq.SUB, connections=[f"ipc://@{name}"], context=context) as own:
            own._open().subscribe(b"")
            await trio.lowlevel.checkpoint()
    context.destroy(linger=0)


async def station_peers(setup: Setup, client: Client) -> list[bytes]:
    """Make a call with a client; return the names of all peers of stations."""
    assert await client.call.greet("robot") == "hello robot"
    assert setup.router._targets
    side = setup.router._targets[0]
    assert isinstance(side, StationSide)
    return list(side)


@pytest.mark.parametrize(
    "claim", ["blue", "panel", "blue/panel", "greeter-service", "x" * 255, "a b", ""]
)
async def test_station_cannot_take_the_name_of_another(network: Setup, claim: str) -> None:
    blue, red = network.keys.new("blue"), network.keys.new("red")
    async with network.client(blue, "panel") as honest, network.client(blue, "blue") as second:
        await station_peers(network, honest)
        await station_peers(network, second)
        async with network.client(red, claim) as hostile:
            names = await station_peers(network, hostile)
            assert sorted(map(station_of, names)) == ["blue", "blue", "red"]
            for client in (honest, second, hostile):
                assert await client.call.greet("again") == "hello again"


async def test_silent_connection_gets_no_name(network: Setup) -> None:
    blue, red = network.keys.new("blue"), network.keys.new("red")
    async with network.client(blue, "panel") as honest:
        await station_peers(network, honest)
        async with network.node(red, "panel") as silent:
            while network.authenticator.admitted < 2:  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)
            assert await honest.call.greet("still") == "hello still"
            del silent


@pytest.mark.parametrize("claim", ["panel-client", "greeter-service"])
async def test_station_cannot_take_the_name_of_a_local_peer(network: Setup, claim: str) -> None:
    red = network.keys.new("red")
    node = SocketNode(
        zmq.DEALER,
        "panel-client",
        connections=[f"ipc://{network.folder}/front"],
        context=network.context,
    )
    async with (
        Client(node, address="greeter-service") as panel,
        network.client(red, claim) as hostile,
    ):
        assert await panel.call.greet("panel") == "hello panel"
        assert await hostile.call.greet("red") == "hello red"
        assert await panel.call.greet("panel") == "hello panel"
        assert await hostile.call.greet("red") == "hello red"


async def test_claim_of_a_reserved_name_is_logged(network: Setup) -> None:
    red = network.keys.new("red")
    side = network.router._targets[0]
    assert isinstance(side, StationSide)
    with structlog.testing.capture_logs() as logs:
        side._refusals._log = structlog.get_logger()
        async with network.client(red, "greeter-service") as hostile:
            await station_peers(network, hostile)
    assert [entry["station"] for entry in logs if "reserved name" in entry["event"]] == ["red"]


async def test_station_gets_its_name_back_after_a_reconnect(network: Setup) -> None:
    blue = network.keys.new("blue")
    async with network.client(blue, "panel") as first:
        assert await station_peers(network, first) == [b"blue/panel"]
        # The old connection may stay open for seconds after the radio link is lost.
        async with network.client(blue, "panel") as second:
            assert await station_peers(network, second) == [b"blue/panel"]
            names = await station_peers(network, first)
            assert len(names) == 2
            assert await second.call.greet("both") == await first.call.greet("both") == "hello both"


async def test_local_peer_cannot_take_the_name_of_a_station(network: Setup) -> None:
    node = SocketNode(
        zmq.DEALER,
        "blue/panel",
        connections=[f"ipc://{network.folder}/front"],
        context=network.context,
    )
    async with Client(node, address="greeter-service", timeout=10) as client:
        with pytest.raises(RemoteCallError, match="reserved for a station"):
            await client.call.greet("x")


async def test_disconnect_of_a_station_is_recorded(network: Setup) -> None:
    blue = network.keys.new("blue")
    before = network.router.counters.gone
    async with network.client(blue) as client:
        (name,) = await station_peers(network, client)
        assert station_of(name) == "blue"
    while network.router.counters.gone == before:  # noqa: ASYNC110 - no event
        await trio.sleep(0.01)
    side = network.router._targets[0]
    assert isinstance(side, StationSide)
    assert list(side) == []


async def test_only_the_revoked_station_loses_its_connection(network: Setup) -> None:
    blue, red = network.keys.new("blue"), network.keys.new("red")
    async with network.client(blue, "b") as out, network.client(red, "r") as stays:
        await station_peers(network, out)
        assert len(await station_peers(network, stays)) == 2
        admitted = network.authenticator.admitted
        network.keys.revoke("blue")
        while len(await station_peers(network, stays)) == 2:  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)
        assert network.authenticator.admitted == admitted
        with pytest.raises(RemoteCallError):
            await out.call.greet("x", timeout=1)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (GREETING, NO_KEY),
        (GREETING.replace(b"NULL\0", b"PLAIN"), NO_KEY),
        (GREETING.replace(b"NULL\0", b"CURVE") + b"\x04\xc8\x05HELLO" + bytes(194), FAILED),
        (b"GET / HTTP/1.1\r\n\r\n", NOT_ZMTP),
        (b"\x01\x00" * 20, NOT_ZMTP),
        (b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00", NOT_ZMTP),
        (b"", NOT_ZMTP),
    ],
    ids=["no key", "password", "wrong robot", "HTTP", "ZMTP 1", "ZMTP 2", "nothing"],
)
async def test_failed_handshake_is_counted_and_logged(
    network: Setup, sent: bytes, reason: str
) -> None:
    network.keys.new("blue")
    with structlog.testing.capture_logs() as logs:
        network.authenticator.refusals._log = structlog.get_logger()
        async with await trio.open_tcp_stream("127.0.0.1", network.port) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            await network.refused(reason)
    (entry,) = [entry for entry in logs if entry["event"] == "connection refused"]
    assert (entry["reason"], entry["peer"], entry["log_level"]) == (reason, "127.0.0.1", "warning")


async def test_unknown_key_is_counted_and_logged_once_a_second(
    network: Setup, tmp_path: Path
) -> None:
    network.keys.new("blue")
    other = Keyring(tmp_path / "elsewhere").new("blue")
    unknown = StationKey(
        "x", network.keys.robot().public, other.public, other.secret, other.datagram
    )
    with structlog.testing.capture_logs() as logs:
        network.authenticator.refusals._log = structlog.get_logger()
        async with network.node(unknown), network.node(unknown):
            await network.refused(UNKNOWN_KEY, 2)
    refused = [entry for entry in logs if entry["event"] == "connection refused"]
    assert 1 <= len(refused) <= network.authenticator.refusals.counts[UNKNOWN_KEY]
    assert {entry["peer"] for entry in refused} == {"127.0.0.1"}


async def test_connections_without_keys_do_not_exclude_a_station(network: Setup) -> None:
    network.authenticator.limits = Limits(handshakes_per_host=4)
    blue = network.keys.new("blue")
    async with contextlib.AsyncExitStack() as stack, network.client(blue) as station:
        await station.call.greet("robot")
        for _ in range(10):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", network.port))
        await network.refused(CROWDED, 6)
        assert await station.call.greet("still") == "hello still"


CURVE_GREETING = GREETING.replace(b"NULL\0", b"CURVE")


@pytest.mark.parametrize(
    "sent",
    [b"", CURVE_GREETING[:11], CURVE_GREETING, CURVE_GREETING + b"\x04\xc8\x05HELLO"],
    ids=["silent", "half a greeting", "greeting", "half a hello"],
)
async def test_full_handshake_table_does_not_exclude_a_station(network: Setup, sent: bytes) -> None:
    network.authenticator.limits = Limits(
        handshake_timeout=1000 * 3600, handshakes=8, handshakes_per_host=100, greeted=4
    )
    blue = network.keys.new("blue")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            stream = await stack.enter_async_context(
                await trio.open_tcp_stream("127.0.0.1", network.port)
            )
            await stream.send_all(sent)
        await network.refused(CROWDED, 4)
        for _ in range(3):
            async with network.client(blue) as station:
                assert await station.call.greet("robot") == "hello robot"
    assert network.authenticator.refusals.counts.keys() <= {CROWDED, FAILED, NOT_ZMTP}


FLOOD = """
streams = {}
poll, number, is_full = __import__("select").epoll(), 0, False
while True:
    while len(streams) < 400:
        stream = socket.socket()
        stream.setblocking(False)
        stream.bind((f"127.{1 + number % 120}.0.9", 0))
        stream.connect_ex(("127.0.0.1", int(sys.argv[1])))
        streams[stream.fileno()] = stream
        poll.register(stream, 1)
        number += 1
    if number > 400 and not is_full:
        is_full = True
        print("full", flush=True)
    for fd, _ in poll.poll():
        try:
            if streams[fd].recv(100):
                continue
        except BlockingIOError:
            continue
        except OSError:
            pass
        streams.pop(fd).close()
"""


async def test_flood_from_many_addresses_does_not_exclude_a_station(network: Setup) -> None:
    require_another_user()
    blue = network.keys.new("blue")
    with start_stranger(FLOOD, str(network.port)) as process:
        try:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == "full\n"
            for _ in range(5):
                await probe(
                    f"tcp://127.0.0.1:{network.port}", blue, timeout=20, context=network.context
                )
                async with network.client(blue) as station:
                    assert await station.call.greet("robot") == "hello robot"
        finally:
            process.kill()
    assert network.authenticator.refusals.counts[CROWDED] > 0


async def test_handshakes_leave_room_for_new_keyed_connections(network: Setup) -> None:
    network.authenticator.limits = Limits(keyed=4)
    blue = network.keys.new("blue")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(network.client(blue))
            await client.call.greet("robot")
        for _ in range(4):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", network.port))
        await network.refused(CROWDED, 2)
        for _ in range(2):
            client = await stack.enter_async_context(network.client(blue))
            assert await client.call.greet("robot") == "hello robot"
        await stack.enter_async_context(network.node(blue))
        await network.refused(CROWDED_STATIONS)


async def test_number_of_connections_of_a_station_is_bounded(network: Setup) -> None:
    network.authenticator.limits = Limits(per_station=3)
    blue, red = network.keys.new("blue"), network.keys.new("red")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(network.client(blue))
            await client.call.greet("robot")
        await stack.enter_async_context(network.node(blue))
        await network.refused(CROWDED_STATION)
        other = await stack.enter_async_context(network.client(red))
        assert await other.call.greet("robot") == "hello robot"
    while network.authenticator._connected.total():  # noqa: ASYNC110 - no event
        await trio.sleep(0.01)


async def test_connections_of_one_station_share_its_quota(
    network: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs that never wait for a response, and reconnect, leave quota for other peers."""
    monkeypatch.setattr(network.router, "_quota_of_station", Quota(STATION_SCALE, rate=0.0))
    blue, red = network.keys.new("blue"), network.keys.new("red")
    notification = rpc.encode(rpc.Notification("greet", ["blue"]))
    for dropped in (
        3 * MAX_UNANSWERED - STATION_SCALE * MAX_UNANSWERED,
        6 * MAX_UNANSWERED - STATION_SCALE * MAX_UNANSWERED,
    ):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                node = await stack.enter_async_context(network.node(blue))
                for _ in range(MAX_UNANSWERED):
                    await node.send(b"greeter-service", notification)
            while network.router.counters.dropped < dropped:  # noqa: ASYNC110 - no event
                await trio.sleep(0.01)
    async with (
        network.client(blue) as flooder,
        network.client(red) as other,
        local_client(network) as own,
    ):
        with pytest.raises(
            RemoteCallError,
            match=f"{STATION_SCALE * MAX_UNANSWERED} messages of station blue are unanswered",
        ):
            await flooder.call.greet("x")
        assert await other.call.greet("red") == "hello red"
        assert await own.call.greet("robot") == "hello robot"
    assert network.greeter.greeted == STATION_SCALE * MAX_UNANSWERED + 2


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b"\xc1", "malformed call"),
        (b"\xc1" * 2000, "malformed call"),
        (rpc.encode(rpc.Notification("none", [])), "notification failed"),
        (rpc.encode(rpc.Notification("greet", [1, 2])), "notification failed"),
        (rpc.encode(rpc.Response(1, None, None)), "unexpected response"),
        (rpc.encode(rpc.Request(1, "fail", [])), "handler failed"),
    ],
    ids=["garbage", "long garbage", "no method", "wrong arguments", "response", "bug"],
)
async def test_station_cannot_flood_the_log(
    network: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes, event: str
) -> None:
    monkeypatch.setattr(log, "_caller_throttle", CallerThrottle(lambda: 1000.0))
    monkeypatch.setattr(network.router, "_quota_of_station", Quota(100))
    blue = network.keys.new("blue")
    path = tmp_path / "events"
    try:
        with path.open("w") as stream:
            log.configure(level="debug", stream=stream)
            async with network.node(blue) as node:
                for _ in range(4 * BURST):
                    await node.send(b"greeter-service", payload)
                seen = network.service.counters
                while seen.malformed + seen.errors + seen.calls < 4 * BURST:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                while event not in path.read_text():  # a call is counted before its error is logged
                    stream.flush()
                    await trio.sleep(0.01)
    finally:
        structlog.reset_defaults()
    logged = [
        each
        for line in path.read_text().splitlines()
        if (each := json.loads(line))["event"] == event
    ]
    assert 0 < len(logged) <= BURST


async def test_flooding_program_does_not_block_others_of_its_station(network: Setup) -> None:
    blue = network.keys.new("blue")
    async with network.node(blue) as node, network.client(blue, "panel") as panel:
        for number in range(2 * MAX_UNANSWERED):
            await node.send(b"greeter-service", rpc.encode(rpc.Request(number, "hang", [])))
        while network.router.counters.answered == 0:  # noqa: ASYNC110 - no event
            await trio.sleep(0.01)
        assert await panel.call.greet("panel") == "hello panel"


@pytest.mark.parametrize(
    "error", [zmq.ZMQError(errno.EMFILE), OSError(errno.EMFILE, "Too many open files")]
)
async def test_lack_of_descriptors_only_refuses_the_connection(
    network: Setup, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    blue = network.keys.new("blue")
    side = network.router._targets[0]
    assert isinstance(side, StationSide)

    def fail() -> None:
        raise error

    with monkeypatch.context() as scarce:
        scarce.setattr(side, "make_socket", fail)
        async with network.node(blue):
            await network.refused(UNUSABLE)
    async with network.client(blue) as client:
        assert await client.call.greet("robot") == "hello robot"


@pytest.mark.parametrize(
    ("name", "station"),
    [
        (b"blue/x", "blue"),
        (b"\0station/blue/7", "blue"),
        (b"\0/abc", ""),
        (b"broker-client", ""),
        (b"", ""),
    ],
)
def test_station_of_a_name(name: bytes, station: str) -> None:
    assert station_of(name) == station


async def test_last_message_arrives_after_shutdown(tmp_path: Path) -> None:
    """Connections outlive the sockets for a moment, so that shutdown loses no message."""
    context: Context = zmq.Context()
    setup = Setup(tmp_path, context, "127.0.0.1")
    elsewhere: Context = zmq.Context()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(setup.authenticator.run)
            log = SocketNode(
                zmq.PUB,
                bindings=["tcp://127.0.0.1:*"],
                context=context,
                authenticator=setup.authenticator,
            )
            async with SocketNode(zmq.SUB, subscriptions=[b""], context=elsewhere) as listener:
                async with log:
                    listener._open().connect(log.endpoints[0])
                    is_connected = False
                    while not is_connected:
                        await log.send(b"info", b"early")
                        with trio.move_on_after(0.05):
                            is_connected = (await listener.recv())[1] == b"early"
                    for _ in range(100):
                        await log.send(b"info", b"late")
                    await log.send(b"info", b"last")
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    while (await listener.recv())[1] != b"last":
                        pass
    context.destroy(linger=0)
    elsewhere.destroy(linger=0)
