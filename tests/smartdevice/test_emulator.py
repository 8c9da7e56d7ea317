"""An emulated device answers as firmware does."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from rt import catalog
from rt.errors import DeviceError, RemoteProtocolError
from rt.protocol import frames
from rt.protocol.message import (
    DevData,
    DevDisable,
    DevRead,
    DevWrite,
    Error,
    ErrorCode,
    HbReq,
    HbRes,
    Message,
    Ping,
    SubReq,
    SubRes,
)
from rt.smartdevice.emulator import EmulatedDevice, run_emulated, serve_pty
from rt.smartdevice.link import SerialLink, StreamLink
from rt.smartdevice.motion import TRAVEL, World
from rt.smartdevice.uid_spec import parse_uid_spec

CATALOG = catalog.load()
MOTOR = CATALOG["polar-bear"]
DUTY = 0b1


def make(name: str, values: dict[str, Any] | None = None, world: World | None = None) -> EmulatedDevice:
    peripheral = CATALOG[name]
    assert peripheral.device_id is not None
    return EmulatedDevice(peripheral, peripheral.device_id << 72 | 7, values, world=world)


def duty(value: float) -> DevWrite:
    return DevWrite(DUTY, struct.pack("<f", value))


def test_ping_is_answered_with_identity_and_subscription() -> None:
    motor = make("polar-bear")
    assert motor.handle(Ping(), 0) == [SubRes(0, 0, 12 << 72 | 7)]


@pytest.mark.parametrize(("asked", "granted"), [(1, 40), (40, 40), (100, 100), (250, 250), (65535, 250), (0, 0)])
def test_a_subscription_is_granted_between_40_and_250_ms(asked: int, granted: int) -> None:
    (answer,) = make("limit-switch").handle(SubReq(0b101, asked), 0)
    assert answer == SubRes(0b101 if granted else 0, granted, 7)


def test_write_only_parameters_are_dropped_from_a_subscription() -> None:
    (answer,) = make("polar-bear").handle(SubReq(0xFFFF, 40), 0)
    assert isinstance(answer, SubRes)
    assert answer.params == MOTOR.readable


def test_subscribed_values_come_at_the_interval_and_not_in_bursts() -> None:
    switch = make("limit-switch", {"switch0": True})
    assert switch.next_due == float("inf")
    switch.handle(SubReq(0b1, 40), 1.0)
    assert switch.due(1.03) == []
    assert switch.next_due == pytest.approx(1.04)
    assert switch.due(1.04) == [DevData(1, b"\1")]
    assert switch.due(1.05) == []
    assert len(switch.due(9.0)) == 1
    assert len(switch.due(9.01)) <= 1


def test_a_written_value_is_stored_and_answered_if_it_can_be_read() -> None:
    motor = make("polar-bear")
    assert motor.handle(duty(-0.5), 0) == [DevData(DUTY, struct.pack("<f", -0.5))]
    assert motor.handle(DevWrite(0b10, struct.pack("<f", 3)), 0) == []
    assert motor.values["duty_cycle"] == -0.5
    assert motor.values["pid_pos_setpoint"] == 3


def test_a_read_is_answered_with_what_can_be_read() -> None:
    rfid = make("rfid", {"id": 0xDEADBEEF, "tag_detect": 1})
    assert rfid.handle(DevRead(0xFFFF), 0) == [DevData(0b11, bytes.fromhex("efbeadde01"))]


def test_a_disabled_device_stops_and_keeps_answering() -> None:
    motor = make("polar-bear")
    motor.handle(duty(1), 0)
    assert motor.handle(DevDisable(), 0) == []
    assert motor.disabled
    assert motor.values["duty_cycle"] == 0
    assert motor.handle(HbReq(9), 0) == [HbRes(9)]
    motor.handle(duty(0.5), 0)
    assert not motor.disabled


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (DevWrite(DUTY, b"\0"), ErrorCode.GENERIC_ERROR),
        (DevWrite(0xFFFF, b""), ErrorCode.GENERIC_ERROR),
        (DevData(0, b""), ErrorCode.INVALID_TYPE),
        (RemoteProtocolError("bad", code=ErrorCode.BAD_CHECKSUM), ErrorCode.BAD_CHECKSUM),
    ],
)
def test_what_is_malformed_is_answered_with_an_error(message: Message | RemoteProtocolError, code: ErrorCode) -> None:
    assert make("polar-bear").handle(message, 0) == [Error(code)]


def test_a_device_that_asks_for_heartbeats_stops_unless_they_are_answered() -> None:
    motor = make("polar-bear")
    motor.handle(duty(1), 0)
    now = 0.0
    for _ in range(10):
        (request,) = motor.due(now)
        assert isinstance(request, HbReq)
        motor.handle(HbRes(request.id), now + 0.01)
        now = motor.next_due
    assert motor.values["duty_cycle"] == 1
    while now < 10:
        motor.due(now)
        now = motor.next_due
    assert motor.disabled
    assert motor.values["duty_cycle"] == 0


def test_motors_move_switches_and_the_battery_feel_it() -> None:
    world = World()
    motor, switch, battery = (make(name, world=world) for name in ("polar-bear", "limit-switch", "battery"))
    for device in (motor, switch, battery):
        device.handle(DevRead(0), 0)
    rested = battery.values["v_batt"]
    motor.handle(duty(1), 0)
    for step in range(1, 100):
        for device in (motor, switch, battery):
            device.handle(DevRead(0), step * 0.04)
    assert motor.values["enc_pos"] > TRAVEL
    assert motor.values["enc_vel"] > 0
    assert switch.values["switch1"]
    assert not switch.values["switch0"]
    assert battery.values["v_batt"] < rested


async def test_a_device_on_a_link_answers_and_sends_on_its_own() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = frames.FrameReader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_emulated, make("limit-switch"), StreamLink(theirs, "device"))
        await ours.send_all(b"\x01\0" + frames.encode(SubReq(1, 40)) + frames.encode(HbReq(3)))
        found: list[object] = []
        with trio.fail_after(10):
            while len(found) < 6:
                found += reader.feed(bytes(await ours.receive_some()))
        assert found[:3] == [Error(ErrorCode.UNEXPECTED_DELIMITER), SubRes(1, 40, 7), HbRes(3)]
        assert found[3:] == [DevData(1, b"\0")] * 3
        await ours.aclose()


async def test_a_device_on_a_pty_is_a_serial_port_until_it_is_unplugged(tmp_path: Path) -> None:
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve_pty, make("limit-switch"), tmp_path / "ttyACM0")
            for _ in range(2):  # it outlives who opens it
                link = await SerialLink.open(port)
                await link.send(frames.encode(Ping()))
                assert await link.receive() == frames.encode(SubRes(0, 0, 7))
                await link.aclose()
            nursery.cancel_scope.cancel()
    assert not os.listdir(tmp_path)  # noqa: PTH208 - the loop has nothing else to do


@pytest.mark.parametrize(
    ("spec", "uid", "values"),
    [
        ("12345", 12345, {}),
        ("0xC_07_0123456789ABCDEF", 0x000C_07_0123456789ABCDEF, {}),
        ("polar-bear", 12 << 72, {}),
        ("polar-bear@3", 12 << 72 | 3, {}),
        ('limit-switch@1:{"switch0": true}', 1, {"switch0": True}),
        ('12:{"switch2": 1}', 12, {"switch2": True}),
    ],
)
def test_a_uid_spec_names_device_and_values(spec: str, uid: int, values: dict[str, Any]) -> None:
    assert parse_uid_spec(spec, CATALOG) == (uid, values)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "names no device"),
        ("gamepad", "names no device"),
        ("polar-bear@x", "names no device"),
        (str(2**88), "names no device"),
        (str(99 << 72), "device id 99"),
        ("polar-bear:{", "not JSON"),
        ("polar-bear:[]", "must be an object"),
        ('polar-bear:{"dutycycle": 1}', "duty_cycle"),
        ('polar-bear:{"duty_cycle": "fast"}', "takes a number"),
    ],
)
def test_a_bad_uid_spec_says_what_is_wrong(spec: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        parse_uid_spec(spec, CATALOG)
