import itertools
import math
import os
import signal
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from rt import catalog
from rt.buffer import Buffer, BufferStore, DeviceBuffer, NullDevice, segment
from rt.buffer.clock import boottime_ns
from rt.buffer.write_event import WriteEvent
from rt.errors import BufferBusyError, DeviceBufferError, RemoteProtocolError
from rt.protocol.message import DevData, DevRead, DevWrite, SubReq, SubRes
from rt.protocol.uid import DeviceUID

CATALOG = catalog.load()
MOTOR = int(DeviceUID(12, 7, 0x0123456789ABCDEF))
SWITCH = int(DeviceUID(0, 7, 1))
DEVICES = [device for device in CATALOG.values() if device.device_id is not None]


def private(uid: int = MOTOR) -> DeviceBuffer:
    buffer = BufferStore(CATALOG, "", shared=False, lock_timeout=0.01).get_or_open(uid)
    buffer.valid = True
    return buffer


def test_write_becomes_one_message() -> None:
    buffer = private()
    assert not buffer.dirty
    buffer.write("duty_cycle", -0.5)
    assert buffer.dirty
    assert buffer.emit_dev_rw() == [DevWrite(1, bytes.fromhex("000000bf"))]
    assert not buffer.dirty
    assert buffer.emit_dev_rw() == []


def test_newest_write_wins() -> None:
    buffer = private()
    buffer.write("duty_cycle", 1.0)
    buffer.write("duty_cycle", 0.25)
    assert buffer.get_write() == {"duty_cycle": 0.25}
    assert buffer.get_write() == {}


def test_reads_come_before_writes() -> None:
    buffer = private()
    buffer.write("duty_cycle", 0.0)
    buffer.read(["enc_pos", "enc_vel"])
    assert buffer.emit_dev_rw() == [DevRead(0b1100 << 8), DevWrite(1, bytes(4))]


def test_received_values_can_be_read() -> None:
    buffer = private(SWITCH)
    buffer.update(DevData(0b101, b"\x01\x00"))
    assert buffer.snapshot() == {"switch0": True, "switch1": False, "switch2": False}
    assert buffer.get("switch0") is True
    assert buffer.get_update() == {"switch0": True, "switch2": False}
    assert buffer.get_update() == {}
    assert buffer.last_update > 0


@given(st.sampled_from(DEVICES), st.data())
def test_blocks_of_every_device_are_in_wire_order(
    device: catalog.Peripheral, data: st.DataObject
) -> None:
    bitmap = data.draw(st.integers(0, device.bitmap()))
    size = len(device.pack(dict.fromkeys(device.names(bitmap), 0))[1])
    payload = data.draw(st.binary(min_size=size, max_size=size))
    buffer = (
        NullDevice.private()
        if not device.params
        else private(int(DeviceUID(device.device_id, 1, 1)))
    )
    buffer.update(DevData(bitmap, payload))
    wanted = device.unpack(bitmap & device.readable, _readable_part(device, bitmap, payload))
    assert {name: buffer.get(name) for name in wanted} == pytest.approx(wanted, nan_ok=True)
    assert [message.params for message in buffer.emit_dev_data()] == (
        [bitmap & device.readable] if bitmap & device.readable else []
    )


def _readable_part(device: catalog.Peripheral, bitmap: int, payload: bytes) -> bytes:
    part, position = b"", 0
    for name in device.names(bitmap):
        size = len(device.pack({name: 0})[1])
        part += payload[position : position + size] if device.param(name).readable else b""
        position += size
    return part


def test_invalid_message_changes_nothing() -> None:
    buffer = private(SWITCH)
    for message in (DevData(0b1, b"\x01\x01"), DevData(0b1000, b""), DevData(0b11, b"\x01")):
        with pytest.raises(RemoteProtocolError):
            buffer.update(message)
    assert buffer.get_update() == {}


def test_long_writes_are_split_into_messages() -> None:
    table = ", ".join(
        f'{{name = "p{number}", type = "uint64[4]", writeable = true}}' for number in range(16)
    )
    known = catalog.parse(f"[wide]\ndevice_id = 9\nparams = [{table}]")
    buffer = BufferStore(known, "", shared=False).get_or_open(9 << 72)
    buffer.valid = True
    for number in range(16):
        buffer.write(f"p{number}", [number] * 4)
    messages = buffer.emit_dev_rw()
    assert all(isinstance(message, DevWrite) and len(message.data) <= 253 for message in messages)
    assert sum(message.params for message in messages) == 0xFFFF
    assert all(first.params < second.params for first, second in itertools.pairwise(messages))


