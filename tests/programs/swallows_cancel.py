"""An action that suppresses every exception."""


async def stubborn():
    while True:
        try:
            await Actions.sleep(0.1)
        except BaseException:
            pass


def teleop_setup():
    Actions.run(stubborn)


def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
