"""`rt write` drives under a lease, and ends when that has lapsed."""

import contextlib

import pytest
import trio
from support.device_robot import CATALOG, PATIENCE, make_board, open_robot

from rt.buffer import BufferStore
from rt.cli.write import _Driver
from rt.client.device import Device
from rt.errors import DeviceError
from rt.protocol.message import DevDisable, DevWrite, SubReq

SLOT = 8


async def test_a_command_that_was_kept_from_running_says_that_the_device_was_disabled(
    prefix: str,
) -> None:
    async with open_robot(prefix) as robot:
        board = make_board("polar-bear")
        await robot.plug(board)
        await board.receives(SubReq)
        with BufferStore(CATALOG, prefix, write_event=robot.write_event, slot=SLOT) as store:
            buffer = store.get_or_open(board.device.uid, create=False)
            lease = robot.leases.lease(SLOT)
            driver = _Driver(Device(board.device.uid, "left", buffer), lease, robot.write_event)

            async def watch() -> None:
                await board.receives(DevWrite)
                board.received.clear()
                lease.release()  # as the device process does with a lease that has fallen silent
                robot.write_event.signal()
                await trio.sleep_forever()

            with pytest.raises(ExceptionGroup) as caught:
                await driver.drive({"duty_cycle": 0.5}, watch)
        (error,) = caught.value.exceptions
        assert isinstance(error, DeviceError)
        assert error.message.startswith("left was disabled: this command did not run for 0.1 s")
        await board.receives(DevDisable)
        assert board.device.values["duty_cycle"] == 0


async def test_a_device_that_was_disabled_before_the_command_ended_counts_as_disabled(
    prefix: str,
) -> None:
    async with open_robot(prefix) as robot:
        board = make_board("polar-bear")
        await robot.plug(board)
        await board.receives(SubReq)
        with BufferStore(CATALOG, prefix, write_event=robot.write_event, slot=SLOT) as store:
            buffer = store.get_or_open(board.device.uid, create=False)
            lease = robot.leases.lease(SLOT)
            driver = _Driver(Device(board.device.uid, "left", buffer), lease, robot.write_event)

            async def watch() -> None:
                await board.receives(DevWrite)
                before = buffer.counters.disables
                board.received.clear()
                lease.release()
                robot.write_event.signal()
                await board.receives(DevDisable)
                with trio.fail_after(PATIENCE):
                    while buffer.counters.disables == before:  # noqa: ASYNC110 - counters ring no bell
                        await trio.sleep(0.001)

            with contextlib.suppress(
                ExceptionGroup
            ):  # a busy machine sees first that the lease has ended
                await driver.drive({"duty_cycle": 0.5}, watch)
        assert driver.disabled
