"""The parts of commands for devices: names, values, statistics, signals and output."""

import contextlib
import io
import json
import math
import os
import signal
import struct
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from rt import catalog
from rt.buffer import BufferStore
from rt.cli.ping import RoundTrips
from rt.client import device_table
from rt.client.device import Device, Devices
from rt.errors import DeviceError, InstanceAbsentError
from rt.instance import Holder
from rt.process.signals import run_until_signal
from rt.protocol.message import DevData
from rt.terminal.output import Output, as_text, jsonable

CATALOG = catalog.load()
MOTOR = 12 << 72 | 1
SWITCH = 5


@pytest.fixture
def store() -> BufferStore:
    return BufferStore(CATALOG, "", shared=False)


@pytest.fixture
def motor(store: BufferStore) -> Device:
    buffer = store.get_or_open(MOTOR)
    buffer.valid = True
    return Device(MOTOR, "left_motor", buffer)


class TestDevice:
    def test_default_is_every_readable_parameter(self, motor: Device) -> None:
        assert motor.readable(()) == [
            "duty_cycle",
            "enc_pos",
            "enc_vel",
            "motor_current",
            "deadband",
        ]
        assert motor.readable(("enc_vel", "enc_pos", "enc_vel")) == ["enc_vel", "enc_pos"]

    def test_unknown_parameter_suggests_nearest(self, motor: Device) -> None:
        with pytest.raises(DeviceError, match="did you mean enc_pos"):
            motor.readable(("enc_vel", "enc_po"))
        with pytest.raises(DeviceError, match=r"left_motor\.pid_pos_kp is write-only"):
            motor.readable(("pid_pos_kp",))

    def test_floats_have_digits_of_device(self, motor: Device) -> None:
        motor.buffer.set("enc_pos", 0.1)
        motor.buffer.update(DevData(1 << 11, struct.pack("<f", math.inf)))
        values = motor.values(["enc_pos", "enc_vel"])
        assert values == {"enc_pos": 0.1, "enc_vel": math.inf}
        row = motor.row(values)
        assert row["values"] == {"enc_pos": 0.1, "enc_vel": None}
        assert row["time"].endswith("Z")
        json.dumps(row, allow_nan=False)

    def test_disconnected_device_is_reported(self, motor: Device) -> None:
        motor.buffer.valid = False
        with pytest.raises(DeviceError, match="left_motor was disconnected"):
            motor.values(["enc_pos"])

    def test_values_are_formatted_for_shell_tools(self) -> None:
        assert [as_text(value) for value in (True, False, 7, -0.5, math.nan)] == [
            "true",
            "false",
            "7",
            "-0.5",
            "nan",
        ]
        assert jsonable({"a": math.nan, "b": True, "c": 1}) == {"a": None, "b": True, "c": 1}


class Held:
    """An instance with a sequence of holders, of which the last one stays."""

    name = "arm"

    def __init__(self, holders: list[Holder | None]) -> None:
        self._holders = holders

    def holder(self) -> Holder | None:
        return self._holders.pop(0) if len(self._holders) > 1 else self._holders[0]


@pytest.mark.parametrize("then", [None, Holder(2, "later")])
def test_restarted_robot_counts_as_ended(store: BufferStore, then: Holder | None) -> None:
    link: Any = SimpleNamespace(instance=Held([Holder(1), Holder(1), then]))
    devices = Devices(link, store, {})
    devices.require()
    with pytest.raises(InstanceAbsentError, match="'arm' has ended"):
        devices.require()


