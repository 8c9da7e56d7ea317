"""The life cycle of a robot: checks, the lock of the instance, the log, and the root.

`rt run` and `rt demo` call `start` with different children and tasks.
"""

import contextlib
import faulthandler
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import trio

from rt import catalog, log, priority, process_limits
from rt.access.key_directory import key_directory, reject_secret, require_network_keys
from rt.app import Application
from rt.brake.connection import Connection
from rt.brake.heartbeat import map_orders
from rt.buffer import LeaseTable
from rt.buffer.arena import Arena
from rt.buffer.lease import ORDERS_SIZE
from rt.buffer.wakeup import ROOT_SLOT, Wakeups
from rt.buffer.write_event import WriteEvent
from rt.config import Config
from rt.diagnostics.clock_changes import watch_clock
from rt.errors import InstanceBusyError, leaves
from rt.instance import Instance, running
from rt.logs import place
from rt.logs.file_writer import LogFileWriter
from rt.process import orphans, signals
from rt.process.exit_status import FailureLog
from rt.root.root import RobotTask, Root

PORTS = 5
"""How many ports a robot uses, from the option `port_base` on."""


async def run_robot(
    config: Config,
    instance: Instance,
    *,
    emulated: Sequence[str] = (),
    robot_task: RobotTask | None = None,
    name: str = "rt run",
    early: Sequence[int] = (),
    notices: Sequence[str] = (),
) -> int:
    """Run a robot until a signal, an emergency stop, or the end of ``robot_task``.

    Args:
        config: The options, with resolved addresses.
        instance: The instance, which is already locked.
        emulated: Virtual Smart Devices to run as one more child, as ``UID[:JSON]``.
        robot_task: Runs when all children are ready; the robot stops when it returns.
        name: The name of the robot in the log.
        early: Stop signals that arrived before.
        notices: Warnings about the last robot and the machine, which are logged first.

    Returns:
        The exit code: 0 for an orderly stop, 255 for an emergency stop.

    Raises:
        InstanceBusyError: One of its addresses is in use.
    """
    failure_log = FailureLog("robot failed")
    with failure_log:
        async with contextlib.AsyncExitStack() as stack:
            # Opened first and closed last, because everything else may log.
            logs = await stack.enter_async_context(Application("log", config, signals=False))
            authenticator = await logs.make_authenticator()
            await logs.make_log_forwarder()
            if (log_file := LogFileWriter.of(config)) is not None:
                await logs.nursery.start(log_file.run)
                place.link_log(instance.directory, log_file.path)
            # Not before, so that the log file has them too.
            for notice in notices:
                log.get_logger().warning(notice)
            logs.nursery.start_soon(watch_clock)
            write_event = WriteEvent()
            stack.callback(write_event.close)
            wakeups = Wakeups(slot=ROOT_SLOT)
            stack.callback(wakeups.close)
            brake = Connection()
            stack.callback(brake.close)
            arena = stack.enter_context(Arena(instance.name))
            leases = stack.enter_context(
                LeaseTable.open(arena.prefix, orders=map_orders(brake.device.memory, ORDERS_SIZE))
            )
            root = Root(
                config,
                instance,
                write_event,
                wakeups,
                leases,
                arena=arena,
                brake=brake,
                authenticator=authenticator,
                emulated=emulated,
                early=early,
                log_file=None if log_file is None else log_file.path,
            )
            with failure_log, orphans.subreaper():
                await root.run(robot_task, name)
    return root.exit_code


def reject_key_files(config: Config) -> None:
    """Check that no option names a key file.

    Raises:
        ConfigError: An option does.
    """
    directory = key_directory(config.keys_dir, config.instance).directory
    for option in ("dev_catalog", "exec_module", "log_file"):
        value = getattr(config, option)
        if value and value != place.AUTO:
            reject_secret(option, Path(value), directory)


def stdout_format(config: Config) -> str:
    """Return the log format on stdout: the option, or pretty on a terminal and JSON elsewhere."""
    if config.log_format != "auto":
        return config.log_format
    return "pretty" if sys.stdout.isatty() else "json"


def start(
    config: Config,
    *,
    emulated: Sequence[str] = (),
    robot_task: RobotTask | None = None,
    name: str = "rt run",
    quiet: bool = False,
    level: str | None = None,
) -> int:
    """Lock the instance and run a robot; return the exit code.

    Args:
        config: The options, with unresolved addresses.
        emulated: See `run_robot`.
        robot_task: See `run_robot`.
        name: See `run_robot`.
        quiet: Whether stdout is used for something else; then warnings are logged to stderr.
        level: The lowest level that is logged; by default that of the options, or warning if
            ``quiet``.

    Raises:
        CatalogError: The catalog is invalid.
        ConfigError: The robot would be open to the network without keys.
        InstanceBusyError: The instance or an address is in use.
    """
    # For the traceback in the journal after SIGABRT of systemd's watchdog, or a SIGSEGV.
    faulthandler.enable()
    process_limits.raise_limits()
    instance = Instance.locate(config.instance)
    resolved = config.resolved(instance.directory)
    level = level or ("warning" if quiet else resolved.log_level)
    log.configure(
        level=level,
        fmt=stdout_format(resolved),
        stream=sys.stderr if quiet else sys.stdout,
        listener_level=resolved.log_level,
        app="root",
        pid=os.getpid(),
        instance=instance.name,
    )
    reject_key_files(resolved)
    catalog.load(Path(resolved.dev_catalog) if resolved.dev_catalog else None)
    require_network_keys(resolved)
    with (
        signals.capture_early_signals(*signals.stop_signals()) as early,
        instance.acquire() as warnings,
    ):
        hint = key_directory(resolved.keys_dir, resolved.instance).hint
        priority.set_high()
        with _suggest_free_ports(resolved):
            return trio.run(
                lambda: run_robot(
                    resolved,
                    instance,
                    emulated=emulated,
                    robot_task=robot_task,
                    name=name,
                    early=early,
                    notices=[*warnings, *filter(None, [hint])],
                )
            )


@contextlib.contextmanager
def _suggest_free_ports(config: Config) -> Iterator[None]:
    """Add the other robots of this user and free ports to an error about an address in use."""
    try:
        yield
    except Exception as error:
        busy = [
            each
            for each in leaves(error)
            if isinstance(each, InstanceBusyError) and "address" in each.context
        ]
        others = [name for name in running() if name != config.instance]
        base = free_ports(config.port_base + 10, 10) if busy and others else None
        if base is None:
            raise
        address = busy[0].context["address"]
        raise InstanceBusyError(
            f"{address} is in use, and another robot is running:"
            f" {', '.join(map(repr, others))}; start this one with --port-base {base}",
            address=address,
        ) from error


def free_ports(first: int, step: int = PORTS) -> int | None:
    """Return the first port base from ``first`` on, in steps, whose ports are free, or None."""
    for base in range(first, min(first + 1000, 65_500), step):
        if are_free(base):
            return base
    return None


def are_free(base: int) -> bool:
    """Return whether the ports of a robot with a port base are free; occupies them for a moment."""
    with contextlib.ExitStack() as stack:
        try:
            for port in range(base, base + PORTS):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probe = stack.enter_context(socket.socket(type=kind))
                    if kind is socket.SOCK_STREAM:  # connections that were closed do not count
                        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
