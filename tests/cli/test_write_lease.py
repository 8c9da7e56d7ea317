"""The lease of `rt write`."""

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


async def test_lapsed_lease_is_reported_as_disabled(prefix: str) -> None:
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
                lease.release()  # like the device process when renewals stop
                robot.write_event.signal()
                await trio.sleep_forever()

            with pytest.raises(ExceptionGroup) as caught:
                await driver.drive({"duty_cycle": 0.5}, watch)
        (error,) = caught.value.exceptions
        assert isinstance(error, DeviceError)
        assert error.message.startswith("left was disabled: this command did not run for 0.1 s")
        await board.receives(DevDisable)
        assert board.device.values["duty_cycle"] == 0


async def test_device_disabled_before_end_counts_as_disabled(prefix: str) -> None:
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
                    while buffer.counters.disables == before:  # noqa: ASYNC110 - no event
                        await trio.sleep(0.001)

            with contextlib.suppress(ExceptionGroup):  # on a slow machine the lease ends first
                await driver.drive({"duty_cycle": 0.5}, watch)
        assert driver.disabled
