"""The `rt emulate-dev` command: emulated Smart Devices over TCP or on pseudo-terminals."""

import contextlib
import functools
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click
import msgspec
import trio

from rt import log
from rt.client import completers
from rt.client.option_flags import catalog_and_names, click_options
from rt.config import Config, Loaded
from rt.errors import DeviceError, InstanceAbsentError, RemoteCallError
from rt.instance import Instance, running
from rt.ownership import planted_by, user
from rt.process.signals import run_until_signal
from rt.terminal.number import Number

if TYPE_CHECKING:
    from rt.emulator.faults import Faults
    from rt.emulator.lines import EmulatedDevice

_SEED_BITS = 32
_ASK_TIMEOUT = 5.0
"""Time limit for asking a robot, which may just be starting, where virtual devices connect (s)."""

HELP = """\
Emulate Smart Devices, over TCP or on serial ports, until Ctrl-C.

UID is a number, a name in dev_name, or NAME, NAME@N or NAME@A..B for devices of the catalog. JSON
holds the initial values; a sensor with an initial value keeps it.

\b
rt emulate-dev left_motor polar-bear@1..64 'limit-switch:{"switch0": true}'

The devices connect to the robot that runs as --instance. --port-base or --dev-vsd-addr select
another address.

With --pty each port is printed on stdout as a line PATH NAME UID. A robot opens the ports that
dev_ports matches:

\b
rt emulate-dev --wave --pty-dir /tmp/ports potentiometer@1..8
rt run --dev-ports '/tmp/ports/*'

--fault simulates bad cables and boards. The same seed repeats the same faults. KIND is one of:

\b
drop        lose this fraction of the frames in both directions [0.1]
corrupt     change, insert or remove bytes in this fraction of the frames in both directions [0.1]
delay       delay each frame by up to this time (s) in both directions [0.1]
disconnect  disconnect the device at about this interval (s) and connect it again [2]
freeze      stop receiving and sending for 3 s at about this interval (s) [5]
"""


@click.command(help=HELP)
@click.argument(
    "devices",
    nargs=-1,
    required=True,
    metavar="UID[:JSON]...",
    shell_complete=completers.device_types,
)
@click.option("--wave", is_flag=True, help="Move every sensor without an initial value.")
@click.option(
    "--fault",
    "fault_texts",
    multiple=True,
    metavar="KIND[=VALUE]",
    help="Inject a fault (repeatable).",
)
@click.option(
    "--seed", type=Number(0, whole=True), metavar="N", help="Seed of the random faults. [random]"
)
@click.option(
    "--pty", "on_pty", is_flag=True, help="Use serial ports (pseudo-terminals) instead of TCP."
)
@click.option(
    "--pty-dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Create links to the ports in DIR, named after the devices. Implies --pty.",
)
@click_options("instance", "port_base", "dev_vsd_addr", "dev_catalog", "dev_name", "log_level")
def command(
    *,
    loaded: Loaded,
    devices: tuple[str, ...],
    wave: bool,
    fault_texts: tuple[str, ...],
    seed: int | None,
    on_pty: bool,
    folder: Path | None,
) -> None:
    """Emulate Smart Devices, over TCP or on serial ports, until Ctrl-C."""
    from rt.emulator.faults import Faults, parse_faults

    config = loaded.config.resolved(Instance.locate(loaded.config.instance).directory)
    on_serial_ports = on_pty or folder is not None
    address = (
        config.dev_vsd_addr
        if on_serial_ports or _is_given(loaded)
        else _robot_address(loaded.config)
    )
    log.configure(level=config.log_level, fmt="pretty", app="emulate-dev")
    emulated = _devices(devices, config, wave=wave)
    faults = parse_faults(fault_texts)
    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    if faults:
        count = f"{len(emulated)} device{'' if len(emulated) == 1 else 's'}"
        shown = " ".join(f"--fault {fault}" for fault in faults)
        click.echo(f"{count} with {shown} --seed {seed}", err=True)
    lines = [(each, Faults(faults, seed, each.uid) if faults else None) for each in emulated]
    names = {int(uid): name for name, uid in config.dev_name.items()}
    paths = _paths(folder, emulated, names) if on_serial_ports else None
    # A signal cancels the run, so the links to the ports are removed.
    trio.run(run_until_signal, functools.partial(_emulate, lines, address, paths))


def _is_given(loaded: Loaded) -> bool:
    """Return whether a flag or a variable gives the address. rt.toml may be of another robot."""
    origins = (loaded.origins[name] for name in ("port_base", "dev_vsd_addr"))
    return any(origin.startswith(("--", "RT_")) for origin in origins)


def _robot_address(config: Config) -> str:
    """Return where virtual devices connect to the robot, or the configured address if none runs.

    Raises:
        DeviceError: The robot does not answer, or it does not run and another robot uses the
            address.
    """
    instance = Instance.locate(config.instance)
    if instance.holder() is not None:
        address = _ask_address(config)
        if not address:
            raise DeviceError(
                f"robot {config.instance!r} did not report where devices connect;"
                " try again in a moment, or use --port-base",
                instance=config.instance,
            )
        return address
    address = config.resolved(instance.directory).dev_vsd_addr
    for other in running():
        theirs = _ask_address(msgspec.structs.replace(config, instance=other))
        if theirs and urlsplit(theirs).port == urlsplit(address).port:
            raise DeviceError(
                f"no robot runs as {config.instance!r}, and {address} is the address of {other!r};"
                f" use --instance {other}, start {config.instance!r} first, or use --port-base",
                address=address,
            )
    return address


