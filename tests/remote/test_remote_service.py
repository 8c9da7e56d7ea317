"""Clients and services: argument checks, errors, and robustness against malformed input."""

import threading
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import structlog
import trio
import trio.testing
import zmq
from support.serving import ADDRESS, robot
from trio.testing import MockClock

from rt.errors import DeviceError, EmergencyStopException, LocalProtocolError, RemoteCallError
from rt.protocol import rpc
from rt.protocol.datagrams import GamepadState, GamepadUpdate, encode_gamepads
from rt.remote import Client, DatagramNode, Handler, Service, SocketNode, route
from rt.remote.inbox import Call


class Device(Handler):
    """A handler with one method of each kind."""

    def __init__(self) -> None:
        self.proceed = trio.Event()
        self.entered = 0
        self.gamepads: list[GamepadUpdate] = []
        self.seen = trio.Event()

    @route
    async def ping(
        self, uids: str | list[str] | None = None, count: Annotated[int, msgspec.Meta(ge=1)] = 1
    ) -> list[Any]:
        """Ask devices who they are."""
        return [uids, count]

    @route(urgent=True)
    async def halt(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True

    @route(inline=True)
    def quick(self) -> str:
        return threading.current_thread().name

    @route
    def slow(self) -> str:
        return threading.current_thread().name

    @route
    async def total(self, *values: float) -> float:
        return sum(values)

    @route
    async def fail(self, kind: str) -> object:
        errors: dict[str, Exception] = {
            "ours": DeviceError("the device 7 is gone", uid="7"),
            "odd": DeviceError("odd", thing=object(), text="\ud800"),
            "bug": KeyError("x"),
            "stop": EmergencyStopException("stop now", by="test"),
        }
        if kind == "result":
            return object()
        raise errors[kind]

    @route
    async def wait(self) -> None:
        self.entered += 1
        await self.proceed.wait()

    @route(inline=True)
    def update_gamepads(self, update: GamepadUpdate) -> None:
        self.gamepads.append(update)
        self.seen.set()

    def hidden(self) -> None:
        raise AssertionError


async def test_call_returns_the_result_of_the_method(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, _):
        assert await client.call.ping() == [None, 1]
        assert await client.call.ping("1", 2) == ["1", 2]
        assert await client.call["ping"](["1", "2"], address=ADDRESS, timeout=5) == [["1", "2"], 1]
        assert await client.call.total(1, 2.5, 3) == 6.5
        assert await client.issue_call("total") == 0


async def test_plain_method_runs_in_worker_thread_unless_inline(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, _):
        assert await client.call.quick() == threading.current_thread().name
        assert await client.call.slow() != threading.current_thread().name


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        ("ping", [5], r"ping: argument uids came as 5: Expected `str \| array \| null`, got `int`"),
        ("ping", [None, 0], r"argument count came as 0: Expected `int` >= 1"),
        (
            "ping",
            [["1", 2]],
            r"argument uids came as \['1', 2\]: Expected `str`, got `int` - at `\$\[1\]`",
        ),
        (
            "ping",
            [1, 2, 3],
            r"ping\(uids: str \| list\[str\] \| None = None, .* cannot be called with 3 arguments",
        ),
        ("fail", [], r"fail\(kind: str\) -> object cannot be called with 0 arguments"),
        ("total", [1, "2"], r"argument \*values came as '2': Expected `float`, got `str`"),
        ("pong", [], "there is no method pong; did you mean ping?"),
        ("hidden", [], "there is no method hidden"),
        ("__init__", [], "there is no method __init__"),
    ],
)
async def test_error_names_the_invalid_argument_and_the_expected_type(
    tmp_path: Path, method: str, params: list[Any], message: str
) -> None:
    async with robot(tmp_path, Device()) as (client, serving):
        with pytest.raises(RemoteCallError, match=message):
            await client.call[method](*params)
        assert serving.counters.errors == 1
        assert await client.call.ping() == [None, 1]


async def test_error_of_rt_keeps_its_message_and_context(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, _):
        with pytest.raises(RemoteCallError, match="the device 7 is gone") as caught:
            await client.call.fail("ours")
        assert caught.value.context == {"uid": "7"}


