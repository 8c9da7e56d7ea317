"""The root process of a robot: it supervises the children and decides when the robot stops.

Invariant: the root's tasks and its children stop together; neither continues without the other.
"""

import contextlib
import functools
import gc
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import trio

from rt import log
from rt.access.authenticator import Authenticator
from rt.app import Application
from rt.brake import watch
from rt.brake.connection import Connection
from rt.brake.heartbeat import Heartbeat
from rt.brake.process import ROLE as BRAKE
from rt.brake.watch import BrakeWatch
from rt.buffer import BufferStore, LeaseTable
from rt.buffer.arena import Arena
from rt.buffer.integrity import StuckLock
from rt.buffer.lease import Bar
from rt.buffer.session import Registrar
from rt.buffer.wakeup import Wakeups
from rt.buffer.write_event import WriteEvent
from rt.config import Config
from rt.config.network import open_listeners
from rt.config.team_code import find
from rt.errors import (
    ConfigError,
    DeviceBufferError,
    EmergencyStopException,
    InstanceBusyError,
    leaves,
)
from rt.executor.dispatcher import STALLED, Dispatcher
from rt.executor.pool import ExecutorPool
from rt.instance import Instance
from rt.process import notify, orphans, signals
from rt.root.children import child_specs
from rt.root.directory_watch import watch_directory
from rt.root.heartbeat import run_heartbeat
from rt.supervisor.spec import ChildStatus
from rt.supervisor.state import Restart, State
from rt.supervisor.tree import Supervisor

DEVICE = "device"
"""The name of the device process."""
BUFFERS_INTERVAL = 0.25
"""The shortest time between two checks whether buffers were overwritten (s)."""
WAKE_SLACK = 0.02
"""Time to handle queued status changes of the brake before it counts as missing (s)."""
_ABSENT = frozenset({State.BACKOFF, State.FAILED, State.STOPPED})
"""The states of a child that has no process and is not about to get one."""
UNUSABLE = (ConfigError.EXIT_CODE, InstanceBusyError.EXIT_CODE)
"""Exit codes of a child that another start cannot make ready."""


class Robot(NamedTuple):
    """A running robot, as passed to a `RobotTask`.

    Attributes:
        app: Creates clients and buffers; owned by the root.
        supervisor: The supervisor of the children.
    """

    app: Application
    supervisor: Supervisor


RobotTask = Callable[[Robot], Awaitable[None]]
"""Runs while the robot is ready; the robot stops when it returns."""


