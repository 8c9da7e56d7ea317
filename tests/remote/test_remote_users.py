"""Who comes over TCP: this user, another user of the computer, and stations, none of which can be taken for another."""

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
from rt.errors import RemoteCallError
from rt.keys import Bundle, Keyring
from rt.log.charged import BURST, Charges
from rt.protocol import rpc
from rt.remote import Client, Gate, Handler, Router, Service, SocketNode, route
from rt.remote.gate import (
    CROWDED,
    CROWDED_STATIONS,
    FAILED,
    NO_KEY,
    NO_STATIONS,
    NOT_ZMTP,
    UNKNOWN_KEY,
    curve_options,
)
from rt.remote.handshake import shake_hands
from rt.remote.peer import ANOTHER_USER
from rt.remote.quota import MOST, STATION, Quota
from rt.remote.stations import StationSide, station_of

Context = zmq.Context[zmq.Socket[bytes]]

CALL = """
strangers.call(int(sys.argv[1]), sys.argv[2].encode())
"""
LISTEN = """
stream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
stream.settimeout(30)
strangers.subscribe(stream)
heard = b"".join(iter(lambda: stream.recv(4096), b""))
print(len(heard) > 200)
"""
WITH_KEY = """
context = zmq.Context()
client = context.socket(zmq.DEALER)
client.curve_serverkey, client.curve_publickey, client.curve_secretkey = (each.encode() for each in sys.argv[2:5])
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
        """Fail as a bug does."""
        raise ValueError("a bug")

    @route(urgent=True)
    async def hang(self) -> None:
        """Leave a call unanswered."""
        await trio.sleep_forever()


class Place:
    """A robot's router and log, its keys, and a service."""

    service: Service

    def __init__(self, folder: Path, context: Context, host: str) -> None:
        self.folder = folder
        self.context = context
        self.keys = Keyring(folder / "keys")
        self.gate = Gate(Keyring(folder / "keys"), context=context)
        self.router = Router(
            [f"tcp://{host}:*", f"ipc://{folder}/front"],
            ["tcp://127.0.0.1:*", f"ipc://{folder}/back"],
            context=context,
            gate=self.gate,
        )
        self.log = SocketNode(zmq.PUB, bindings=[f"tcp://{host}:*"], context=context, gate=self.gate)
        self.greeter = Greeter()

    @property
    def port(self) -> int:
        return int(self.router.frontends[0].rpartition(":")[2])

    @property
    def log_port(self) -> int:
        return int(self.log.endpoints[0].rpartition(":")[2])

    def node(self, bundle: Bundle | None, name: str = "", **options: Any) -> SocketNode:
        return SocketNode(
            zmq.DEALER,
            name,
            connections=[f"tcp://127.0.0.1:{self.port}"],
            options={**(curve_options(bundle) if bundle else {}), zmq.SNDTIMEO: 5000},
            context=options.get("context", self.context),
        )

    def client(self, bundle: Bundle | None, name: str = "", **options: Any) -> Client:
        return Client(self.node(bundle, name, **options), address="greeter-service", timeout=10)

    async def refused(self, reason: str, count: int = 1) -> None:
        """Wait until so many connections were refused for a reason."""
        while self.gate.refusals.counts.get(reason, 0) < count:  # noqa: ASYNC110 - a counter rings no bell
            await trio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(folder: Path, host: str) -> AsyncIterator[Place]:
    context: Context = zmq.Context()
    place = Place(folder, context, host)
    with trio.fail_after(120):
        async with trio.open_nursery() as nursery:
            await nursery.start(place.gate.run)
            await nursery.start(place.router.run)
            node = SocketNode(zmq.DEALER, "greeter-service", connections=[f"ipc://{folder}/back"], context=context)
            place.service = Service(node, place.greeter)
            await nursery.start(place.service.run)
            async with place.log:
                nursery.start_soon(publish, place.log)
                yield place
                nursery.cancel_scope.cancel()
    context.destroy(linger=0)


