"""Emulated devices answer as firmware does."""

import ctypes
import functools
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from rt import catalog
from rt.catalog import Parameter, Peripheral
from rt.catalog.load import parse
from rt.emulator.lines import EmulatedDevice, run_emulated, serve_pty
from rt.emulator.scheduler import Scheduler
from rt.emulator.simulation import TRAVEL, Signal, SimState, WaveSimulation
from rt.emulator.uid_spec import parse_uid_spec, parse_uid_specs
from rt.errors import DeviceError, RemoteProtocolError
from rt.link.link import StreamLink
from rt.link.serial import SerialLink
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

CATALOG = catalog.load()
MOTOR = CATALOG["polar-bear"]
DUTY = 0b1
NAMES = {"left_motor": 12 << 72 | 99, "odd:name": 5}


def make(
    name: str, values: dict[str, Any] | None = None, sim_state: SimState | None = None
) -> EmulatedDevice:
    peripheral = CATALOG[name]
    assert peripheral.device_id is not None
    return EmulatedDevice(peripheral, peripheral.device_id << 72 | 7, values, sim_state=sim_state)


def duty(value: float) -> DevWrite:
    return DevWrite(DUTY, struct.pack("<f", value))


def test_ping_is_answered_with_identity_and_subscription() -> None:
    motor = make("polar-bear")
    assert motor.handle(Ping(), 0) == [SubRes(0, 0, 12 << 72 | 7)]


@pytest.mark.parametrize(
    ("asked", "granted"), [(1, 40), (40, 40), (100, 100), (250, 250), (65535, 250), (0, 0)]
)
def test_interval_is_clamped_to_40_to_250_ms(asked: int, granted: int) -> None:
    (answer,) = make("limit-switch").handle(SubReq(0b101, asked), 0)
    assert answer == SubRes(0b101 if granted else 0, granted, 7)


def test_subscription_omits_write_only_parameters() -> None:
    (answer,) = make("polar-bear").handle(SubReq(0xFFFF, 40), 0)
    assert isinstance(answer, SubRes)
    assert answer.params == MOTOR.readable


def test_subscription_to_no_readable_parameter_is_silent() -> None:
    motor = make("polar-bear")
    (answer,) = motor.handle(SubReq(0b10, 40), 0)
    assert answer == SubRes(0, 40, motor.uid)
    assert not any(isinstance(message, DevData) for message in motor.due(1.0))


def test_interval_of_zero_ends_the_subscription() -> None:
    switch = make("limit-switch")
    switch.handle(SubReq(0b1, 40), 0)
    assert switch.handle(SubReq(0b1, 0), 0.01) == [SubRes(0, 0, 7)]
    assert switch.next_due == float("inf")
    assert switch.due(1.0) == []
    assert switch.handle(Ping(), 1.0) == [SubRes(0, 0, 7)]


def test_reset_ends_the_subscription() -> None:
    switch = make("limit-switch")
    switch.handle(SubReq(0b1, 40), 0)
    switch.reset()
    assert switch.handle(Ping(), 0) == [SubRes(0, 0, 7)]


def test_subscribed_values_are_sent_at_the_interval() -> None:
    switch = make("limit-switch", {"switch0": True})
    assert switch.next_due == float("inf")
    switch.handle(SubReq(0b1, 40), 1.0)
    assert switch.due(1.03) == []
    assert switch.next_due == pytest.approx(1.04)
    assert switch.due(1.04) == [DevData(1, b"\1")]
    assert switch.due(1.05) == []
    assert len(switch.due(9.0)) == 1
    assert switch.due(9.01) == []
    assert len(switch.due(9.04)) == 1


def test_written_value_is_stored_and_answered_if_readable() -> None:
    motor = make("polar-bear")
    assert motor.handle(duty(-0.5), 0) == [DevData(DUTY, struct.pack("<f", -0.5))]
    assert motor.handle(DevWrite(0b10, struct.pack("<f", 3)), 0) == []
    assert motor.values["duty_cycle"] == -0.5
    assert motor.values["pid_pos_setpoint"] == 3


