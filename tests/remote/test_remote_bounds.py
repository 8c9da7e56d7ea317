"""Bounds of calls, checked before a call costs time or memory."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import trio
import trio.lowlevel
import zmq
from hypothesis import given
from hypothesis import strategies as st
from support.serving import ADDRESS, robot

from rt.errors import RemoteCallError, RemoteProtocolError
from rt.protocol import rpc
from rt.remote import Bounds, Client, Handler, SocketNode, bounds, inbox, route, service
from rt.remote.handler import Route, RouteOptions
from rt.remote.inbox import Call, Inbox

SMALL = Bounds(message=2000, text=10, items=4, depth=3, values=12)


class Spec(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(max_length=5)]
    args: list[Any] = []


class Bounded(Handler):
    """Routes with arguments of all supported types."""

    bounds = SMALL

    def __init__(self) -> None:
        self.proceed = trio.Event()
        self.order: list[str] = []

    @route(inline=True)
    def text(self, value: str | None) -> int:
        return len(value or "")

    @route(inline=True)
    def long_text(self, value: Annotated[str, msgspec.Meta(max_length=100)]) -> int:
        return len(value)

    @route(inline=True)
    def rows(self, value: str | list[list[str]] | None = None) -> int:
        return len(value or "")

    @route(inline=True)
    def table(self, value: Mapping[str, int], more: Sequence[int] = ()) -> int:
        return len(value) + len(more)

    @route(inline=True)
    def pair(self, value: tuple[str, Literal["a", "b"]]) -> int:
        return len(value)

    @route(inline=True)
    def anything(self, value: Any) -> bool:
        return bool(value)

    @route(inline=True)
    def bare(self, value: dict, more: list | None = None) -> int:  # type: ignore[type-arg]
        return len(value) + len(more or ())

    @route(inline=True)
    def specs(self, value: list[Spec]) -> int:
        return len(value)

    @route(inline=True)
    def many(self, *values: str) -> int:
        return len(values)

    @route(inline=True, bounds=Bounds(message=50_000, text=40_000))
    def large(self, value: str) -> int:
        return len(value)

    @route
    async def wait(self, name: str) -> None:
        self.order.append(name)
        await self.proceed.wait()

    @route(starts=True)
    async def begin(self, name: str) -> None:
        self.order.append(name)
        await trio.lowlevel.checkpoint()

    @route(urgent=True)
    async def halt(self) -> None:
        self.order.append("halt")
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("method", "params", "message"),
    [
        (
            "text",
            ["x" * 11],
            "text: argument value came as 'xxxxxxxxxxx': Expected `str` of length <= 10",
        ),
        ("long_text", ["x" * 101], "Expected `str` of length <= 100"),
        ("rows", [[[]] * 5], "Expected `array` of length <= 4"),
        ("rows", [[["x"] * 5]], r"Expected `array` of length <= 4 - at `\$\[0\]`"),
        ("rows", [[["x" * 11]]], r"Expected `str` of length <= 10 - at `\$\[0\]\[0\]`"),
        ("rows", ["x" * 11], "Expected `str` of length <= 10"),
        ("table", [{str(n): n for n in range(5)}], "Expected `object` of length <= 4"),
        ("table", [{"x" * 11: 1}], "Expected `str` of length <= 10"),
        ("table", [{}, [1] * 5], "argument more .*Expected `array` of length <= 4"),
        ("pair", [["x" * 11, "a"]], "Expected `str` of length <= 10"),
        ("pair", [["x", "\x1b" * 500]], "Invalid enum value"),
        ("anything", ["x" * 11], "a string has 11 characters; at most 10 are accepted"),
        ("anything", [[1] * 5], "an array or map has 5 items; at most 4 are accepted"),
        (
            "anything",
            [{str(n): n for n in range(5)}],
            "an array or map has 5 items; at most 4 are accepted",
        ),
        ("anything", [{"x" * 11: 1}], "a string has 11 characters"),
        ("anything", [[[[[]]]]], "nested more than 3 deep"),
        ("anything", [{"a": {"b": {"c": {}}}}], "nested more than 3 deep"),
        ("anything", [[[1] * 4] * 4], "too many values; at most 12"),
        ("bare", [{"a": [[[1]]]}], "nested more than 3 deep"),
        ("bare", [{}, [1] * 5], "argument more .*at most 4"),
        ("specs", [[{"name": "abcdef"}]], "Expected `str` of length <= 5"),
        ("specs", [[{"name": "a", "args": ["x" * 11]}]], "a string has 11 characters"),
        ("specs", [[{"name": "a", "args": [[[[1]]]]}]], "nested more than 3 deep"),
        ("many", ["x"] * 5, r"many\(\*values: str\) -> int cannot be called with 5 arguments"),
        ("many", ["x" * 11], "Expected `str` of length <= 10"),
        (
            "text",
            ["x" * 3000],
            r"call to text has 30\d\d bytes, at most 2000 are accepted; send less data at once",
        ),
        ("large", ["x" * 40_001], "Expected `str` of length <= 40000"),
        ("large", ["x" * 50_001], "at most 50000 are accepted"),
        ("x" * 128, ["x" * 3000], "there is no method x{64}\\.\\.\\."),
        ("\x1b[2J", [], r"there is no method \\x1b\[2J"),
    ],
)
async def test_arguments_beyond_their_bounds_are_refused(
    tmp_path: Path, method: str, params: list[Any], message: str
) -> None:
    async with robot(tmp_path, Bounded()) as (client, _):
        with pytest.raises(RemoteCallError, match=message) as caught:
            await client.call[method](*params)
        assert len(caught.value.message) < 600
        assert caught.value.message.isprintable()
        assert await client.call.text("x" * 10) == 10


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("text", ["x" * 10]),
        ("long_text", ["x" * 100]),
        ("rows", [[["x" * 10] * 4] * 4]),
        ("table", [{str(n): n for n in range(4)}, [1] * 4]),
        ("pair", [["x" * 10, "b"]]),
        ("anything", [{"a": {"b": {"c": 1}}}]),
        ("anything", [[1.5, None, b"x" * 1000, True]]),
        ("specs", [[{"name": "abcde", "args": [1, "x" * 10]}]]),
        ("many", ["x" * 10] * 4),
        ("large", ["x" * 40_000]),
    ],
)
async def test_arguments_within_their_bounds_are_accepted(
    tmp_path: Path, method: str, params: list[Any]
) -> None:
    async with robot(tmp_path, Bounded()) as (client, _):
        assert await client.call[method](*params)


@pytest.mark.parametrize("method", ["text", "nothing", "describe"])
async def test_too_long_message_is_answered_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    lengths: list[int] = []
    decode = rpc.decode

    def recording_decode(data: bytes) -> rpc.Envelope:
        lengths.append(len(data))
        return decode(data)

    async with robot(tmp_path, Bounded()) as (client, _):
        monkeypatch.setattr(rpc, "decode", recording_decode)
        hostile: list[Any]
        for hostile in (["m1"] * 250_000, [[]] * 900_000, ["x" * 900_000]):
            with pytest.raises(
                RemoteCallError, match=r"at most 2000 are accepted|there is no method nothing"
            ):
                await client.call[method](*hostile)
        assert max(lengths) < service.EAGER_DECODE_MAX
        # Malformed calls and protocol messages are dropped.
        for payload in (b"\xc1" * 9000, rpc.encode(rpc.Notification("$gone", [b"x" * 9000]))):
            await client.node.send(ADDRESS.encode(), payload)
        assert await client.call.text("x") == 1
        assert max(lengths) < service.EAGER_DECODE_MAX


async def test_long_call_with_trailing_bytes_is_answered(tmp_path: Path) -> None:
    async with robot(tmp_path, Bounded()) as (client, serving):
        whole = rpc.encode(rpc.Request(1, "large", ["x"]))
        await client.node.send(ADDRESS.encode(), whole + b"\xc1" * 2000)
        assert await client.call.text("x") == 1
        assert (serving.counters.malformed, serving.counters.errors) == (1, 1)


async def test_describe_includes_the_bounds(tmp_path: Path) -> None:
    async with robot(tmp_path, Bounded()) as (client, _):
        # This response exceeds the bounds of calls, which do not apply to responses.
        methods = await client.call.describe()
    assert methods["text"]["arguments"][0]["schema"] == {
        "anyOf": [{"type": "string", "maxLength": 10}, {"type": "null"}]
    }
    assert methods["rows"]["signature"] == "rows(value: str | list[list[str]] | None = None) -> int"


def test_service_without_router_accepts_everything_that_fits_in_a_message() -> None:
    class LogReceiver(Handler):
        @route(inline=True)
        def info(self, event: dict[str, Any], text: str) -> None: ...

    found = LogReceiver().routes()["info"]
    with pytest.raises(RemoteProtocolError):
        found.bind([{}, "x" * 300_000])
    found.set_default_bounds(bounds.UNROUTED)
    assert found.bind([{"event": "x" * 300_000, "list": [1] * 9000}, "x" * 300_000])


values = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=14) | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=12), inner, max_size=6)
    ),
    max_leaves=20,
)


def _measure(value: object, depth: int = 0) -> tuple[int, int, int, int]:
    """Return the longest string, the most items, the depth and the number of inner values."""
    if isinstance(value, str):
        return len(value), 0, depth, 0
    if not isinstance(value, list | dict):
        return 0, 0, depth, 0
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    parts = [_measure(each, depth + 1) for each in inner]
    # A scalar is not a level of its own.
    deepest = max(
        [
            depth + 1,
            *(
                part[2]
                for part, each in zip(parts, inner, strict=True)
                if isinstance(each, list | dict)
            ),
        ]
    )
    return (
        max([0, *(part[0] for part in parts)]),
        max([len(value), *(part[1] for part in parts)]),
        deepest,
        len(inner) + sum(part[3] for part in parts),
    )


@given(values)
def test_value_passes_exactly_if_it_is_within_all_bounds(value: object) -> None:
    text, items, depth, count = _measure(value)
    fits = (
        text <= SMALL.text
        and items <= SMALL.items
        and depth <= SMALL.depth
        and count <= SMALL.values
    )
    try:
        bounds.check(value, SMALL)
    except RemoteProtocolError:
        assert not fits
    else:
        assert fits


@given(values)
def test_encoded_check_refuses_only_what_the_decoded_check_refuses(value: object) -> None:
    _, items, depth, count = _measure(value)
    raw = msgspec.Raw(msgspec.msgpack.encode(value))
    try:
        bounds.check_raw(raw, SMALL)
    except (RemoteProtocolError, msgspec.ValidationError):
        with pytest.raises(RemoteProtocolError):
            bounds.check(value, SMALL)
    else:
        # Only the check of the decoded value counts keys of maps and measures strings.
        assert items <= SMALL.items
        assert depth <= SMALL.depth
        assert count <= 2 * SMALL.values


@given(st.binary(min_size=1, max_size=60))
def test_check_of_random_bytes_raises_only_documented_errors(data: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError, msgspec.ValidationError):
        bounds.check_raw(msgspec.Raw(data), SMALL)


@given(values, st.text(max_size=12))
def test_long_call_binds_like_a_short_one(value: object, text: str) -> None:
    found = Bounded().routes()
    for name in ("anything", "rows", "table", "specs", "text", "bare"):
        whole = rpc.Request(1, name, [value, text][: 1 + (name in {"table", "bare"})])
        data = rpc.encode(whole)
        try:
            expected = found[name].bind(rpc.decode(data).params)  # type: ignore[union-attr]
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError):
                found[name].bind(rpc.decode_raw(data).params)
        else:
            assert found[name].bind(rpc.decode_raw(data).params) == expected


_WAIT = Route("wait", lambda: None, RouteOptions(inline=True))


def _call(peer: bytes, number: int) -> Call:
    return Call(peer, rpc.Request(number, "wait", []), _WAIT)


@given(st.lists(st.sampled_from([b"a", b"b", b"c", None]), max_size=60))
def test_peers_take_turns_and_keep_their_order(steps: list[bytes | None]) -> None:
    box, model, number = Inbox(), dict[bytes, list[int]](), 0
    for peer in steps:
        if peer is not None:
            assert box.put(_call(peer, number))
            model.setdefault(peer, []).append(number)
            number += 1
        elif len(box):
            call = box.take()
            assert isinstance(call.message, rpc.Request)
            assert call.message.id == model[call.peer].pop(0)
            if not model[call.peer]:
                del model[call.peer]
            # All other peers take their turns before this one takes another.
            turns = [box.take().peer for _ in range(len(model))]
            assert set(turns) == set(model)
            for each in turns:
                model[each].pop(0)
            model = {each: left for each, left in model.items() if left}
        assert len(box) == sum(map(len, model.values())) == len(list(box))


def test_one_peer_cannot_fill_the_inbox() -> None:
    box = Inbox()
    accepted = [box.put(_call(b"flood", number)) for number in range(inbox.PEER_MAX + 5)]
    assert accepted == [True] * inbox.PEER_MAX + [False] * 5
    assert box.put(_call(b"other", 1))
    assert [box.take().peer for _ in range(2)] == [b"flood", b"other"]


def test_removed_calls_are_not_taken() -> None:
    box = Inbox()
    for number in range(4):
        assert box.put(_call(b"a" if number % 2 else b"b", number))
    assert len(box.remove(lambda call: call.peer == b"a")) == 2
    assert len(box) == 2
    assert [box.take().peer for _ in range(2)] == [b"b", b"b"]


async def _flood(client: Client, *calls: tuple[str, list[Any]], requests: bool = False) -> None:
    """Send calls in one burst, before the service reads any of them."""
    assert isinstance(client.node, SocketNode)
    await client.call.text("x")  # waits for the connection
    for number, (method, params) in enumerate(calls):
        message = (
            rpc.Request(number, method, params) if requests else rpc.Notification(method, params)
        )
        client.node.send_nowait(ADDRESS.encode(), rpc.encode(message))


async def test_urgent_call_overtakes_waiting_calls_and_refuses_starts(tmp_path: Path) -> None:
    handler = Bounded()
    async with robot(tmp_path, handler, concurrency=1) as (client, serving):
        waiting = [("wait", [f"w{number}"]) for number in range(9)]
        await _flood(
            client, *waiting, ("begin", ["b1"]), ("halt", []), ("begin", ["b2"]), requests=True
        )
        while serving.counters.calls < 13:
            await trio.lowlevel.checkpoint()
        handler.proceed.set()
        await client.call.text("x")
        while len(handler.order) < 11:
            await trio.lowlevel.checkpoint()
    assert handler.order.index("halt") <= 3
    assert "b1" not in handler.order
    assert handler.order[-1] == "b2"
    assert [name for name in handler.order if name[0] == "w"] == [
        f"w{number}" for number in range(9)
    ]


async def test_start_that_waits_for_a_slot_is_refused_by_urgent_call(tmp_path: Path) -> None:
    handler = Bounded()
    async with (
        robot(tmp_path, handler, concurrency=1) as (client, serving),
        trio.open_nursery() as nursery,
    ):
        refused = trio.Event()

        async def start() -> None:
            with pytest.raises(RemoteCallError, match="begin was stopped: halt overtook it"):
                await client.call.begin("b1")
            refused.set()

        nursery.start_soon(lambda: client.issue_call("wait", "w"))
        while not handler.order:
            await trio.lowlevel.checkpoint()
        nursery.start_soon(start)
        while not serving._starting:
            await trio.lowlevel.checkpoint()
        await client.call.halt()
        await refused.wait()
        handler.proceed.set()
    assert handler.order == ["w", "halt"]


async def test_call_cancelled_while_waiting_is_not_started(tmp_path: Path) -> None:
    handler = Bounded()
    async with robot(tmp_path, handler) as (client, serving):
        calls: list[tuple[str, list[Any]]] = [("wait", ["a"]), ("wait", ["b"])]
        await _flood(client, *calls, requests=True)
        assert isinstance(client.node, SocketNode)
        client.node.send_nowait(ADDRESS.encode(), rpc.encode(rpc.Notification(rpc.CANCEL, [1])))
        while serving.counters.cancelled < 1:
            await trio.lowlevel.checkpoint()
        handler.proceed.set()
        assert await client.call.text("x") == 1
    assert handler.order in (
        ["a"],
        ["a", "b"],
    )  # the second may have started before it was cancelled


async def test_flood_of_one_peer_does_not_delay_another(tmp_path: Path) -> None:
    handler = Bounded()
    async with robot(tmp_path, handler, concurrency=1) as (client, serving):
        front = f"ipc://{tmp_path}/f"
        async with Client(
            SocketNode(zmq.DEALER, "other", connections=[front]), address=ADDRESS, timeout=20
        ) as other:
            assert await other.call.text("x") == 1
            await _flood(client, *[("wait", ["w"])] * 900)
            assert await other.call.text("xy") == 2
            await other.call.halt()
            # Messages beyond the slots of the service and the peer's share of the inbox are
            # refused, most of them at the router.
            while serving.counters.refused < 1:
                await trio.lowlevel.checkpoint()
            handler.proceed.set()
