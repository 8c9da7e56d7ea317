"""The driver of an emulated robot: sends the states of gamepads like a driver's station."""

from collections.abc import Callable, Mapping

import trio

from rt.catalog import Peripheral
from rt.protocol.datagrams import NEUTRAL, GamepadState, encode_gamepads
from rt.remote import DatagramNode
from rt.testing.log import RobotLog

WAITING = "waiting for the sticks to be at rest"
"""The event of a robot that waits for its driver to release the sticks."""

INTERVAL = 0.02
"""The time between two datagrams (s)."""

_REST = 0.1


def state_of(gamepad: Peripheral, values: Mapping[str, float | bool]) -> GamepadState:
    """Return the state of a gamepad; a stick that is not given is at rest, a button released.

    Args:
        gamepad: The gamepad of the catalog.
        values: By the names that `Gamepad.get` has in team code.

    Raises:
        DeviceError: There is no such stick or button.
    """
    for name in values:
        gamepad.param(name)
    buttons = [each.name for each in gamepad.params if not each.is_real]
    btn = sum(1 << bit for bit, name in enumerate(buttons) if values.get(name))
    sticks = [float(values.get(each.name, 0.0)) for each in gamepad.params if each.is_real]
    lx, ly, rx, ry = sticks
    return GamepadState(lx, ly, rx, ry, btn)


async def drive(log: RobotLog, port: int, states: Callable[[], Mapping[int, GamepadState]]) -> None:
    """Send the states of gamepads every 20 ms until cancelled.

    Like a driver, it releases the sticks for 0.1 s at first, and whenever the robot waits for that.

    Args:
        log: The log of the robot.
        port: The port of its control address, on this machine.
        states: Returns the states by index, before each datagram; none is sent if it is empty.
    """
    read, rest_until = 0, 0.0
    async with DatagramNode("127.0.0.1", port, bind=False) as node:
        while True:
            current = states()
            if current:
                if any(WAITING in entry["event"] for entry in log.log[read:]) or not rest_until:
                    rest_until = trio.current_time() + _REST
                read = len(log.log)
                if trio.current_time() < rest_until:
                    current = dict.fromkeys(current, NEUTRAL)
                await node.send(b"", encode_gamepads(current))
            await trio.sleep(INTERVAL)