def test_write_ignores_read_only_parameters() -> None:
    motor = make("polar-bear", {"enc_vel": 2})
    motor.handle(DevDisable(), 0)
    assert motor.handle(DevWrite(1 << 11, struct.pack("<f", 9)), 0) == []
    assert motor.values["enc_vel"] == 2
    assert motor.disabled
    both = DevWrite(DUTY | 1 << 11, struct.pack("<ff", 0.25, 9))
    assert motor.handle(both, 0) == [DevData(DUTY, struct.pack("<f", 0.25))]
    assert motor.values["enc_vel"] == 2
    assert not motor.disabled


def test_values_are_split_into_several_messages() -> None:
    params = ", ".join(f'{{name = "a{number}", type = "uint8[100]"}}' for number in range(4))
    known = parse(f'[camera]\ndevice_id = 40\nparams = [{params}, {{name = "on", type = "bool"}}]')
    uid, values = parse_uid_spec(f'camera:{{"a1": {[7] * 100}, "on": true}}', known)
    device = EmulatedDevice(known["camera"], uid, values)
    answers = device.handle(DevRead(0b11111), 0)
    assert answers == [
        DevData(0b00011, bytes(100) + b"\7" * 100),
        DevData(0b11100, bytes(200) + b"\1"),
    ]
    with pytest.raises(DeviceError, match="does not fit"):
        EmulatedDevice(known["camera"], uid, {"a0": [0] * 101})
    with pytest.raises(DeviceError, match="must be a list"):
        EmulatedDevice(known["camera"], uid, {"a0": 1})
    assert device.handle(DevWrite(0b10000, b"\0"), 0) == []


def test_read_of_nothing_is_answered_with_no_values() -> None:
    assert make("polar-bear").handle(DevRead(0b10), 0) == [DevData(0, b"")]


def test_read_is_answered_with_readable_parameters() -> None:
    rfid = make("rfid", {"id": 0xDEADBEEF, "tag_detect": 1})
    assert rfid.handle(DevRead(0xFFFF), 0) == [DevData(0b11, bytes.fromhex("efbeadde01"))]


def test_disabled_device_stops_and_keeps_answering() -> None:
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
def test_malformed_message_is_answered_with_error(
    message: Message | RemoteProtocolError, code: ErrorCode
) -> None:
    assert make("polar-bear").handle(message, 0) == [Error(code)]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x02\x77\x02\x77", ErrorCode.INVALID_TYPE),
        (frames.encode(Ping())[:-2] + b"\x11", ErrorCode.BAD_CHECKSUM),
        (b"\x09\x10", ErrorCode.UNEXPECTED_DELIMITER),
        (b"\x02\x10", ErrorCode.UNEXPECTED_DELIMITER),
        (b"\x01" * 300, ErrorCode.BUFFER_OVERFLOW),
        (b"\x04\x17\x02\x01\x02\x14", ErrorCode.GENERIC_ERROR),
    ],
)
def test_invalid_frame_is_answered_with_its_error_code(frame: bytes, code: ErrorCode) -> None:
    (item,) = frames.FrameReader().feed(frame + b"\0")
    assert make("polar-bear").handle(item, 0) == [Error(code)]


def test_error_is_not_answered() -> None:
    assert make("polar-bear").handle(Error(ErrorCode.BAD_CHECKSUM), 0) == []


def test_device_stops_without_heartbeat_answers() -> None:
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


def test_motors_affect_switches_and_battery() -> None:
    sim_state = SimState()
    motor, switch, battery = (
        make(name, sim_state=sim_state) for name in ("polar-bear", "limit-switch", "battery")
    )
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


