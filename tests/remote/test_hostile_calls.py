"""Services of rt under hostile calls: exactly one short response, and no lasting effect."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from support.hostile import Wire, answered, device_handler, modes_handler, payloads, unknown_methods

from rt import catalog
from rt.broker import Broker, GamepadFeed
from rt.broker.serving import Controls
from rt.buffer import BufferStore
from rt.config import Config
from rt.errors import RemoteProtocolError
from rt.protocol import rpc
from rt.remote import Handler, Service
from rt.remote.service import EAGER_DECODE_MAX

Made = tuple[Handler, list[str]]
SIZES = (1024, 8192, 65_536, rpc.MAX_MESSAGE)
LONGEST = 2000
"""Maximum length of the response to a refused call, in bytes."""


@pytest.fixture
def broker(tmp_path: Path) -> Made:
    feed = GamepadFeed(BufferStore(catalog.load(), "", shared=False))
    return Broker(Config(), feed, dict, state=tmp_path / "state", directory=tmp_path), [
        "log_level",
        "dev_name.left",
    ]


@pytest.fixture
def controls(broker: Made) -> Made:
    handler, names = broker
    assert isinstance(handler, Broker)
    return Controls(handler), names


@pytest.fixture
def device() -> Made:
    return device_handler()


@pytest.fixture
def modes(prefix: str) -> Iterator[Made]:
    with modes_handler(prefix) as handler:
        yield handler


@pytest.fixture
def made(request: pytest.FixtureRequest) -> Made:
    found: Made = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("made", ["device", "broker", "controls", "modes"], indirect=True)
async def test_hostile_call_gets_one_short_response(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, names = made
    wire = Wire()
    service = Service(wire, handler)
    decode, decode_raw, lengths = rpc.decode, rpc.decode_raw, list[int]()

    def recording_decode(data: bytes) -> rpc.Envelope:
        lengths.append(len(data))
        return decode(data)

    def recording_decode_raw(data: bytes) -> rpc.Request | rpc.Notification:
        lengths.append(len(data))
        return decode_raw(data)

    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        monkeypatch.setattr("rt.remote.service.rpc.decode", recording_decode)
        monkeypatch.setattr("rt.remote.service.rpc.decode_raw", recording_decode_raw)
        for method, route in service._routes.items():
            for what, payload in payloads(method, names, SIZES):
                lengths.clear()
                _, answers = await answered(service, wire, payload)
                place = f"{method}: {what}"
                # The test itself decodes the responses.
                requests = [length for length in lengths if length not in wire.lengths]
                assert all(length <= route.bounds.message for length in requests), place
                assert len(answers) == _is_answered(payload), place
                for answer in answers:
                    assert answer.id == 1, place
                    if answer.error is not None:
                        assert len(msgspec.msgpack.encode(answer)) <= LONGEST, place
                        assert answer.error[0].isprintable(), place
        for what, payload in unknown_methods():
            _, answers = await answered(service, wire, payload)
            assert len(answers) == _is_answered(payload), what
        (last,) = list(service._routes)[-1:]
        _, (answer,) = await answered(service, wire, msgspec.msgpack.encode([0, 1, last, [[[]]]]))
        assert answer.error is not None
        nursery.cancel_scope.cancel()


def _is_answered(payload: bytes) -> bool:
    """Return whether a payload is a request that a service can answer; a long one by its head."""
    if len(payload) > EAGER_DECODE_MAX:
        return rpc.peek(payload) is not None
    try:
        return isinstance(rpc.decode(payload), rpc.Request)
    except RemoteProtocolError:
        return False


@pytest.mark.parametrize("made", ["device", "broker", "controls", "modes"], indirect=True)
def test_each_route_is_bounded(made: Made) -> None:
    handler, _ = made
    most = {"DeviceHandler": 8192, "Broker": 16_384, "Controls": 4096, "Dispatcher": 16_384}[
        type(handler).__name__
    ]
    assert all(route.bounds.message <= most for route in handler.routes().values())


async def test_device_named_twice_is_pinged_once() -> None:
    handler, _ = device_handler()
    wire = Wire()
    service = Service(wire, handler)
    async with trio.open_nursery() as nursery:
        await nursery.start(service.run)
        uid = str(12 << 72)
        pinged: list[str] = []
        devices = handler.devices.items()  # type: ignore[attr-defined]
        (client,) = [each for number, each in devices if number == 12 << 72]

        async def ping() -> None:
            pinged.append(uid)
            await trio.lowlevel.checkpoint()

        client.ping = ping
        for uids in ([uid] * 100, [uid, "left_motor_0"] * 50):
            _, (answer,) = await answered(
                service, wire, msgspec.msgpack.encode([0, 1, "ping", [uids]])
            )
            assert answer.error is None
        assert pinged == [uid, uid]
        _, (answer,) = await answered(
            service, wire, msgspec.msgpack.encode([0, 1, "ping", [[uid] * 129]])
        )
        assert answer.error is not None
        assert "Expected `array` of length <= 128" in answer.error[0]
        nursery.cancel_scope.cancel()