async def publish(log: SocketNode) -> None:
    while True:
        await log.send(b"info", b"a line" * 10)
        await trio.sleep(0.01)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Place]:
    """A robot that listens to its own computer only."""
    async with running(tmp_path, "127.0.0.1") as place:
        yield place


@pytest.fixture
async def open_place(tmp_path: Path) -> AsyncIterator[Place]:
    """A robot that is open to the network."""
    async with running(tmp_path, "*") as place:
        yield place


def local_client(place: Place) -> Client:
    """A client of the robot's user."""
    node = SocketNode(zmq.DEALER, "own", connections=[f"ipc://{place.folder}/front"], context=place.context)
    return Client(node, address="greeter-service", timeout=10)


async def as_another(program: str, *arguments: object) -> str:
    return await trio.to_thread.run_sync(lambda: run_stranger(program, *map(str, arguments)))


async def test_this_user_calls_over_tcp_without_a_key(local: Place) -> None:
    async with local.client(None) as client:
        assert await client.call.greet("robot") == "hello robot"


async def test_another_user_is_refused_over_tcp(local: Place) -> None:
    require_another_user()
    payload = rpc.encode(rpc.Request(1, "greet", ["stranger"])).hex()
    with structlog.testing.capture_logs() as logs:
        local.gate.refusals._log = structlog.get_logger()
        assert await as_another(CALL, local.port, payload) == "closed"
        await local.refused(NO_KEY)
    assert local.greeter.greeted == 0
    assert [entry["uid"] for entry in logs if entry["event"] == "a connection was refused"] == [UID]


async def test_another_user_does_not_read_the_log(local: Place) -> None:
    require_another_user()
    assert await as_another(LISTEN, local.log_port) == "False"


async def test_another_user_is_no_service(local: Place) -> None:
    require_another_user()
    backend = int(local.router.backends[0].rpartition(":")[2])
    assert await as_another(CALL, backend, "00") == "closed"
    await local.refused(ANOTHER_USER)


async def test_another_user_with_a_stations_key_is_that_station(local: Place) -> None:
    require_another_user()
    key = local.keys.new("blue")
    payload = rpc.encode(rpc.Request(1, "greet", ["blue"])).hex()
    keys = (key.robot_public, key.public, key.secret)
    answer = rpc.decode(bytes.fromhex(await as_another(WITH_KEY, local.port, *keys, payload)))
    assert isinstance(answer, rpc.Response)
    assert answer.result == "hello blue"


async def test_key_of_another_robot_admits_no_other_user(local: Place, tmp_path: Path) -> None:
    require_another_user()
    key = Keyring(tmp_path / "elsewhere").new("blue")
    keys = (key.robot_public, key.public, key.secret)
    with start_stranger(WITH_KEY, str(local.port), *keys, "00") as process:
        await local.refused(NO_STATIONS)
        process.kill()
    assert local.greeter.greeted == 0


async def test_closed_connection_of_another_user_leaves_nothing_behind(local: Place) -> None:
    # A closed socket belongs to no user; what it has sent before may not be taken for root's.
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


async def test_abstract_socket_admits_no_other_user(tmp_path: Path) -> None:
    require_another_user()
    context: Context = zmq.Context()
    gate = Gate(Keyring(tmp_path / "keys"), context=context)
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
    async with SocketNode(zmq.PUB, bindings=[f"ipc://@{name}"], context=context, gate=gate):
        assert await as_another(program, name) == "b''"
        async with SocketNode(zmq.SUB, connections=[f"ipc://@{name}"], context=context) as own:
            own.subscribe(b"")
            await trio.lowlevel.checkpoint()
    context.destroy(linger=0)


async def spoken(place: Place, client: Client) -> list[bytes]:
    """The names of the stations' peers, once a client is one of them."""
    assert await client.call.greet("robot") == "hello robot"
    assert place.router._targets
    side = place.router._targets[0]
    assert isinstance(side, StationSide)
    return list(side)


