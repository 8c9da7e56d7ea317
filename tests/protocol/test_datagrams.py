"""Tests of control and update datagrams: strict validation, and errors that name the field."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.errors import LocalProtocolError, RemoteProtocolError
from rt.protocol import datagrams, rpc
from rt.protocol.datagrams import NEUTRAL, GamepadState, Stamp
from rt.protocol.uid import UID_END

axes = st.floats(-1, 1)
states = st.builds(GamepadState, axes, axes, axes, axes, st.integers(0, 2**datagrams.BUTTONS - 1))
uids = st.integers(0, UID_END - 1)
names = st.text(st.characters(codec="ascii"), max_size=20)
values = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)

AT_REST = {"lx": 0.0, "ly": 0.0, "rx": 0.0, "ry": 0.0, "btn": 0}


@given(st.dictionaries(st.integers(0, 3), states))
def test_gamepads_round_trip(update: dict[int, GamepadState]) -> None:
    assert datagrams.decode_gamepads(datagrams.encode_gamepads(update)) == update


def test_stamp_is_the_second_argument() -> None:
    stamp = Stamp(station="driver", seq=1, time=2.5)
    datagram = datagrams.encode_gamepads({0: NEUTRAL}, stamp)
    message = rpc.decode(datagram)
    assert isinstance(message, rpc.Notification)
    assert message.params[1] == {"station": "driver", "seq": 1, "time": 2.5}
    assert datagrams.decode_gamepads(datagram) == {0: NEUTRAL}
    with pytest.raises(RemoteProtocolError):
        datagrams.decode_gamepads(rpc.encode(rpc.Notification("update_gamepads", [{}, {}, {}])))


@given(st.dictionaries(uids, st.dictionaries(names, values, max_size=4), max_size=4))
def test_device_values_round_trip(update: dict[int, dict[str, datagrams.Value]]) -> None:
    assert datagrams.decode_devices(datagrams.encode_devices(update)) == update


@given(st.binary(max_size=100))
def test_random_datagrams_raise_one_error(data: bytes) -> None:
    for decode in (datagrams.decode_gamepads, datagrams.decode_devices):
        with pytest.raises(RemoteProtocolError):
            decode(data)


@given(states)
def test_clamping_keeps_the_direction(state: GamepadState) -> None:
    clamped = state.clamped()
    for x, y, cx, cy in (
        (state.lx, state.ly, clamped.lx, clamped.ly),
        (state.rx, state.ry, clamped.rx, clamped.ry),
    ):
        assert math.hypot(cx, cy) == pytest.approx(min(1.0, math.hypot(x, y)))
        assert cx * y == pytest.approx(cy * x)
    assert clamped.btn == state.btn


def test_stick_inside_the_circle_is_not_changed() -> None:
    state = GamepadState(0.3, -0.4, 0.0, 1.0, 5)
    assert state.clamped() == state


def test_overshooting_stick_is_accepted_and_clamped() -> None:
    (state,) = datagrams.check_gamepads({"0": {**AT_REST, "lx": 1.004, "ry": -1.004}}).values()
    assert state.clamped() == GamepadState(1.0, 0.0, 0.0, -1.0, 0)


def test_wire_format_matches_the_specification() -> None:
    wire = msgspec.msgpack.encode([2, "update_gamepads", [{"0": {**AT_REST, "ly": 1, "btn": 3}}]])
    assert datagrams.decode_gamepads(wire) == {0: GamepadState(0.0, 1.0, 0.0, 0.0, 3)}
    assert msgspec.msgpack.decode(datagrams.encode_gamepads({2: NEUTRAL})) == [
        2,
        "update_gamepads",
        [{"2": AT_REST}],
    ]
    assert msgspec.msgpack.decode(datagrams.encode_devices({7: {"duty_cycle": 0.5}})) == [
        2,
        "update",
        [{"7": {"duty_cycle": 0.5}}],
    ]


@pytest.mark.parametrize(
    ("update", "named"),
    [
        ([], "map of gamepads"),
        ({"4": AT_REST}, "no gamepad '4'"),
        ({0: AT_REST}, "no gamepad 0"),
        ({"0": {**AT_REST, "lx": 1.11}}, "lx"),
        ({"0": {**AT_REST, "ly": -1.5}}, "ly"),
        ({"0": {**AT_REST, "rx": float("nan")}}, "rx"),
        ({"0": {**AT_REST, "ry": float("inf")}}, "ry"),
        ({"0": {**AT_REST, "lx": "0"}}, "lx"),
        ({"0": {**AT_REST, "lx": True}}, "lx"),
        ({"0": {**AT_REST, "btn": -1}}, "btn"),
        ({"0": {**AT_REST, "btn": 1 << 17}}, "btn"),
        ({"0": {**AT_REST, "btn": 1.0}}, "btn"),
        ({"0": {**AT_REST, "lz": 0.0}}, "lz"),
        ({"3": {key: value for key, value in AT_REST.items() if key != "ry"}}, "gamepad 3.*ry"),
    ],
)
def test_invalid_field_refuses_the_update_and_is_named(update: Any, named: str) -> None:
    with pytest.raises(RemoteProtocolError, match=named):
        datagrams.check_gamepads(update)


def test_number_of_buttons_is_a_parameter() -> None:
    state = {"0": {**AT_REST, "btn": 0b100}}
    assert datagrams.check_gamepads(state, buttons=3)[0].btn == 0b100
    with pytest.raises(RemoteProtocolError, match="there are 2 buttons"):
        datagrams.check_gamepads(state, buttons=2)


def test_invalid_state_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match="lx is nan"):
        datagrams.encode_gamepads({0: GamepadState(float("nan"), 0.0, 0.0, 0.0, 0)})
    with pytest.raises(LocalProtocolError, match="no gamepad '4'"):
        datagrams.encode_gamepads({4: NEUTRAL})


@pytest.mark.parametrize(
    "uid", ["", "-1", "01", "1.0", "0x10", "\u0661", str(2**88), "9" * 5000, " 1"]
)
def test_invalid_uid_is_refused(uid: str) -> None:
    with pytest.raises(RemoteProtocolError, match="is not a UID"):
        datagrams.check_devices({uid: {}})


@pytest.mark.parametrize("value", [None, "1", b"1", [1], {}])
def test_value_that_is_not_a_number_is_refused(value: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        datagrams.check_devices({"1": {"switch": value}})


@pytest.mark.parametrize(
    "message",
    [
        rpc.Notification("update", [{}]),
        rpc.Request(1, "update_gamepads", [{}]),
        rpc.Notification("update_gamepads", []),
    ],
)
def test_other_messages_are_refused(message: rpc.Envelope) -> None:
    with pytest.raises(RemoteProtocolError, match="expected a notification"):
        datagrams.decode_gamepads(rpc.encode(message))


@given(st.text(max_size=80), st.text(max_size=80), st.integers(0, 300))
def test_refusal_round_trips_within_the_length_limit(by: str, you: str, most: int) -> None:
    datagram = datagrams.encode_refused(datagrams.Refused(by, you), most)
    assert len(datagram) <= most
    if not datagram:
        assert most < 20 or not by
        return
    refused = datagrams.decode_refused(datagram)
    assert by.startswith(refused.by)
    assert refused.you in {you, ""}
    if most == 300 and max(len(by), len(you)) < 20:
        assert refused == datagrams.Refused(by, you)


def test_refusal_is_no_longer_than_the_shortest_update() -> None:
    request = datagrams.encode_gamepads({0: NEUTRAL})
    refused = datagrams.Refused("0123456789abcdef@10.0.0.1", "fedcba9876543210@10.0.0.2")
    assert datagrams.decode_refused(datagrams.encode_refused(refused, len(request))) == refused


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\xff",
        rpc.encode(rpc.Notification("update", ["a"])),
        rpc.encode(rpc.Notification("refused", [])),
        rpc.encode(rpc.Notification("refused", [1])),
        rpc.encode(rpc.Notification("refused", ["a", "b", "c"])),
        rpc.encode(rpc.Request(1, "refused", ["a"])),
    ],
)
def test_invalid_refusal_raises_an_error(datagram: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        datagrams.decode_refused(datagram)
