"""Checks of the serial ports that Smart Devices hang on.

A port is never opened here: opening it resets the board.
"""

import getpass
import glob
import grp
import os
from pathlib import Path

from rt.doctor.registry import Result, Scene, check, fail, ok, warn


@check("serial")
def serial(scene: Scene) -> Result:
    """The serial ports are there and may be used."""
    patterns = scene.config.dev_ports
    ports = sorted({port for pattern in patterns for port in glob.glob(pattern)})  # noqa: PTH207 - patterns are absolute
    if not ports:
        return warn(
            f"no serial port matches {', '.join(patterns)}",
            "plug in a Smart Device, or name its port with dev_ports; virtual devices need none",
        )
    closed = [port for port in ports if not os.access(port, os.R_OK | os.W_OK)]
    if closed:
        return fail(f"no permission to use {', '.join(closed)}", _remedy(Path(closed[0])))
    return ok(f"{len(ports)} may be used: {', '.join(ports)}")


def _remedy(port: Path) -> str:
    user = getpass.getuser()
    try:
        group = port.group()
    except KeyError:
        group = "root"
    if group == "root":
        group = "dialout"
    elif user in grp.getgrnam(group).gr_mem:
        return f"user {user} is in the group {group} since the last login: log out and in again"
    return f"run `sudo usermod -a -G {group} {user}`, then log out and in again"