@pytest.mark.parametrize("claim", ["blue", "panel", "blue/panel", "greeter-service", "x" * 255, "a b", ""])
async def test_no_station_takes_a_name_of_another(open_place: Place, claim: str) -> None:
    blue, red = open_place.keys.new("blue"), open_place.keys.new("red")
    async with open_place.client(blue, "panel") as honest, open_place.client(blue, "blue") as second:
        await spoken(open_place, honest)
        await spoken(open_place, second)
        async with open_place.client(red, claim) as hostile:
            names = await spoken(open_place, hostile)
            assert sorted(map(station_of, names)) == ["blue", "blue", "red"]
            for client in (honest, second, hostile):
                assert await client.call.greet("again") == "hello again"


async def test_silent_connection_takes_no_name(open_place: Place) -> None:
    blue, red = open_place.keys.new("blue"), open_place.keys.new("red")
    async with open_place.client(blue, "panel") as honest:
        await spoken(open_place, honest)
        async with open_place.node(red, "panel") as silent:
            while open_place.gate.counters.admitted < 2:  # noqa: ASYNC110 - a counter rings no bell
                await trio.sleep(0.01)
            assert await honest.call.greet("still") == "hello still"
            del silent


@pytest.mark.parametrize("claim", ["panel-client", "greeter-service"])
async def test_station_takes_no_name_of_a_local_peer(open_place: Place, claim: str) -> None:
    red = open_place.keys.new("red")
    node = SocketNode(
        zmq.DEALER, "panel-client", connections=[f"ipc://{open_place.folder}/front"], context=open_place.context
    )
    async with Client(node, address="greeter-service") as panel, open_place.client(red, claim) as hostile:
        assert await panel.call.greet("panel") == "hello panel"
        assert await hostile.call.greet("red") == "hello red"
        assert await panel.call.greet("panel") == "hello panel"
        assert await hostile.call.greet("red") == "hello red"


async def test_request_for_a_name_of_another_is_logged(open_place: Place) -> None:
    red = open_place.keys.new("red")
    side = open_place.router._targets[0]
    assert isinstance(side, StationSide)
    with structlog.testing.capture_logs() as logs:
        side._refusals._log = structlog.get_logger()
        async with open_place.client(red, "greeter-service") as hostile:
            await spoken(open_place, hostile)
    assert [entry["station"] for entry in logs if "asked for a name" in entry["event"]] == ["red"]


async def test_same_station_has_its_name_again_after_a_reconnect(open_place: Place) -> None:
    blue = open_place.keys.new("blue")
    async with open_place.client(blue, "panel") as first:
        assert await spoken(open_place, first) == [b"blue/panel"]
        # The old connection may stand for seconds after the radio was lost.
        async with open_place.client(blue, "panel") as second:
            assert await spoken(open_place, second) == [b"blue/panel"]
            names = await spoken(open_place, first)
            assert len(names) == 2
            assert await second.call.greet("both") == await first.call.greet("both") == "hello both"


async def test_peer_of_this_user_has_no_name_of_a_station(open_place: Place) -> None:
    node = SocketNode(
        zmq.DEALER, "blue/panel", connections=[f"ipc://{open_place.folder}/front"], context=open_place.context
    )
    async with Client(node, address="greeter-service", timeout=10) as client:
        with pytest.raises(RemoteCallError, match="name of a station"):
            await client.call.greet("x")


async def test_services_learn_which_station_has_gone(open_place: Place) -> None:
    blue = open_place.keys.new("blue")
    before = open_place.router.counters.gone
    async with open_place.client(blue) as client:
        (name,) = await spoken(open_place, client)
        assert station_of(name) == "blue"
    while open_place.router.counters.gone == before:  # noqa: ASYNC110 - a counter rings no bell
        await trio.sleep(0.01)
    side = open_place.router._targets[0]
    assert isinstance(side, StationSide)
    assert list(side) == []