def test_granted_subscription_is_stored() -> None:
    buffer = private()
    assert buffer.make_sub_req() == SubReq(0x3C01, 40)
    assert buffer.make_sub_req(["enc_pos"], 0.1) == SubReq(1 << 10, 100)
    with pytest.raises(OverflowError):
        buffer.make_sub_req(None, 65.536)
    buffer.update(SubRes(1 << 10, 100, MOTOR))
    assert (buffer.subscription, buffer.interval, int(buffer.uid)) == (["enc_pos"], 0.1, MOTOR)
    assert buffer.make_sub_res() == SubRes(1 << 10, 100, MOTOR)


def test_parameters_are_checked_by_name_and_access() -> None:
    buffer = private()
    with pytest.raises(DeviceBufferError, match="did you mean duty_cycle"):
        buffer.get("dutycycle")
    with pytest.raises(DeviceBufferError, match="pid_pos_kp is not readable"):
        buffer.get("pid_pos_kp")
    with pytest.raises(DeviceBufferError, match="enc_vel is not writeable"):
        buffer.write("enc_vel", 1.0)
    buffer.write("duty_cycle", 7)
    assert buffer.get_write() == {"duty_cycle": 1.0}


def test_disconnected_device_is_neither_read_nor_written() -> None:
    buffer = private()
    buffer.valid = False
    with pytest.raises(DeviceBufferError, match="not connected"):
        buffer.get("duty_cycle")
    with pytest.raises(DeviceBufferError, match="not connected"):
        buffer.write("duty_cycle", 1.0)
    with pytest.raises(DeviceBufferError), buffer.transaction():
        pass
    assert not buffer.dirty


def test_discarded_writes_are_counted() -> None:
    buffer = private()
    buffer.write("duty_cycle", 1.0)
    buffer.write("deadband", 0.1)
    assert buffer.discard_writes() == 2
    assert buffer.counters.writes_dropped == 2
    assert buffer.emit_dev_rw() == []


def test_arrays_are_read_and_set_as_lists() -> None:
    field = BufferStore(CATALOG, "", shared=False).get_or_open(("field", 0))
    field.valid = True
    assert field.get("send_buf") == [0] * 4096
    field.set("send_buf", [7] * 4096)
    assert field.get("send_buf")[4095] == 7
    with pytest.raises(TypeError, match="4096 elements"):
        field.set("send_buf", [1])


async def test_first_pending_write_signals_the_write_event() -> None:
    wakeup = WriteEvent()
    buffer = private()
    buffer.write_event = wakeup
    buffer.write("duty_cycle", 0.1)
    with trio.fail_after(30):
        await wakeup.wait()
    buffer.write("duty_cycle", 0.2)
    assert not wakeup.clear()
    buffer.emit_dev_rw()
    buffer.write("duty_cycle", 0.3)
    assert wakeup.clear()
    wakeup.close()


def test_two_stores_see_one_buffer(prefix: str) -> None:
    with BufferStore(CATALOG, prefix) as device, BufferStore(CATALOG, prefix) as team:
        with pytest.raises(DeviceBufferError, match="no buffer"):
            team.get_or_open(MOTOR, create=False)
        ours = device.get_or_open(MOTOR)
        ours.valid = True
        theirs = team.get_or_open(MOTOR, create=False)
        theirs.write("duty_cycle", 0.5)
        assert ours.get_write() == {"duty_cycle": 0.5}
        assert team.existing() == [("polar-bear", MOTOR)]
        assert list(team.devices()) == [MOTOR]


def test_restarted_owner_reopens_its_buffer(prefix: str) -> None:
    with BufferStore(CATALOG, prefix) as store:
        store.get_or_open(SWITCH).set("switch1", True)
    with BufferStore(CATALOG, prefix) as store:
        buffer = store.get_or_open(SWITCH)
        buffer.valid = True
        assert buffer.get("switch1") is True