def _ask_address(config: Config) -> str:
    """Return the address that a robot reports, or an empty text if it does not answer."""
    from rt.client import connection

    async def ask(robot: connection.Connection) -> str:
        with contextlib.suppress(RemoteCallError):
            return str(
                await robot.client.issue_call(
                    "get_option", "dev_vsd_addr", address="broker-service", timeout=_ASK_TIMEOUT
                )
            )
        return ""

    with contextlib.suppress(InstanceAbsentError):  # the robot has just ended
        return str(connection.run(config, ask))
    return ""


def _devices(specs: Sequence[str], config: Config, *, wave: bool) -> "list[EmulatedDevice]":
    """Return the devices that the arguments name.

    Raises:
        DeviceError: An argument names no device, or a device is named twice.
    """
    from rt.emulator.lines import EmulatedDevice
    from rt.emulator.simulation import SimState
    from rt.emulator.uid_spec import parse_uid_specs

    known, names = catalog_and_names(config)
    sim_state = SimState()
    emulated: dict[int, EmulatedDevice] = {}
    for spec in specs:
        uids, values = parse_uid_specs(spec, known, names)
        for uid in uids:
            peripheral = known.of_uid(uid)
            if uid in emulated:
                raise DeviceError(
                    f"{spec!r}: {label(peripheral.name, uid)} is given twice;"
                    " each device needs its own UID, such as NAME@N",
                    spec=spec,
                )
            emulated[uid] = EmulatedDevice(peripheral, uid, values, sim_state=sim_state, wave=wave)
    return list(emulated.values())


def label(name: str, uid: int) -> str:
    """Return the label of a device: NAME@N, or NAME-UID if NAME@N cannot express the UID."""
    number = uid & ((1 << 72) - 1)
    return f"{name}@{number}" if number < 1 << 64 else f"{name}-{uid}"


def _paths(
    folder: Path | None, emulated: "Sequence[EmulatedDevice]", names: dict[int, str]
) -> "dict[EmulatedDevice, Path | None]":
    """Return the paths of the links to the ports. Create the folder and remove stale links.

    Raises:
        DeviceError: The folder cannot be created or belongs to another user, or a path is taken.
    """
    if folder is None:
        return dict.fromkeys(emulated)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceError(f"--pty-dir {folder}: {error.strerror}", path=str(folder)) from error
    if (uid := planted_by(folder)) is not None:
        raise DeviceError(
            f"--pty-dir {folder} belongs to {user(uid)}; use another directory", path=str(folder)
        )
    paths: dict[EmulatedDevice, Path | None] = {}
    for device in emulated:
        name = names.get(device.uid, label(device.peripheral.name, device.uid))
        path = folder.absolute() / name.replace("/", "_")
        if path.is_symlink() and not path.exists():
            path.unlink()
        if path.is_symlink() or path.exists() or path in paths.values():
            raise DeviceError(
                f"--pty-dir {folder}: {path.name} already exists;"
                " end the other emulator, or use another directory",
                path=str(path),
            )
        paths[device] = path
    return paths


async def _emulate(
    lines: "Sequence[tuple[EmulatedDevice, Faults | None]]",
    vsd_address: str,
    paths: "dict[EmulatedDevice, Path | None] | None",
) -> None:
    """Emulate devices over TCP, or with ``paths`` on pseudo-terminals, until cancelled.

    Raises:
        DeviceError: No pseudo-terminal is free, or a link cannot be created.
    """
    from rt.emulator.lines import connect_emulated, serve_pty
    from rt.emulator.scheduler import Scheduler

    address = urlsplit(vsd_address)
    host = "127.0.0.1" if address.hostname in {None, "*"} else address.hostname
    scheduler = Scheduler()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        for device, faults in lines:
            if paths is None:
                on_connect = _connection_reporter(device, vsd_address, faults)
                connect = functools.partial(
                    connect_emulated, scheduler=scheduler, faults=faults, on_connect=on_connect
                )
                nursery.start_soon(connect, device, host, address.port or 0)
                continue
            on_port = _port_reporter(device)
            serve = functools.partial(
                serve_pty, scheduler=scheduler, faults=faults, on_port=on_port
            )
            try:
                await nursery.start(serve, device, paths[device])
            except OSError as error:
                name = label(device.peripheral.name, device.uid)
                raise DeviceError(
                    f"cannot create a serial port for {name}: {error.strerror or error}",
                    uid=str(device.uid),
                ) from error
        click.echo("Ctrl-C disconnects the devices", err=paths is not None)


def _port_reporter(device: "EmulatedDevice") -> Callable[[str], None]:
    """Return a callback that prints the path of a device's port whenever it changes."""
    last = ""

    def report(port: str) -> None:
        nonlocal last
        if port != last:
            click.echo(f"{port} {device.peripheral.name} {device.uid}")
        last = port

    return report


def _connection_reporter(
    device: "EmulatedDevice", address: str, faults: "Faults | None"
) -> Callable[[bool], None]:
    """Return a callback that prints each change of a device's connection.

    Disconnections by an injected fault are not printed.
    """
    last: bool | None = None
    is_expected = faults is not None and faults.disconnects

    def report(connected: bool) -> None:
        nonlocal last
        if connected == last or (is_expected and last):
            return
        without = "no longer connected to" if last else "not yet connected: no robot at"
        state = "connected to" if connected else without
        click.echo(f"{device.peripheral.name} {device.uid} {state} {address}")
        last = connected

    return report
