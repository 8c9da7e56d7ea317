"""A robot from start to end: its instance is held, its log opened, and its root run between the two.

`rt run` and `rt demo` are this and nothing else; what differs between them is which children there are and what runs beside.
"""

import contextlib
import faulthandler
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from rt import catalog, limits, log, priority
from rt.app import Application
from rt.brake.connection import Connection
from rt.brake.heartbeat import map_orders
from rt.buffer import Bells, Doorbell, LeaseTable
from rt.buffer.arena import Arena
from rt.buffer.bells import ROOT_SEAT
from rt.buffer.lease import ORDERS_SIZE
from rt.cli.log_keeper import LogKeeper
from rt.cli.root import Beside, Robot, Root
from rt.config import Config, opened, require_keys
from rt.diagnostics import watch_clock
from rt.errors import ConfigError, InstanceBusyError, leaves
from rt.instance import Instance, log_place, running
from rt.keys import Keyring, key_place
from rt.keys.place import refuse_secret
from rt.supervisor import orphans, signals
from rt.supervisor.ending import Told

PORTS = 5
"""How many ports from the option port_base on a robot has."""


async def run_robot(
    config: Config,
    instance: Instance,
    *,
    emulated: Sequence[str] = (),
    beside: Beside | None = None,
    name: str = "rt run",
    early: Sequence[int] = (),
    notices: Sequence[str] = (),
) -> int:
    """Run a robot until a signal, an emergency stop, or the end of ``beside``.

    Args:
        config: The options, with addresses resolved.
        instance: The instance, which is held already.
        emulated: Virtual Smart Devices to run as one more child, as ``UID[:JSON]``.
        beside: Runs when all children are ready; the robot stops when it returns.
        name: What this robot is called in the log.
        early: Signals that came before this.
        notices: What there is to say about the last robot and the machine, for the log and its file.

    Returns:
        The exit code: 0 for an orderly stop, 255 for an emergency stop.

    Raises:
        InstanceBusyError: Another program holds one of its addresses.
    """
    told = Told("the robot failed")
    with told:
        async with contextlib.AsyncExitStack() as stack:
            # First to come and last to go: everything else may have something to say.
            logs = await stack.enter_async_context(Application("log", config, signals=False))
            gate = await logs.make_gate()
            await logs.make_log_forwarder()
            if (keeper := LogKeeper.of(config)) is not None:
                await logs.nursery.start(keeper.run)
                log_place.mark(instance.directory, keeper.path)
            for sentence in notices:
                log.get_logger().warning(sentence)
            logs.nursery.start_soon(watch_clock)
            doorbell = Doorbell()
            stack.callback(doorbell.close)
            bells = Bells(seat=ROOT_SEAT)
            stack.callback(bells.close)
            brake = Connection()
            stack.callback(brake.close)
            arena = stack.enter_context(Arena(instance.name))
            leases = stack.enter_context(
                LeaseTable.open(arena.prefix, orders=map_orders(brake.device.memory, ORDERS_SIZE))
            )
            root = Root(
                config,
                instance,
                doorbell,
                bells,
                leases,
                arena=arena,
                brake=brake,
                gate=gate,
                emulated=emulated,
                early=early,
                log_file=None if keeper is None else keeper.path,
            )
            with told, orphans.adopted():
                await root.run(beside, name)
    return root.exit_code


def refuse_strangers(config: Config) -> None:
    """Refuse to start a robot that anybody on the network could drive, unless it is meant to be.

    Raises:
        ConfigError: It is open to the network without keys; says what to do.
    """
    if not config.insecure and opened(config):
        keyring = Keyring(key_place(config.keys_dir, config.instance).directory)
        keyring.refresh()
        if keyring.problems and not keyring.stations:
            raise ConfigError(keyring.problems[0])
        require_keys(config, keyring.stations)


def refuse_key_files(config: Config) -> None:
    """Refuse options that name a file of keys.

    Raises:
        ConfigError: One does.
    """
    directory = key_place(config.keys_dir, config.instance).directory
    for option in ("dev_catalog", "exec_module", "log_file"):
        value = getattr(config, option)
        if value and value != log_place.AUTO:
            refuse_secret(option, Path(value), directory)


def stdout_format(config: Config) -> str:
    """The log format on stdout: what the option says, or pretty on a terminal and JSON elsewhere."""
    if config.log_format != "auto":
        return config.log_format
    return "pretty" if sys.stdout.isatty() else "json"


def start(
    config: Config,
    *,
    emulated: Sequence[str] = (),
    beside: Beside | None = None,
    name: str = "rt run",
    quiet: bool = False,
    level: str | None = None,
) -> int:
    """Hold the instance and run a robot; the exit code.

    Args:
        config: The options, addresses not yet resolved.
        emulated: See `run_robot`.
        beside: See `run_robot`.
        name: See `run_robot`.
        quiet: Whether stdout is for something else: the log then goes to stderr, from warnings on.
        level: The least severity in the log whatever ``quiet`` says; by default that of the options, or warning if quiet.

    Raises:
        CatalogError: The catalog is wrong.
        ConfigError: The robot would be open to strangers.
        InstanceBusyError: The instance or an address is held by another.
    """
    # What systemd's watchdog ends with SIGABRT, or a library with SIGSEGV: where it was is then in the journal.
    faulthandler.enable()
    limits.provide()
    instance = Instance.locate(config.instance)
    resolved = config.resolved(instance.directory)
    level = level or ("warning" if quiet else resolved.log_level)
    log.configure(
        level=level,
        fmt=stdout_format(resolved),
        stream=sys.stderr if quiet else sys.stdout,
        tap_level=resolved.log_level,
        app="root",
        pid=os.getpid(),
        instance=instance.name,
    )
    refuse_key_files(resolved)
    catalog.load(Path(resolved.dev_catalog) if resolved.dev_catalog else None)
    refuse_strangers(resolved)
    with signals.kept(*signals.stopping()) as early, instance.acquire() as swept:
        notices = [*swept, *filter(None, [key_place(resolved.keys_dir, resolved.instance).hint])]
        priority.run_first()
        with _rival_named(resolved):
            return trio.run(
                lambda: run_robot(
                    resolved, instance, emulated=emulated, beside=beside, name=name, early=early, notices=notices
                )
            )


@contextlib.contextmanager
def _rival_named(config: Config) -> Iterator[None]:
    """Say of an address that is in use, if another robot of this user runs, that it may be that one, and which ports are free."""
    try:
        yield
    except Exception as error:
        busy = [each for each in leaves(error) if isinstance(each, InstanceBusyError) and "address" in each.context]
        others = [name for name in running() if name != config.instance]
        base = free_ports(config.port_base) if busy and others else None
        if base is None:
            raise
        address = busy[0].context["address"]
        raise InstanceBusyError(
            f"{address} is in use, and another robot runs here as {' and '.join(map(repr, others))}: each robot needs ports of its"
            f" own, start this one with --port-base {base}",
            address=address,
        ) from error


def free_ports(taken: int) -> int | None:
    """The next port base, in steps of 10, whose ports can be bound now, or None."""
    for base in range(taken + 10, min(taken + 1000, 65_500), 10):
        with contextlib.ExitStack() as stack:
            try:
                for offset in range(PORTS):
                    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                        stack.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", base + offset))
            except OSError:
                continue
            return base
    return None


__all__ = ["Beside", "Robot", "refuse_strangers", "run_robot", "start"]