def test_only_the_owner_replaces_a_buffer_of_another_layout(prefix: str) -> None:
    other = catalog.parse('[limit-switch]\ndevice_id = 0\nparams = [{name = "x", type = "int64"}]')
    with BufferStore(other, prefix) as store:
        store.get_or_open(SWITCH)
    with (
        BufferStore(CATALOG, prefix) as reader,
        pytest.raises(DeviceBufferError, match="another catalog entry"),
    ):
        reader.get_or_open(SWITCH, create=False)
    with BufferStore(CATALOG, prefix) as owner:
        owner.get_or_open(SWITCH).valid = True
    segment.create(f"{prefix}battery@{4 << 72}", 7, lambda _: None)
    with (
        BufferStore(CATALOG, prefix) as reader,
        pytest.raises(DeviceBufferError, match="only 7 bytes"),
    ):
        reader.get_or_open(4 << 72, create=False)


def test_transaction_of_a_killed_process_is_rolled_back(prefix: str) -> None:
    with BufferStore(CATALOG, prefix, lock_timeout=0.01) as store:
        buffer = store.get_or_open(MOTOR)
        buffer.valid = True
        buffer.set("enc_pos", 1.0)
        pid = os.fork()
        if pid == 0:
            buffer = BufferStore(CATALOG, prefix, lock_timeout=0.01).get_or_open(MOTOR)
            with buffer.transaction():
                buffer.set("enc_pos", 7.0)
                buffer.write("deadband", 0.25)
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert buffer.get("enc_pos") == 1.0
        assert buffer.recoveries == 1
        assert buffer.get_write() == {}
        buffer.write("duty_cycle", 0.5)
        assert buffer.get_write() == {"duty_cycle": 0.5}


def test_process_killed_outside_a_transaction_leaves_its_values(prefix: str) -> None:
    with BufferStore(CATALOG, prefix, lock_timeout=0.01) as store:
        buffer = store.get_or_open(MOTOR)
        buffer.valid = True
        pid = os.fork()
        if pid == 0:
            buffer = BufferStore(CATALOG, prefix, lock_timeout=0.01).get_or_open(MOTOR)
            with buffer._lock:
                buffer.set("enc_pos", 7.0)
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        assert buffer.get("enc_pos") == 7.0
        assert buffer.recoveries == 1


def test_stopped_owner_of_the_lock_blocks_no_other_process(prefix: str) -> None:
    with BufferStore(CATALOG, prefix, lock_timeout=0) as store:
        buffer = store.get_or_open(MOTOR)
        buffer.valid = True
        held, holding = os.pipe()
        pid = os.fork()
        if pid == 0:
            buffer = BufferStore(CATALOG, prefix, lock_timeout=0).get_or_open(MOTOR)
            with buffer.transaction():
                os.write(holding, b"x")
                signal.pause()
        os.read(held, 1)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(BufferBusyError):
            buffer.get("duty_cycle")
        with pytest.raises(BufferBusyError), buffer.transaction():
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(held)
        os.close(holding)
        assert buffer.get("duty_cycle") == 0.0


def test_missing_directory_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segment, "DIRECTORY", tmp_path / "absent")
    with (
        BufferStore(CATALOG, "rt-test.") as store,
        pytest.raises(DeviceBufferError, match="cannot create"),
    ):
        store.get_or_open(MOTOR)


def test_unknown_keys_are_key_errors() -> None:
    store = BufferStore(CATALOG, "", shared=False)
    for key in (("toaster", 0), 99 << 72):
        with pytest.raises(KeyError):
            store.get_or_open(key)


def test_types_can_be_created_without_a_catalog() -> None:
    buffer = Buffer.make_type("plain", CATALOG["limit-switch"].params).private()
    buffer.set("switch0", True)
    buffer.valid = True
    assert buffer.get("switch0") is True


def test_age_is_that_of_the_last_value() -> None:
    buffer = private()
    assert buffer.age == float("inf")
    buffer.set("duty_cycle", 0.5)
    assert 0 <= buffer.age < 1


def test_age_includes_the_time_of_suspends(monkeypatch: pytest.MonkeyPatch) -> None:
    pad = BufferStore(CATALOG, "", shared=False).get_or_open(("gamepad", 0))
    assert pad.age == math.inf
    pad.set("joystick_left_x", 1.0)
    woken = boottime_ns() + 3600 * 10**9
    monkeypatch.setattr("rt.buffer.buffer.boottime_ns", lambda: woken)
    assert pad.age >= 3599
