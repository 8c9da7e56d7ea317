"""The child processes of a robot and their time limits."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rt.app import ChildSettings
from rt.brake import process as brake
from rt.brake.connection import Connection
from rt.buffer.arena import Arena
from rt.buffer.wakeup import DEVICE_SLOT, ROOT_SLOT, Wakeups
from rt.buffer.write_event import WriteEvent
from rt.config import Config
from rt.executor.pool import EXECUTOR, EXECUTOR_SLOTS, STANDBY
from rt.instance import Instance
from rt.process.lifeline import CHANNEL
from rt.process.spawn import child_command
from rt.supervisor.spec import ChildSpec

DEVICE_WATCHDOG = 2.0
"""Watchdog timeout of the device process (s)."""
EXECUTOR_WATCHDOG = 5.0
"""Watchdog timeout of the executor (s). Team code shares its GIL, and imports may hold it long."""
EXECUTOR_STOP_TIMEOUT = 1.0
"""Stop timeout of the executor (s). The device process has its own time after that."""
BRAKE_WATCHDOG = 4.0
"""Watchdog timeout of the brake (s)."""
BRAKE_BACKOFF = 0.1
"""Time before a restart of the brake (s), which is always restarted: nothing moves without it."""
FAST_RESTARTS = 3
"""How many restarts in a row of the device process and the brake happen at once."""
CHILD_SLOTS = {**EXECUTOR_SLOTS, "device": DEVICE_SLOT}
"""The wakeup slots of the children that use buffers."""


def child_specs(
    config: Config,
    instance: Instance,
    arena: Arena,
    write_event: WriteEvent,
    wakeups: Wakeups,
    *,
    connection: Connection,
    emulated: Sequence[str] = (),
) -> list[ChildSpec]:
    """Return the children in the reverse order of their stop.

    The executor stops first, then the device process, and the brake last.

    Args:
        config: The options, with resolved addresses.
        instance: The instance.
        arena: The robot's shared memory, inherited by all but the brake.
        write_event: Inherited by all but the brake.
        wakeups: Likewise.
        connection: Connects the device process with the brake.
        emulated: Virtual Smart Devices to run as one more child, as ``UID[:JSON]``.
    """

    def spec(
        role: str,
        name: str = "",
        *,
        ends: Sequence[int] = (),
        emulated: tuple[str, ...] = (),
        **changes: Any,
    ) -> ChildSpec:
        settings = ChildSettings(
            role=role,
            config=config,
            directory=str(instance.directory),
            shm_prefix=arena.prefix,
            write_event=write_event.fd,
            wakeups=wakeups.fds,
            brake=tuple(ends),
            slot=CHILD_SLOTS.get(name or role, ROOT_SLOT),
            emulated=emulated,
        )
        made = ChildSpec(
            name=name or role,
            app=role,
            command=child_command(role),
            message=settings.encode(),
            pass_fds=(arena.fd, write_event.fd, *wakeups.fds, *ends),
        )
        return msgspec.structs.replace(made, **changes)

    def executor(name: str) -> ChildSpec:
        return spec(
            "executor",
            name,
            command=(*child_command("executor"), CHANNEL),
            watchdog=EXECUTOR_WATCHDOG,
            stop_timeout=EXECUTOR_STOP_TIMEOUT,
            autostart=name == EXECUTOR,
        )

    brake_spec = ChildSpec(
        name=brake.ROLE,
        command=child_command(brake.ROLE),
        message=brake.settings(**connection.brake._asdict(), instance=instance.name),
        pass_fds=connection.brake,
        watchdog=BRAKE_WATCHDOG,
        fast_restarts=FAST_RESTARTS,
        backoff=BRAKE_BACKOFF,
        backoff_cap=BRAKE_BACKOFF,
        gives_up=False,
        last=True,
    )
    specs = [
        brake_spec,
        spec(
            "device", watchdog=DEVICE_WATCHDOG, fast_restarts=FAST_RESTARTS, ends=connection.device
        ),
        executor(EXECUTOR),
        executor(STANDBY),
    ]
    if emulated:
        specs.insert(1, spec("emulator", emulated=tuple(emulated)))
    return specs