async def test_error_with_unencodable_context_still_arrives(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, _):
        with pytest.raises(RemoteCallError, match="odd") as caught:
            await client.call.fail("odd")
        assert caught.value.context["text"] == "?"
        with pytest.raises(RemoteCallError, match="its result cannot be sent"):
            await client.call.fail("result")


async def test_exception_in_a_handler_does_not_end_the_service(tmp_path: Path) -> None:
    # Captured, because rendering the traceback can exceed the time limit on a busy machine.
    with structlog.testing.capture_logs() as logs:
        async with robot(tmp_path, Device()) as (client, _):
            with pytest.raises(RemoteCallError, match="KeyError: 'x'"):
                await client.call.fail("bug")
            assert await client.call.ping() == [None, 1]
    assert [entry["event"] for entry in logs] == ["handler failed"]


async def test_emergency_stop_is_answered_and_propagates(tmp_path: Path) -> None:
    async def main() -> None:
        async with robot(tmp_path, Device()) as (client, _):
            with pytest.raises(RemoteCallError, match="stop now"):
                await client.call.fail("stop")
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await main()
    assert caught.value.subgroup(EmergencyStopException)


async def test_describe_returns_signature_documentation_and_schema(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, _):
        methods = await client.call.describe()
    assert set(methods) == {
        "describe",
        "fail",
        "halt",
        "ping",
        "quick",
        "slow",
        "total",
        "update_gamepads",
        "wait",
    }
    ping = methods["ping"]
    assert ping["doc"] == "Ask devices who they are."
    assert ping["signature"].startswith("ping(uids: str | list[str] | None = None, count: int = 1)")
    schema = {"type": "integer", "minimum": 1}
    assert ping["arguments"][1] == {
        "name": "count",
        "required": False,
        "schema": schema,
        "type": "int",
        "default": "1",
    }
    assert ping["arguments"][0]["type"] == "str | list[str] | None"
    assert methods["total"]["arguments"] == [
        {
            "name": "*values",
            "required": False,
            "schema": {"type": "number"},
            "type": "float",
            "default": "",
        }
    ]


async def test_only_inline_and_urgent_calls_pass_a_full_backlog(tmp_path: Path) -> None:
    handler = Device()
    async with robot(tmp_path, handler, concurrency=2, backlog=2) as (client, serving):
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(lambda: client.issue_call("wait", timeout=10))
            while serving._open < 4:
                assert await client.call.quick()
            with pytest.raises(RemoteCallError, match="2 calls are waiting"):
                await client.call.wait(timeout=10)
            assert await client.call.quick()
            assert await client.call.halt()
            assert handler.entered == 2
            handler.proceed.set()
        assert handler.entered == 4
        assert serving.counters.refused == 1


async def test_timeout_error_names_service_and_time_limit(tmp_path: Path) -> None:
    handler = Device()
    async with robot(tmp_path, handler) as (client, _):
        with pytest.raises(
            RemoteCallError, match=r"device-service did not answer wait within 0\.05 s"
        ):
            await client.call.wait(timeout=0.05)
        handler.proceed.set()
        assert await client.call.ping() == [None, 1]
        with trio.fail_after(30):
            while client.counters.late == 0:  # noqa: ASYNC110 - no event for a late response
                await trio.sleep(0.005)
        assert (client.counters.timeouts, client.counters.late) == (1, 1)


@pytest.mark.parametrize("method", ["", "m" * 129, "m" * 900_000])
async def test_invalid_method_name_is_refused_by_the_client(tmp_path: Path, method: str) -> None:
    async with robot(tmp_path, Device()) as (client, _):
        for notification in (False, True):
            with pytest.raises(
                LocalProtocolError, match=f"invalid method name of {len(method)} characters: "
            ) as raised:
                await client.issue_call(method, notification=notification)
            assert len(raised.value.message) < 200
        with pytest.raises(RemoteCallError, match="no method"):
            await client.issue_call("m" * 128)


async def test_concurrent_calls_get_their_own_responses(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, _):

        async def ask(number: int) -> None:
            assert await client.call.total(number, timeout=10) == number

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(ask, number)