async def test_only_the_revoked_station_loses_its_connection(open_place: Place) -> None:
    blue, red = open_place.keys.new("blue"), open_place.keys.new("red")
    async with open_place.client(blue, "b") as out, open_place.client(red, "r") as stays:
        await spoken(open_place, out)
        assert len(await spoken(open_place, stays)) == 2
        admitted = open_place.gate.counters.admitted
        open_place.keys.revoke("blue")
        while len(await spoken(open_place, stays)) == 2:  # noqa: ASYNC110 - a name rings no bell
            await trio.sleep(0.01)
        assert open_place.gate.counters.admitted == admitted
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
async def test_failed_handshake_is_counted_and_logged_with_its_address(
    open_place: Place, sent: bytes, reason: str
) -> None:
    open_place.keys.new("blue")
    with structlog.testing.capture_logs() as logs:
        open_place.gate.refusals._log = structlog.get_logger()
        async with await trio.open_tcp_stream("127.0.0.1", open_place.port) as stream:
            await stream.send_all(sent)
            await stream.send_eof()
            await open_place.refused(reason)
    (said,) = [entry for entry in logs if entry["event"] == "a connection was refused"]
    assert (said["reason"], said["peer"], said["log_level"]) == (reason, "127.0.0.1", "warning")


async def test_unknown_key_is_counted_and_logged_once_a_second(open_place: Place, tmp_path: Path) -> None:
    open_place.keys.new("blue")
    other = Keyring(tmp_path / "elsewhere").new("blue")
    unknown = Bundle("x", open_place.keys.robot().public, other.public, other.secret, other.datagram)
    with structlog.testing.capture_logs() as logs:
        open_place.gate.refusals._log = structlog.get_logger()
        async with open_place.node(unknown), open_place.node(unknown):
            await open_place.refused(UNKNOWN_KEY, 2)
    said = [entry for entry in logs if entry["event"] == "a connection was refused"]
    assert 1 <= len(said) <= open_place.gate.refusals.counts[UNKNOWN_KEY]
    assert {entry["peer"] for entry in said} == {"127.0.0.1"}


