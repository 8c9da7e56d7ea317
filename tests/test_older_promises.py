"""Tests that rt keeps the documented behaviour of the older package.

docs/migration.md lists the exceptions.
"""

import ctypes
import inspect
import time
from collections.abc import Mapping
from typing import Any

import pytest
from support.names import find

from rt import catalog
from rt.buffer import Buffer, BufferStore, DeviceBuffer, DeviceBufferError, NullDevice, Parameter
from rt.errors import DeviceError, RuntimeBaseException
from rt.protocol.message import DevData, DevRead, DevWrite, SubReq, SubRes
from rt.protocol.uid import DeviceUID

CATALOG = catalog.load()
MOTOR = int(DeviceUID(12, 7, 1))


@pytest.fixture
def store() -> BufferStore:
    return BufferStore(CATALOG, "", shared=False)


@pytest.fixture
def motor(store: BufferStore) -> DeviceBuffer:
    buffer = store.get_or_open(MOTOR)
    buffer.valid = True
    return buffer


CALLS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "rt.buffer.Buffer.get": (("enc_pos",), {}),
    "rt.buffer.Buffer.set": (("enc_pos", 1.0), {}),
    "rt.buffer.Buffer.write": (("enc_pos", 1.0), {}),
    "rt.buffer.Buffer.transaction": ((), {}),
    "rt.buffer.DeviceBuffer.emit_dev_data": ((), {}),
    "rt.buffer.DeviceBuffer.emit_dev_rw": ((), {}),
    "rt.buffer.DeviceBuffer.emit_subscription": ((), {}),
    "rt.buffer.DeviceBuffer.get_read": ((), {}),
    "rt.buffer.DeviceBuffer.get_update": ((), {}),
    "rt.buffer.DeviceBuffer.get_write": ((), {}),
    "rt.buffer.DeviceBuffer.make_sub_res": ((), {}),
    "rt.buffer.DeviceBuffer.update": (("message",), {}),
    "rt.buffer.BufferStore.get_or_open": ((MOTOR,), {"create": False}),
    "rt.buffer.Parameter.clamp": ((1.0,), {}),
    "rt.smartdevice.SmartDeviceClient.discover": (("buffers",), {"interval": 1}),
    "rt.smartdevice.SmartDeviceClient.read": ((), {"params": ["enc_pos"]}),
    "rt.smartdevice.SmartDeviceClient.subscribe": ((), {"params": ["enc_pos"], "interval": 0.04}),
    "rt.smartdevice.manager.SmartDeviceManager.disable": ((), {"uids": None}),
    "rt.smartdevice.manager.SmartDeviceManager.ping": ((), {"uids": [str(MOTOR)]}),
    "rt.smartdevice.manager.SmartDeviceManager.read": ((str(MOTOR),), {"params": None}),
    "rt.smartdevice.manager.SmartDeviceManager.heartbeat": (
        (str(MOTOR),),
        {"heartbeat_id": None, "timeout": 1, "block": True},
    ),
    "rt.smartdevice.manager.SmartDeviceManager.open_virtual_devices": (
        ("tcp://127.0.0.1:6004",),
        {},
    ),
}


@pytest.mark.parametrize(("path", "arguments"), CALLS.items(), ids=CALLS)
def test_call_has_the_same_arguments(
    path: str, arguments: tuple[tuple[Any, ...], dict[str, Any]]
) -> None:
    args, kwargs = arguments
    inspect.signature(find(path)).bind("self", *args, **kwargs)


def test_errors_have_a_message_and_a_context() -> None:
    for error_type in (DeviceBufferError, DeviceError):
        error = error_type("motor disconnected", uid="1")
        assert isinstance(error, RuntimeBaseException)
        assert (str(error), error.context) == ("motor disconnected", {"uid": "1"})


def test_parameter_has_defaults() -> None:
    param = Parameter("param", ctypes.c_double, 0)
    assert tuple(param) == (
        "param",
        ctypes.c_double,
        0,
        -float("inf"),
        float("inf"),
        True,
        False,
        True,
    )
    assert param.platform_type is ctypes.c_float
    assert Parameter("param", ctypes.c_double * 2, 0).platform_type is ctypes.c_float * 2