async def test_call_without_a_robot_cannot_be_sent(tmp_path: Path) -> None:
    async with Client(SocketNode(zmq.DEALER, connections=[f"ipc://{tmp_path}/none"])) as client:
        with pytest.raises(
            RemoteCallError, match=r"cannot send idle: .*/none; is the robot running"
        ):
            await client.call.idle(address="executor-service", timeout=0.05)
        with pytest.raises(LocalProtocolError, match="no service given for idle"):
            await client.call.idle()


async def test_error_in_the_body_of_a_client_is_not_wrapped(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="body"):
        async with Client(SocketNode(zmq.DEALER, connections=[f"ipc://{tmp_path}/none"])):
            raise KeyError("body")


async def test_notification_is_handled_without_response(tmp_path: Path) -> None:
    handler = Device()
    async with robot(tmp_path, handler) as (client, _):
        state = {"lx": 0.0, "ly": 1.0, "rx": 0.0, "ry": 0.0, "btn": 0}
        assert await client.call.update_gamepads({"0": state}, notification=True) is None
        await handler.seen.wait()
        assert handler.gamepads == [{"0": GamepadState(0.0, 1.0, 0.0, 0.0, 0)}]


async def test_malformed_messages_do_not_end_a_service(tmp_path: Path) -> None:
    async with robot(tmp_path, Device()) as (client, serving):
        bad = [
            b"\xff",
            b"\x90",
            rpc.encode(rpc.Response(1, None, 2)),
            bytes(1000),
            rpc.encode(rpc.Notification("nothing", [])),
        ]
        for payload in bad:
            await client.node.send(ADDRESS.encode(), payload)
        assert await client.call.ping() == [None, 1]
        assert serving.counters.malformed == 4


async def test_service_receives_gamepad_datagrams() -> None:
    handler = Device()
    node = DatagramNode("127.0.0.1", 0, bind=True)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(Service(node, handler).run)
            async with DatagramNode("127.0.0.1", node.port, bind=False) as sender:
                await sender.send(b"", b"garbage")
                await sender.send(b"", encode_gamepads({1: GamepadState(0.0, 0.5, 0.0, 0.0, 3)}))
                await handler.seen.wait()
            async with Client(DatagramNode("127.0.0.1", node.port, bind=False)) as client:
                assert await client.call.total(1, 2) == 3
            nursery.cancel_scope.cancel()
    assert handler.gamepads == [{"1": GamepadState(0.0, 0.5, 0.0, 0.0, 3)}]


def test_async_method_cannot_be_inline() -> None:
    with pytest.raises(TypeError, match="is async"):

        @route(inline=True)
        async def method() -> None: ...


def test_unsupported_signature_is_refused_by_the_service() -> None:
    class Wrong(Handler):
        @route
        async def method(self, *, name: str) -> None: ...

    with pytest.raises(TypeError, match="argument name is keyword-only and required"):
        Service(SocketNode(zmq.DEALER), Wrong())


async def test_failed_notifications_are_logged_once_a_second_with_a_count(
    autojump_clock: MockClock,
) -> None:
    with structlog.testing.capture_logs() as logs:
        serving = Service(SocketNode(zmq.DEALER, ADDRESS), Device())
        (route, *_) = Device().routes().values()
        call = Call(b"peer", rpc.Notification(route.name, []), route)
        for _ in range(50):
            serving._log_failure(call, serving._log.debug, "call failed", reason="garbage")
            serving._log_failure(call, serving._log.error, "handler failed", reason="garbage")
        await trio.sleep(1.5)
        serving._log_failure(call, serving._log.debug, "call failed", reason="garbage")
    assert [entry.get("suppressed") for entry in logs] == [None, 99]


async def test_call_survives_a_hello_that_cannot_be_sent() -> None:
    class Full(SocketNode):
        async def post(self, _peer: bytes, payload: bytes) -> None:
            if payload == rpc.HELLO_MESSAGE:
                raise trio.TooSlowError

    async with Client(Full(zmq.DEALER), address=ADDRESS) as client:
        with pytest.raises(RemoteCallError, match="did not answer"):
            await client.call.ping(timeout=20)
