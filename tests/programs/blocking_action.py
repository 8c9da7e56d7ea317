"""An action that blocks the event loop for longer than the lease."""

import time


async def block():
    await Actions.sleep(0.5)
    time.sleep(1.0)


def teleop_setup():
    Actions.run(block)


def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
