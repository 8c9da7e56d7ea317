"""Checks of the serial ports of Smart Devices.

Invariant: no port is opened, because opening a port resets the board.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from rt.doctor.registry import Environment, Result, check, fail, ok, warn
from rt.serialports.filter import PortFilter
from rt.serialports.open_error import Holder, access_remedy, held_remedy, holders


@check("serial")
def serial(environment: Environment) -> Result:
    """The serial ports of Smart Devices exist, are accessible, and are held by rt only."""
    config = environment.config
    ports = PortFilter(config.dev_ports, config.dev_usb_ids, config.dev_ports_denied)
    found = ports.find()
    names = sorted(seen.name for seen in found.values())
    ignored = "".join(
        f"; {port} is ignored: {reason}" for port, reason in ports.ignored_ports(found)
    )
    if not names:
        return warn(
            f"no serial port matches {_listed(config.dev_ports)} or belongs to a USB device"
            f" {_listed(config.dev_usb_ids)}{ignored}",
            "plug in a Smart Device, or add its port to dev_ports or dev_usb_ids;"
            " virtual devices need no port",
        )
    closed = [name for name in names if not os.access(name, os.R_OK | os.W_OK)]
    if closed:
        return fail(f"no permission to use {', '.join(closed)}{ignored}", access_remedy(closed[0]))
    held = {name: holder for name in names if (holder := _holder(name)) is not None}
    others = {name: holder for name, holder in held.items() if not _is_robot(holder)}
    listed = ", ".join(f"{name}{_held(held.get(name))}" for name in names)
    fact = f"{len(names)} accessible: {listed}{ignored}"
    if others:
        name, holder = next(iter(others.items()))
        return warn(fact, f"{name}: {held_remedy(name, holder)}")
    return ok(fact)


def _holder(port: str) -> Holder | None:
    return next((holder for holder in holders(port) if holder is not None), None)


def _is_robot(holder: Holder) -> bool:
    """Whether the holder is the device process of a robot."""
    try:
        return b"\0_child\0device\0" in Path(f"/proc/{holder.pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return False


def _held(holder: Holder | None) -> str:
    return "" if holder is None else f" (held by {holder})"


def _listed(values: Iterable[str]) -> str:
    return " or ".join(values) or "(nothing)"