async def test_crowd_without_keys_keeps_no_station_out(open_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rt.remote.gate.MOST_HANDSHAKES_OF_HOST", 4)
    blue = open_place.keys.new("blue")
    async with contextlib.AsyncExitStack() as stack, open_place.client(blue) as station:
        await station.call.greet("robot")
        for _ in range(10):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", open_place.port))
        await open_place.refused("too many connections without a key", 6)
        assert await station.call.greet("still") == "hello still"


CURVE_GREETING = GREETING.replace(b"NULL\0", b"CURVE")


@pytest.mark.parametrize(
    "sent",
    [b"", CURVE_GREETING[:11], CURVE_GREETING, CURVE_GREETING + b"\x04\xc8\x05HELLO"],
    ids=["silent", "half a greeting", "greeting", "half a hello"],
)
async def test_full_table_of_handshakes_keeps_no_station_out(
    open_place: Place, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    for name, most in (("MOST_HANDSHAKES", 8), ("MOST_HANDSHAKES_OF_HOST", 100), ("MOST_GREETED", 4)):
        monkeypatch.setattr(f"rt.remote.gate.{name}", most)
    monkeypatch.setattr("rt.remote.gate.HANDSHAKE_TIMEOUT", 1000 * 3600)
    blue = open_place.keys.new("blue")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(12):
            stream = await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", open_place.port))
            await stream.send_all(sent)
        await open_place.refused(CROWDED, 4)
        for _ in range(3):
            async with open_place.client(blue) as station:
                assert await station.call.greet("robot") == "hello robot"
    assert open_place.gate.refusals.counts.keys() <= {CROWDED, FAILED, NOT_ZMTP}


FLOOD = """
streams = {}
poll, number, said = __import__("select").epoll(), 0, False
while True:
    while len(streams) < 400:
        stream = socket.socket()
        stream.setblocking(False)
        stream.bind((f"127.{1 + number % 120}.0.9", 0))
        stream.connect_ex(("127.0.0.1", int(sys.argv[1])))
        streams[stream.fileno()] = stream
        poll.register(stream, 1)
        number += 1
    if number > 400 and not said:
        said = True
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


async def test_another_users_flood_from_many_addresses_keeps_no_station_out(open_place: Place) -> None:
    require_another_user()
    blue = open_place.keys.new("blue")
    with start_stranger(FLOOD, str(open_place.port)) as process:
        try:
            assert process.stdout is not None
            assert await trio.to_thread.run_sync(process.stdout.readline) == "full\n"
            for _ in range(5):
                await shake_hands(f"tcp://127.0.0.1:{open_place.port}", blue, timeout=20, context=open_place.context)
                async with open_place.client(blue) as station:
                    assert await station.call.greet("robot") == "hello robot"
        finally:
            process.kill()
    assert open_place.gate.refusals.counts[CROWDED] > 0


async def test_half_of_the_keyed_connections_leaves_room_for_a_newcomer(
    open_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.remote.gate.MOST_KEYED", 4)
    blue = open_place.keys.new("blue")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(2):
            client = await stack.enter_async_context(open_place.client(blue))
            await client.call.greet("robot")
        for _ in range(4):
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", open_place.port))
        await open_place.refused(CROWDED, 2)
        for _ in range(2):
            client = await stack.enter_async_context(open_place.client(blue))
            assert await client.call.greet("robot") == "hello robot"
        await stack.enter_async_context(open_place.node(blue))
        await open_place.refused(CROWDED_STATIONS)


async def test_station_has_a_bounded_number_of_connections(open_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rt.remote.gate.MOST_OF_STATION", 3)
    blue, red = open_place.keys.new("blue"), open_place.keys.new("red")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(open_place.client(blue))
            await client.call.greet("robot")
        await stack.enter_async_context(open_place.node(blue))
        await open_place.refused("too many connections of its station")
        other = await stack.enter_async_context(open_place.client(red))
        assert await other.call.greet("robot") == "hello robot"
    while open_place.gate._admitted:  # noqa: ASYNC110 - a counter rings no bell
        await trio.sleep(0.01)


async def test_connections_of_one_station_share_its_quota(open_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of a station that never wait for an answer, and connect anew, leave room for everybody else."""
    monkeypatch.setattr(open_place.router, "_quota_of_station", quota := Quota(STATION))
    monkeypatch.setattr(quota, "_rate", 0.0)
    blue, red = open_place.keys.new("blue"), open_place.keys.new("red")
    news = rpc.encode(rpc.Notification("greet", ["blue"]))
    for dropped in (3 * MOST - STATION * MOST, 6 * MOST - STATION * MOST):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                node = await stack.enter_async_context(open_place.node(blue))
                for _ in range(MOST):
                    await node.send(b"greeter-service", news)
            while open_place.router.counters.dropped < dropped:  # noqa: ASYNC110 - a counter rings no bell
                await trio.sleep(0.01)
    async with open_place.client(blue) as flooder, open_place.client(red) as other, local_client(open_place) as own:
        with pytest.raises(RemoteCallError, match=f"{STATION * MOST} messages of station blue are unanswered"):
            await flooder.call.greet("x")
        assert await other.call.greet("red") == "hello red"
        assert await own.call.greet("robot") == "hello robot"
    assert open_place.greeter.greeted == STATION * MOST + 2


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (b"\xc1", "a payload was no call"),
        (b"\xc1" * 2000, "a payload was no call"),
        (rpc.encode(rpc.Notification("none", [])), "a notification was not obeyed"),
        (rpc.encode(rpc.Notification("greet", [1, 2])), "a notification was not obeyed"),
        (rpc.encode(rpc.Response(1, None, None)), "an answer came to a service"),
        (rpc.encode(rpc.Request(1, "fail", [])), "a handler failed"),
    ],
    ids=["garbage", "long garbage", "no method", "wrong arguments", "answer", "bug"],
)
async def test_station_floods_the_log_with_nothing(
    open_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, payload: bytes, event: str
) -> None:
    monkeypatch.setattr(log, "_charges", Charges(lambda: 1000.0))
    monkeypatch.setattr(open_place.router, "_quota_of_station", Quota(100))
    blue = open_place.keys.new("blue")
    path = tmp_path / "events"
    try:
        with path.open("w") as stream:
            log.configure(level="debug", stream=stream)
            async with open_place.node(blue) as node:
                for _ in range(4 * BURST):
                    await node.send(b"greeter-service", payload)
                counters = open_place.service.counters
                while counters.malformed + counters.errors + counters.calls < 4 * BURST:  # noqa: ASYNC110 - a counter rings no bell
                    await trio.sleep(0.01)
                while event not in path.read_text():  # a call is counted before its error is logged
                    stream.flush()
                    await trio.sleep(0.01)
    finally:
        structlog.reset_defaults()
    said = [each for line in path.read_text().splitlines() if (each := json.loads(line))["event"] == event]
    assert 0 < len(said) <= BURST


