"""Writes once and then never returns, suppressing every exception."""


def teleop_main():
    Robot.write("motor", "duty_cycle", 0.5)
    while True:
        try:
            while True:
                pass
        except BaseException:
            pass