def test_unknown_parameters_and_forbidden_access_are_errors(motor: DeviceBuffer) -> None:
    for wrong in (
        lambda: motor.get("absent"),
        lambda: motor.get("pid_pos_kp"),
        lambda: motor.set("absent", 1.0),
        lambda: motor.write("absent", 1.0),
        lambda: motor.write("enc_vel", 1.0),
    ):
        with pytest.raises(DeviceBufferError):
            wrong()
    for method in (motor.set, motor.write):
        with pytest.raises(TypeError):
            method("duty_cycle", "fast")


def test_transactions_are_reentrant(motor: DeviceBuffer) -> None:
    with motor.transaction(), motor.transaction():
        motor.set("enc_pos", 1.0)
        assert motor.get("enc_pos") == 1.0


def test_pending_data_is_returned_once(motor: DeviceBuffer) -> None:
    motor.read(["enc_pos"])
    motor.write("duty_cycle", 0.5)
    assert list(motor.emit_dev_rw()) == [DevRead(1 << 10), DevWrite(1, bytes.fromhex("0000003f"))]
    assert list(motor.emit_dev_rw()) == []
    motor.read(["enc_pos"])
    assert [list(motor.get_read()), list(motor.get_read())] == [["enc_pos"], []]
    motor.write("duty_cycle", 0.5)
    assert [motor.get_write(), motor.get_write()] == [{"duty_cycle": 0.5}, {}]
    for take in (motor.emit_dev_data, motor.get_update):
        motor.update(DevData(1, bytes(4)))
        assert take()
        assert not take()


def test_subscription_can_be_emitted_repeatedly(motor: DeviceBuffer) -> None:
    motor.update(SubRes(1 << 10, 40, MOTOR))
    for _ in range(2):
        assert list(motor.emit_subscription()) == [DevData(1 << 10, bytes(4))]
    assert motor.make_sub_res() == SubRes(1 << 10, 40, MOTOR)
    assert motor.make_sub_req(motor.subscription, motor.interval) == SubReq(1 << 10, 40)


def test_timestamps_are_wall_clock_times(motor: DeviceBuffer) -> None:
    before = time.time()
    motor.update(DevData(1, bytes(4)))
    motor.write("duty_cycle", 1.0)
    motor.emit_dev_rw()
    assert before <= motor.last_update <= motor.last_write <= time.time()


def test_store_is_a_mapping_of_open_buffers(store: BufferStore) -> None:
    assert isinstance(store, Mapping)
    assert len(store) == 0
    with pytest.raises(DeviceBufferError):
        store.get_or_open(MOTOR, create=False)
    for key in (99 << 72, ("toaster", 0)):
        with pytest.raises(KeyError):
            store.get_or_open(key)
    with pytest.raises(KeyError):
        store[MOTOR]
    buffer = store.get_or_open(MOTOR)
    assert (
        store[MOTOR]
        is store["polar-bear", MOTOR]
        is store.get_or_open(MOTOR, create=False)
        is buffer
    )
    assert list(store) == [("polar-bear", MOTOR)]
    assert MOTOR in store
    assert 5 not in store


def test_memory_of_a_buffer_persists_until_it_is_unlinked(prefix: str) -> None:
    lamp = Buffer.make_type("lamp", [Parameter("lit", ctypes.c_bool, 0)])
    name = f"{prefix}lamp"
    with pytest.raises(DeviceBufferError), lamp.open(name, create=False):
        pass
    with lamp.open(name) as one, lamp.open(name, create=False) as two:
        one.valid = True
        one.set("lit", True)
        assert two.get("lit") is True
    with lamp.open(name, create=False) as again:
        assert again.get("lit") is True
    lamp.unlink(name)
    lamp.unlink(name)
    with pytest.raises(DeviceBufferError), lamp.open(name, create=False):
        pass


def test_null_device_replaces_any_device() -> None:
    null_device = NullDevice.private()
    assert isinstance(null_device, DeviceBuffer)
    assert not null_device.params
    for emit in (null_device.emit_dev_rw, null_device.emit_dev_data, null_device.emit_subscription):
        assert not list(emit())
    with pytest.raises(DeviceBufferError):
        null_device.get("anything")