async def test_one_program_of_a_station_does_not_keep_another_from_calling(open_place: Place) -> None:
    blue = open_place.keys.new("blue")
    async with open_place.node(blue) as node, open_place.client(blue, "panel") as panel:
        for number in range(2 * MOST):
            await node.send(b"greeter-service", rpc.encode(rpc.Request(number, "hang", [])))
        while open_place.router.counters.answered == 0:  # noqa: ASYNC110 - a counter rings no bell
            await trio.sleep(0.01)
        assert await panel.call.greet("panel") == "hello panel"


@pytest.mark.parametrize("error", [zmq.ZMQError(errno.EMFILE), OSError(errno.EMFILE, "Too many open files")])
async def test_scarcity_refuses_a_station_and_ends_nothing(
    open_place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    blue = open_place.keys.new("blue")
    side = open_place.router._targets[0]
    assert isinstance(side, StationSide)

    def fail() -> None:
        raise error

    with monkeypatch.context() as scarce:
        scarce.setattr(side, "make_socket", fail)
        async with open_place.node(blue):
            await open_place.refused("this process has no room for it")
    async with open_place.client(blue) as client:
        assert await client.call.greet("robot") == "hello robot"


@pytest.mark.parametrize(
    ("name", "station"),
    [(b"blue/x", "blue"), (b"\0station/blue/7", "blue"), (b"\0/abc", ""), (b"broker-client", ""), (b"", "")],
)
def test_station_of_a_name(name: bytes, station: str) -> None:
    assert station_of(name) == station


async def test_answer_that_was_sent_last_still_arrives(tmp_path: Path) -> None:
    """The end of the robot loses no answer: connections outlive the sockets for a moment."""
    context: Context = zmq.Context()
    place = Place(tmp_path, context, "127.0.0.1")
    elsewhere: Context = zmq.Context()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(place.gate.run)
            log = SocketNode(zmq.PUB, bindings=["tcp://127.0.0.1:*"], context=context, gate=place.gate)
            async with SocketNode(zmq.SUB, subscriptions=[b""], context=elsewhere) as listener:
                async with log:
                    listener.connect(log.endpoints[0])
                    heard = False
                    while not heard:
                        await log.send(b"info", b"early")
                        with trio.move_on_after(0.05):
                            heard = (await listener.recv())[1] == b"early"
                    for _ in range(100):
                        await log.send(b"info", b"late")
                    await log.send(b"info", b"last")
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    while (await listener.recv())[1] != b"last":
                        pass
    context.destroy(linger=0)
    elsewhere.destroy(linger=0)
