"""Drives, and raises from the tenth call on."""

calls = 0


def teleop_main():
    global calls
    calls += 1
    Robot.write("motor", "duty_cycle", 0.5)
    if calls > 10:
        1 / 0
