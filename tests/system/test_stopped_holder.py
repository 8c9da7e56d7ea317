"""A process stopped with a buffer's lock affects only that device."""

import os
import signal

import pytest
import trio
from support.robot import CATALOG, Device, Robot

from rt.buffer import BufferStore
from rt.protocol.datagrams import GamepadState
from rt.protocol.message import DevWrite

pytestmark = pytest.mark.system


def stop_with_lock_of(robot: Robot, device: Device) -> int:
    """Stop a process that has taken the lock of a device's buffer."""
    pid = os.fork()
    if pid == 0:
        with BufferStore(CATALOG, robot.shm_prefix(), lock_timeout=10.0) as store:
            with store.get_or_open(device.uid, create=False).transaction():
                os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    return pid


async def test_stopped_lock_holder_stalls_no_other_device(robot: Robot) -> None:
    motor, switch = Device("polar-bear"), Device("limit-switch")
    await robot.start()
    for device in (motor, switch):
        await robot.plug_tcp(device)
    await robot.connected(motor, switch)
    robot.nursery.start_soon(robot.drive, GamepadState(lx=0, ly=0.5, rx=0, ry=0, btn=0))
    await robot.call("teleop")
    await motor.written(duty_cycle=0.5)
    pid = stop_with_lock_of(robot, switch)
    try:
        since = len(motor.messages)
        for count in range(3):
            await motor.until(lambda message: isinstance(message, DevWrite), since + count)
        assert set(map(int, await robot.call("list_uids"))) == {motor.uid, switch.uid}
        before = robot.devices()[switch.uid]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
    switch.emulated.values["switch2"] = True
    with trio.fail_after(30):
        while (row := robot.devices()[switch.uid])["values"].get("switch2") is not True:  # noqa: ASYNC110
            await trio.sleep(0.05)
    assert row != before
    starts = [entry["child"] for entry in robot.log if entry["event"] == "child is ready"]
    assert len(starts) == len(set(starts)), "nothing was restarted"