async def test_many_devices_share_one_scheduler(autojump_clock: MockClock) -> None:
    scheduler = Scheduler()
    counts = dict.fromkeys(range(20), 0)

    async def count(stream: trio.abc.Stream, number: int) -> None:
        await stream.send_all(frames.encode(SubReq(1, 40 + 10 * number)))
        async for data in stream:
            counts[number] += data.count(b"\0")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        for number in counts:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(count, ours, number)
            nursery.start_soon(
                functools.partial(run_emulated, scheduler=scheduler),
                make("limit-switch"),
                StreamLink(theirs, ""),
            )
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    for number, found in counts.items():
        assert found == pytest.approx(10_000 / (40 + 10 * number) + 1, abs=2)


async def test_full_line_delays_no_other_device(autojump_clock: MockClock) -> None:
    scheduler = Scheduler()
    full, full_end = trio.testing.lockstep_stream_pair()
    free, free_end = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        for end in (full_end, free_end):
            nursery.start_soon(
                functools.partial(run_emulated, scheduler=scheduler),
                make("limit-switch"),
                StreamLink(end, ""),
            )
        await full.send_all(frames.encode(SubReq(1, 40)))
        await free.send_all(frames.encode(SubReq(1, 40)))
        found = b""
        with trio.move_on_after(10):
            while True:
                found += await free.receive_some()
        assert found.count(b"\0") == pytest.approx(251, abs=2)
        # What the full line missed is skipped, not made up for.
        held = b""
        with trio.move_on_after(0.3):
            while True:
                held += await full.receive_some()
        assert held.count(b"\0") < 15
        nursery.cancel_scope.cancel()


async def test_device_on_link_answers_and_reports() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    reader = frames.FrameReader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_emulated, make("limit-switch"), StreamLink(theirs, "device"))
        await ours.send_all(b"\x01\0" + frames.encode(SubReq(1, 40)) + frames.encode(HbReq(3)))
        found: list[object] = []
        with trio.fail_after(30):
            while len(found) < 6:
                found += reader.feed(bytes(await ours.receive_some()))
        assert found[:3] == [Error(ErrorCode.UNEXPECTED_DELIMITER), SubRes(1, 40, 7), HbRes(3)]
        assert found[3:] == [DevData(1, b"\0")] * 3
        await ours.aclose()


async def test_device_on_pty_is_a_serial_port(tmp_path: Path) -> None:
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            port = await nursery.start(serve_pty, make("limit-switch"), tmp_path / "ttyACM0")
            for _ in range(2):  # it survives its users
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
        ("polar-bear@3..3", 12 << 72 | 3, {}),
        ("left_motor", 12 << 72 | 99, {}),
        ('left_motor:{"duty_cycle": 0.5}', 12 << 72 | 99, {"duty_cycle": 0.5}),
        ("odd:name", 5, {}),
        ('limit-switch@1:{"switch0": true}', 1, {"switch0": True}),
        ('12:{"switch2": 1}', 12, {"switch2": True}),
    ],
)
def test_uid_spec_names_device_and_values(spec: str, uid: int, values: dict[str, Any]) -> None:
    assert parse_uid_spec(spec, CATALOG, NAMES) == (uid, values)


def test_range_names_many_devices_with_same_values() -> None:
    uids, values = parse_uid_specs('limit-switch@1..64:{"switch0": true}', CATALOG)
    assert uids == list(range(1, 65))
    assert values == {"switch0": True}
    with pytest.raises(DeviceError, match="64 devices, expected one"):
        parse_uid_spec("limit-switch@1..64", CATALOG)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "names no device"),
        ("gamepad", "names no device"),
        ("polar-bear@x", "names no device"),
        ("polar-bear@-1", "names no device"),
        ("polar-bear@1..x", "names no device"),
        ("polar-bear@5..4", "names 0 devices"),
        ("polar-bear@1..9999", "at most 1024"),
        ("left_moter", "did you mean left_motor"),
        ("polar_baer@2", "did you mean polar-bear"),
        ('rfid:{"id": true, "tag_detect": 3.5}', "must be an integer"),
        ('potentiometer:{"pot0": NaN}', "NaN"),
        (str(2**88), "names no device"),
        (str(99 << 72), "device id 99"),
        ("polar-bear:{", "not JSON"),
        ("polar-bear:[]", "must be an object"),
        ('polar-bear:{"dutycycle": 1}', "duty_cycle"),
        ('polar-bear:{"duty_cycle": "fast"}', "must be a number"),
    ],
)
def test_invalid_uid_spec_is_explained(spec: str, reason: str) -> None:
    with pytest.raises(DeviceError, match=reason):
        parse_uid_spec(spec, CATALOG, NAMES)