class Root:
    """The root process, without its log.

    Args:
        config: The options, with resolved addresses.
        instance: The instance, which is already locked.
        write_event: Wakes the device process.
        wakeups: Wake the processes that wait for changes.
        leases: The lease table, which contains the root's heartbeat.
        arena: The robot's shared memory.
        brake: Connects the device process with the brake.
        authenticator: For the sockets of the broker.
        emulated: Virtual Smart Devices to run as one more child.
        early: Stop signals that arrived before.
        log_file: The robot's log file, or None.

    Attributes:
        supervisor: The supervisor of the children.
        exit_code: 0 for an orderly stop, else the code of the child that stopped the robot.
    """

    def __init__(
        self,
        config: Config,
        instance: Instance,
        write_event: WriteEvent,
        wakeups: Wakeups,
        leases: LeaseTable,
        *,
        arena: Arena,
        brake: Connection,
        authenticator: Authenticator,
        emulated: Sequence[str],
        early: Sequence[int],
        log_file: Path | None = None,
    ) -> None:
        self._config = config
        self._early = early
        self._log_file = log_file
        self._leases = leases
        self._instance = instance
        self._arena = arena
        self._write_event = write_event
        self._wakeups = wakeups
        self._connection = brake
        self._brake_watch = BrakeWatch()
        self._brake_changed = trio.lowlevel.ParkingLot()
        self._registrar: Registrar | None = None
        self._authenticator = authenticator
        self._store: BufferStore | None = None
        self._buffers_checked_at = -math.inf
        self._mode_is_running = False
        self._arena_lock = StuckLock(self._arena.mapping.lock_state)
        self.exit_code = 0
        self._ready = False
        self._children_stopped = trio.Event()
        specs = child_specs(
            config, instance, arena, write_event, wakeups, connection=brake, emulated=emulated
        )
        self.supervisor = Supervisor(
            specs, instance.directory, on_change=self._on_child_change, on_shutdown=self._end_leases
        )
        self._pool = ExecutorPool(self.supervisor)
        heartbeat = Heartbeat(brake.device.memory)
        self._dispatcher = Dispatcher(
            self._pool,
            leases,
            write_event,
            needs_driver=config.teleop_needs_gamepad,
            is_moving=lambda: not heartbeat.is_settled,
            on_estop=functools.partial(
                self._stop, EmergencyStopException.EXIT_CODE, "emergency stop"
            ),
            time_limit=config.time_limit,
            insecure=config.insecure and bool(open_listeners(config)),
            on_mode=self._bar_sessions_of_mode,
        )
        self._log = log.get_logger()
        self._children: dict[str, ChildStatus] = {}
        self._bar_without_brake()

    def _on_child_change(self, status: ChildStatus) -> None:
        """Handle a new status of a child; some exits stop the robot."""
        # First, because what follows may start a process and record its status.
        self._children[status.name] = status
        self._verify_memory()
        if status.name == DEVICE and status.pid is None:
            self._verify_buffers(immediately=True)
        if status.name in (BRAKE, DEVICE):
            self._discard_unread(status)
        if status.name == BRAKE and not self.supervisor.ending:
            self._on_brake_change(status)
        self._pool.changed(status)
        if status.name == DEVICE and status.pid is None:
            self._invalidate_devices()
        if status.last_exit is None or self.exit_code:
            return
        if status.last_exit.emergency:
            self._stop(EmergencyStopException.EXIT_CODE, f"{status.name} raised an emergency stop")
        elif status.last_exit.code in UNUSABLE and not self._ready:
            self._stop(status.last_exit.code, f"{status.name} cannot start")

    def _on_brake_change(self, status: ChildStatus) -> None:
        """Handle a new status of the brake: bar all leases while no brake is ready."""
        brake_watch = self._brake_watch
        began = brake_watch.began
        lifted = brake_watch.update(
            trio.current_time(), ready=status.ready and watch.is_watching(status.status)
        )
        if lifted or brake_watch.barred:
            self._bar_without_brake()
        if lifted and began:
            self._log.info("brake ready; devices may move again", pid=status.pid)
        self._brake_changed.unpark_all()

    async def _watch_brake(self) -> None:
        """Bar all leases when no brake has been ready for too long."""
        while True:
            deadline = self._brake_watch.deadline
            with trio.move_on_at(math.inf if deadline is None else deadline):
                await self._brake_changed.park()
                continue
            await trio.sleep(WAKE_SLACK)
            if self._brake_watch.check(trio.current_time()) and not self.supervisor.ending:
                self._bar_without_brake()
                self._log.error(
                    "no brake is ready; every mode and command ended", reason=self._refusal()
                )

    def _refusal(self) -> str | None:
        """Return why devices may not move without a brake, or None if they may move."""
        if not self._brake_watch.barred:
            return None
        status = self._children.get(BRAKE)
        return watch.refusal(
            *(
                (State.STOPPED, "not started", "")
                if status is None
                else (status.state, status.reason, status.status)
            )
        )

    def _bar_without_brake(self) -> None:
        """Bar every slot while no brake is ready, and permit leases when one is."""
        self._dispatcher.brake_changed(self._refusal())
        self._bar_sessions()

    def _bar_sessions_of_mode(self, running: bool) -> None:
        """Bar commands such as `rt write` while a mode's process runs; both would move devices."""
        self._mode_is_running = running
        self._bar_sessions()

    def _bar_sessions(self) -> None:
        if self._registrar is not None:
            of_mode = Bar.MODE if self._mode_is_running else Bar.NONE
            self._registrar.bar(of_mode if self._refusal() is None else Bar.BRAKE)

    def _discard_unread(self, status: ChildStatus) -> None:
        """Discard messages that the brake or the device process did not read before it exited.

        A descriptor in such a message would keep a line locked.
        """
        if status.pid is not None or status.state not in {*_ABSENT, State.SPAWNING}:
            return
        ends = {BRAKE: self._connection.brake, DEVICE: self._connection.device}
        absent = {
            name
            for name in ends
            if name in self._children and self._children[name].state in _ABSENT
        }
        for name in absent | {status.name}:
            self._connection.discard(ends[name], flush=DEVICE in absent | {status.name})

    def _status(self) -> Any:
        """Return the status of each child; that of a missing brake says that nothing may move."""
        refusal = self._refusal()
        children = self.supervisor.status()
        if refusal is not None:
            children = [
                msgspec.structs.replace(each, status=refusal) if each.name == BRAKE else each
                for each in children
            ]
        return msgspec.to_builtins(children)

    def _end_leases(self) -> None:
        """End all leases, also of commands such as `rt write`, before the children are stopped."""
        self._dispatcher.close()

    def _invalidate_devices(self) -> None:
        """Invalidate the values of all devices, which are unknown without the device process."""
        for buffer in self._store.devices().values() if self._store else ():
            try:
                buffer.valid = False
            except DeviceBufferError:
                buffer.invalidate_without_lock()

    def _verify_memory(self) -> None:
        """Stop the robot if team code has overwritten the shared memory outside of the buffers."""
        if self.exit_code:
            return
        if (
            self._leases.is_intact()
            and self._arena.mapping.is_intact()
            and not self._arena_lock.is_stuck()
        ):
            self._verify_buffers()
            return
        self._leases.bar_all(Bar.DAMAGED)
        self._write_event.signal()
        self._stop(
            DeviceBufferError.EXIT_CODE,
            "team code has overwritten the robot's shared memory; all devices are disabled",
        )

    def _verify_buffers(self, *, immediately: bool = False) -> None:
        """End every mode if team code has overwritten a buffer, and replace the buffer.

        Args:
            immediately: Whether to check all buffers even if they were checked a short time ago.
        """
        if self._store is None or self.supervisor.ending:
            return
        now = trio.current_time()
        if immediately or now - self._buffers_checked_at >= BUFFERS_INTERVAL:
            self._buffers_checked_at = now
            damaged = self._store.find_damaged()
        else:
            damaged = self._store.recheck_suspects()
        if not damaged:
            return
        self._dispatcher.memory_overwritten(
            "team code has overwritten the memory of devices or gamepads"
        )
        replaced = [key for key, reason in damaged.items() if self._replace(key, reason)]
        device = self._children.get(DEVICE)
        if (
            device is not None
            and device.pid is not None
            and any(name != "gamepad" for name, _ in replaced)
        ):
            self.supervisor.child(DEVICE).feed(Restart("team code has overwritten its buffers"))

    def _replace(self, key: tuple[str, int], reason: str) -> bool:
        """Replace the buffer of a device or gamepad; False if that must wait for the next check."""
        assert self._store is not None
        try:
            self._store.replace(key)
        except DeviceBufferError as error:
            self._log.debug("cannot replace an overwritten buffer yet", reason=error.message)
            return False
        name, number = key
        self._log.error(
            f"team code has overwritten the buffer of a {name}; every mode and command ended",
            number=str(number),
            reason=reason,
        )
        return True

    def _stop(self, exit_code: int, reason: str) -> None:
        # An emergency stop acts when the router reads it, and again when its turn comes.
        if self.exit_code == exit_code:
            return
        self.exit_code = exit_code
        self._log.critical(reason)
        self.supervisor.shutdown(reason)

    async def run(self, robot_task: RobotTask | None, name: str) -> None:
        """Run until all children have exited; see `rt.root.lifecycle.run_robot`."""
        try:
            async with trio.open_nursery() as nursery:
                # Before the children, because no lease is valid without the heartbeat.
                nursery.start_soon(
                    functools.partial(
                        run_heartbeat,
                        self._leases,
                        self._write_event,
                        self._verify_memory,
                        on_stall=functools.partial(self._dispatcher.end_mode, STALLED),
                    )
                )
                registrar = self._registrar = Registrar(
                    self._instance.directory,
                    self._arena,
                    self._write_event,
                    self._wakeups,
                    self._leases,
                )
                self._bar_without_brake()
                await nursery.start(registrar.run)
                nursery.start_soon(
                    watch_directory,
                    self._instance,
                    registrar,
                    self._dispatcher.end_mode,
                    self._config.router_frontend,
                    self._log_file,
                )
                nursery.start_soon(self._watch_brake)
                nursery.start_soon(orphans.reap)
                await nursery.start(
                    signals.watch, self.supervisor.shutdown, self.supervisor.kill, self._early
                )
                nursery.start_soon(self._watch_bootloader)
                ready = trio.Event()
                nursery.start_soon(self._supervise, nursery, ready)
                async with self._broker() as app:
                    self._log.info(
                        f"{name} started",
                        instance=self._instance.name,
                        pid=os.getpid(),
                        port_base=self._config.port_base,
                    )
                    await ready.wait()
                    self._ready = True
                    # Later collections, which block the event loop, skip objects that live as long
                    # as the robot.
                    gc.freeze()
                    notify.send(ready=True, status="ready")
                    self._log.info(
                        "robot ready",
                        children=[
                            status.name
                            for status in self.supervisor.status()
                            if not status.on_demand
                        ],
                    )
                    if robot_task is None:
                        has_code = find(self._config.exec_module, Path.cwd()) is not None
                        hint = "`rt call teleop` starts teleop" if has_code else "no team code yet"
                        self._log.info(f"robot idle: {hint}; Ctrl-C stops the robot")
                    else:
                        await robot_task(Robot(app, self.supervisor))
                        self.supervisor.shutdown(f"{name} has ended")
                    await self._children_stopped.wait()
        finally:
            notify.send(stopping=True)
        self._log.info("stopped")

    async def _supervise(self, nursery: trio.Nursery, ready: trio.Event) -> None:
        """Start the children and set ``ready``, unless the robot is stopped in the meantime.

        A child that failed does not prevent this; it is restarted as its policy says.
        """
        statuses = await nursery.start(self._run_children, nursery.cancel_scope)
        if self.supervisor.ending:
            return
        missing = [status.name for status in statuses if not (status.ready or status.on_demand)]
        if missing:
            self._log.error("children failed to start", missing=missing)
        ready.set()

    async def _run_children(
        self,
        scope: trio.CancelScope,
        task_status: trio.TaskStatus[list[ChildStatus]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run the children; cancel everything else when they have exited."""
        await self.supervisor.run(task_status=task_status)
        self._children_stopped.set()
        scope.cancel()

    @contextlib.asynccontextmanager
    async def _broker(self) -> AsyncIterator[Application]:
        # Imported here, while the children start up.
        from rt.broker import serve
        from rt.broker.driving import Driving

        driving = Driving()
        self._dispatcher.driver = driving
        driving.listen(self._dispatcher.driver_changed)
        app = Application(
            "broker",
            self._config,
            shm_prefix=self._arena.prefix,
            write_event=self._write_event,
            wakeups=self._wakeups,
            signals=False,
        )
        with self._shutdown_on_error():
            async with app:
                store = self._store = app.make_buffer_manager()
                await serve(
                    app,
                    store,
                    self._authenticator,
                    instance=self._instance.name,
                    directory=self._instance.directory,
                    status=self._status,
                    driving=driving,
                )
                await app.nursery.start(self._dispatcher.run)
                await app.make_service(
                    self._dispatcher,
                    app.make_service_node("executor-service", self._dispatcher.immediate),
                )
                yield app

    @contextlib.contextmanager
    def _shutdown_on_error(self) -> Iterator[None]:
        """Stop the children with an error of the block as the reason, before a nursery cancels."""
        try:
            yield
        except BaseException as error:
            failures = [each for each in leaves(error) if not isinstance(each, trio.Cancelled)]
            if failures:
                text = ", ".join(f"{type(each).__name__}: {each}" for each in failures)
                self.supervisor.shutdown(f"robot failed: {text}")
            raise

    async def _watch_bootloader(self) -> None:
        """Stop when the bootloader process of a one-file executable is killed."""
        await signals.wait_for_bootloader_exit()
        self.supervisor.shutdown("the bootloader process was killed")