class TestTypes:
    @pytest.fixture
    def devices(self, store: BufferStore) -> Devices:
        async def issue_call(*_: object, **__: object) -> list[str]:
            await trio.lowlevel.checkpoint()
            return [str(MOTOR), str(SWITCH), str(SWITCH + 1)]

        for uid in (MOTOR, SWITCH, SWITCH + 1):
            store.get_or_open(uid).valid = True
        link: Any = SimpleNamespace(
            client=SimpleNamespace(issue_call=issue_call), instance=Held([Holder(1)])
        )
        return Devices(link, store, {"left_motor": MOTOR, "servo-motor": SWITCH})

    async def test_type_selects_its_only_device(self, devices: Devices) -> None:
        assert [each.uid for each in await devices.find(["polar-bear", "left_motor"])] == [MOTOR]
        assert (await devices.find_one("servo-motor")).uid == SWITCH  # a name overrides a type

    async def test_ambiguous_or_absent_type_is_reported(self, devices: Devices) -> None:
        with pytest.raises(
            DeviceError, match="2 devices of type limit-switch are connected; use servo-motor or 6"
        ):
            await devices.find_one("limit-switch")
        with pytest.raises(DeviceError, match="no device of type rfid is connected; `rt devices`"):
            await devices.find_one("rfid")
        assert devices.of_type("limit-switch", [MOTOR, SWITCH]) == [SWITCH]


class TestRows:
    def test_rows_contain_chosen_devices_and_counters(
        self, store: BufferStore, motor: Device
    ) -> None:
        store.get_or_open(SWITCH)
        motor.buffer.set("enc_pos", 1.0)
        motor.buffer.set("enc_pos", 2.0)
        assert {row["uid"] for row in device_table.device_rows(store, {})} == {
            str(MOTOR),
            str(SWITCH),
        }
        (row,) = device_table.device_rows(store, {MOTOR: "left_motor"}, [MOTOR])
        assert row["name"] == "left_motor"
        assert (row["received"]["enc_pos"], row["received"]["enc_vel"], row["sent"]["enc_pos"]) == (
            2,
            0,
            0,
        )
        assert 0 <= row["age"] < 60
        assert (row["subscription"], row["interval"]) == ([], 0.0)
        (row,) = device_table.device_rows(store, {}, [SWITCH])
        assert row["age"] is None
        json.dumps(row, allow_nan=False)


class TestRoundTrips:
    def test_statistics_match_ping(self, motor: Device) -> None:
        trips = RoundTrips(motor)
        for seconds in (0.001, 0.002, None, 0.006):
            trips.add(seconds)
        assert trips.summary().splitlines() == [
            f"--- left_motor (polar-bear {MOTOR}) ---",
            "4 requests, 3 answers, 25% loss",
            "min/avg/max/mdev = 1.00/3.00/6.00/2.16 ms",
        ]

    def test_statistics_without_answers_have_no_times(self, motor: Device) -> None:
        trips = RoundTrips(motor._replace(name=str(MOTOR)))
        assert trips.summary() == f"--- {MOTOR} (polar-bear) ---\n0 requests, 0 answers, 0% loss"
        trips.add(None)
        assert trips.summary().endswith("\n1 requests, 0 answers, 100% loss")


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restore the signal handlers after the test."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_second_signal_does_not_interrupt_cleanup(handlers: None, number: int) -> None:
    steps = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                os.kill(os.getpid(), number)
                await trio.lowlevel.checkpoint()
                steps.append("put back")

    with trio.fail_after(30):
        await run_until_signal(work)
    os.kill(os.getpid(), number)
    await trio.lowlevel.checkpoint()
    assert steps == ["put back"]


async def test_handlers_are_restored_without_signal(handlers: None) -> None:
    before = signal.getsignal(signal.SIGTERM)
    await run_until_signal(trio.lowlevel.checkpoint)
    assert signal.getsignal(signal.SIGTERM) is before


async def test_line_is_cancellable_while_reader_is_slow(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with open(read, "rb"), open(write, "w") as stdout:  # noqa: ASYNC230, PTH123
        monkeypatch.setattr("sys.stdout", stdout)
        output = Output()
        with trio.fail_after(30):
            await output.line("taken at once")
        with contextlib.suppress(BlockingIOError):
            while os.write(write, b"x" * 4096):
                pass
        with trio.move_on_after(1) as scope:
            await output.line("never taken")
        assert scope.cancelled_caught


async def test_line_is_written_at_once_without_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.StringIO()
    monkeypatch.setattr("sys.stdout", stdout)
    await Output().line("a line")
    assert stdout.getvalue() == "a line\n"