SENSORS = [
    (peripheral, param)
    for peripheral in CATALOG.values()
    if peripheral.device_id is not None
    for param in peripheral.params
    if param.readable and not param.writeable
]


@given(st.sampled_from(SENSORS), st.integers(0, 2**64 - 1), st.lists(st.floats(0, 10), max_size=30))
def test_wave_depends_on_time_and_fits_its_parameter(
    sensor: tuple[Peripheral, Parameter], uid: int, steps: list[float]
) -> None:
    peripheral, param = sensor
    one, other = (EmulatedDevice(peripheral, uid, wave=True) for _ in range(2))
    now = 0.0
    one.handle(DevRead(0), 0)
    other.handle(DevRead(0), 0)
    for step in steps:
        now += step
        one.handle(DevRead(0), now)
    other.handle(DevRead(0), now)
    assert one.values[param.name] == pytest.approx(other.values[param.name], abs=1e-6)
    assert param.checked(one.values[param.name]) == one.values[param.name]
    assert len(one.handle(DevRead(1 << param.id), now)) == 1


@pytest.mark.parametrize(
    ("param", "low", "high"),
    [
        (Parameter("x", ctypes.c_float, 0), -1, 1),
        (Parameter("x", ctypes.c_float, 0, lower=2, upper=8), 2, 8),
        (Parameter("x", ctypes.c_float, 0, lower=2), 2, 4),
        (Parameter("x", ctypes.c_float, 0, upper=2), 0, 2),
        (Parameter("x", ctypes.c_int16, 0), 0, 100),
        (Parameter("x", ctypes.c_int8, 0, lower=-5, upper=5), -5, 5),
        (Parameter("x", ctypes.c_uint8, 0, upper=1e9), 0, 255),
        (Parameter("x", ctypes.c_int8, 0, lower=-1000), -128, 100),
        (Parameter("x", ctypes.c_int8, 0, upper=-20), -120, -20),
        (Parameter("x", ctypes.c_bool, 0), False, True),
    ],
)
def test_wave_spans_the_limits(param: Parameter, low: float, high: float) -> None:
    wave = Signal(param, 0.3)
    values = [wave.at(number / 100) for number in range(2000)]
    assert min(values) == pytest.approx(low, abs=0.01)
    assert max(values) == pytest.approx(high, abs=0.01)


def test_sensors_have_own_phases_and_fixed_values_stay() -> None:
    meters = [
        EmulatedDevice(CATALOG["potentiometer"], 2 << 72 | n, {"pot1": 0.5}, wave=True)
        for n in range(1, 6)
    ]
    for meter in meters:
        meter.handle(DevRead(0), 0)
        meter.handle(DevRead(0), 1)
    moving = [meter.values[name] for meter in meters for name in ("pot0", "pot2")]
    assert len({round(value, 4) for value in moving}) == len(moving)
    assert [meter.values["pot1"] for meter in meters] == [0.5] * 5
    motor = EmulatedDevice(MOTOR, 12 << 72, wave=True)
    motor.handle(duty(0.5), 0)
    motor.handle(DevRead(0), 1)
    assert motor.values["duty_cycle"] == 0.5
    assert [name for name, _ in WaveSimulation(MOTOR, 1)._waves] == ["enc_vel", "motor_current"]


def test_value_beyond_its_type_can_be_sent() -> None:
    _, values = parse_uid_spec('potentiometer:{"pot0": 1e300, "pot1": Infinity}', CATALOG)
    (answer,) = make("potentiometer", values).handle(DevRead(0b11), 0)
    assert isinstance(answer, DevData)
