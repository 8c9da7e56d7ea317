"""The root process of a robot: its children, what it watches over, and how all of it ends.

The rule of this module: when the children are gone, nothing else goes on, and while they are there, nothing ends without them.
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
from rt.app import Application
from rt.brake import watch
from rt.brake.connection import Connection
from rt.brake.heartbeat import Heartbeat
from rt.brake.process import ROLE as BRAKE
from rt.brake.watch import BrakeWatch
from rt.buffer import Bells, BufferStore, Doorbell, LeaseTable
from rt.buffer.arena import Arena
from rt.buffer.lease import Bar
from rt.buffer.soundness import StuckLock
from rt.buffer.visitor import NAME as VISITORS
from rt.buffer.visitor import VisitorDesk
from rt.cli.beat import beat
from rt.cli.children import child_specs
from rt.cli.outer import outer_gone
from rt.config import Config, opened
from rt.config.team_code import find
from rt.errors import (
    ConfigError,
    DeviceBufferError,
    EmergencyStopException,
    InstanceBusyError,
    RuntimeBaseException,
    leaves,
)
from rt.executor.dispatcher import STALLED, Dispatcher
from rt.executor.pool import ExecutorPool
from rt.instance import Instance, log_place
from rt.remote import Gate
from rt.remote.socket import mend_files
from rt.supervisor import notify, orphans, signals
from rt.supervisor.life import Restart, State
from rt.supervisor.spec import ChildStatus
from rt.supervisor.tree import Supervisor

DEVICE = "device"
"""The child that talks to the devices."""
IPC = "ipc://"
DIRECTORY_INTERVAL = 1.0
"""How often it is verified that the instance directory and its sockets are there (s)."""
BUFFERS_INTERVAL = 0.25
"""Least time between two looks whether a buffer was overwritten (s)."""
WAKE_SLACK = 0.02
"""How long the news of the brake that came while this process was busy may take to be handled (s)."""
_ABSENT = frozenset({State.BACKOFF, State.FAILED, State.STOPPED})
"""The states of a child that has no process and is not about to get one."""
UNUSABLE = (ConfigError.EXIT_CODE, InstanceBusyError.EXIT_CODE)
"""Exit codes of a child that will not get ready however often it is started."""


class Robot(NamedTuple):
    """A robot that runs: what goes on beside it is given this.

    Attributes:
        app: Makes clients and buffers; owned by the root.
        supervisor: The children.
        directory: The instance directory.
        shm_prefix: What the names of its shared memory begin with.
    """

    app: Application
    supervisor: Supervisor
    directory: Path
    shm_prefix: str


Beside = Callable[[Robot], Awaitable[None]]


class Root:
    """What runs in the root process beside its log.

    Args:
        config: The options, with addresses resolved.
        instance: The instance, which is held already.
        doorbell: Rings the device process.
        bells: Ring those who wait for changes.
        leases: Where the root shows that it is alive.
        arena: The robot's shared memory.
        brake: Connects the device process with the brake.
        gate: Through which the broker listens.
        emulated: Virtual Smart Devices to run as one more child.
        early: Signals that came before this.
        log_file: Where the robot keeps its log, if it does.

    Attributes:
        exit_code: 0 for an orderly stop, else that of the child that stopped the robot.
    """

    def __init__(
        self,
        config: Config,
        instance: Instance,
        doorbell: Doorbell,
        bells: Bells,
        leases: LeaseTable,
        *,
        arena: Arena,
        brake: Connection,
        gate: Gate,
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
        self._doorbell = doorbell
        self._bells = bells
        self._connection = brake
        self._brake_watch = BrakeWatch()
        self._brake_news = trio.Event()
        self._desk: VisitorDesk | None = None
        self._gate = gate
        self._store: BufferStore | None = None
        self._verified_at = -math.inf
        self._runs_mode = False
        self._arena_lock = StuckLock(self._arena.mapping.lock_state)
        self.exit_code = 0
        self._ready = False
        self._children_gone = trio.Event()
        specs = child_specs(config, instance, arena, doorbell, bells, connection=brake, emulated=emulated)
        self.supervisor = Supervisor(specs, instance.directory, on_change=self._watch, on_shutdown=self._end_leases)
        self._pool = ExecutorPool(self.supervisor)
        heartbeat = Heartbeat(brake.device.memory)
        self._dispatcher = Dispatcher(
            self._pool,
            leases,
            doorbell,
            needs_driver=config.teleop_needs_gamepad,
            is_moving=lambda: not heartbeat.is_settled,
            on_estop=functools.partial(self._stop, EmergencyStopException.EXIT_CODE, "emergency stop"),
            time_limit=config.time_limit,
            insecure=config.insecure and bool(opened(config)),
            on_mode=self._bar_visitors_of_mode,
        )
        self._log = log.get_logger()
        self._children: dict[str, ChildStatus] = {}
        self._bar_without_brake()

    def _watch(self, status: ChildStatus) -> None:
        """Stop the robot when a child ended in a way that concerns all of it."""
        self._children[status.name] = status  # first: what follows may start a process, and note its status
        self._verify_memory()
        if status.name == DEVICE and status.pid is None:
            self._verify_buffers(at_once=True)
        if status.name in (BRAKE, DEVICE):
            self._discard_unread(status)
        if status.name == BRAKE and not self.supervisor.ending:
            self._note_brake(status)
        self._pool.changed(status)
        if status.name == DEVICE and status.pid is None:
            self._forget_devices()
        if status.last_exit is None or self.exit_code:
            return
        if status.last_exit.emergency:
            self._stop(EmergencyStopException.EXIT_CODE, f"{status.name} raised an emergency stop")
        elif status.last_exit.code in UNUSABLE and not self._ready:
            self._stop(status.last_exit.code, f"{status.name} cannot start")

    def _note_brake(self, status: ChildStatus) -> None:
        """Let nothing move while no brake is ready for too long. The brake may have changed."""
        gate = self._brake_watch
        began = gate.began
        lifted = gate.note(trio.current_time(), ready=status.ready and watch.is_watching(status.status))
        if lifted or gate.barred:
            self._bar_without_brake()
        if lifted and began:
            self._log.info("a brake is ready: devices may move again", pid=status.pid)
        self._brake_news.set()

    async def _watch_brake(self) -> None:
        """Let nothing move from the moment on at which no brake was ready for too long."""
        while True:
            self._brake_news = trio.Event()
            with trio.move_on_at(math.inf if self._brake_watch.due is None else self._brake_watch.due):
                await self._brake_news.wait()
                continue
            await trio.sleep(WAKE_SLACK)
            if self._brake_watch.look(trio.current_time()) and not self.supervisor.ending:
                self._bar_without_brake()
                self._log.error("every mode and command is ended, because no brake is ready", reason=self._refusal())

    def _refusal(self) -> str | None:
        """Why nothing may move for want of a brake, or None."""
        if not self._brake_watch.barred:
            return None
        status = self._children.get(BRAKE)
        return watch.refusal(
            *((State.STOPPED, "not started", "") if status is None else (status.state, status.reason, status.status))
        )

    def _bar_without_brake(self) -> None:
        """Bar every slot while no brake is ready, and let leases begin again when one is."""
        self._dispatcher.brake_changed(self._refusal())
        self._bar_visitors()

    def _bar_visitors_of_mode(self, running: bool) -> None:
        """Let no command such as `rt write` move devices while the process of a mode lives: both would move them to and fro."""
        self._runs_mode = running
        self._bar_visitors()

    def _bar_visitors(self) -> None:
        if self._desk is not None:
            self._desk.bar(Bar.BRAKE if self._refusal() is not None else Bar.MODE if self._runs_mode else Bar.NONE)

    def _discard_unread(self, status: ChildStatus) -> None:
        """Discard what the brake or the device process did not read before it ended: a descriptor in it keeps a line locked."""
        if status.pid is not None or status.state not in {*_ABSENT, State.SPAWNING}:
            return
        ends = {BRAKE: self._connection.brake, DEVICE: self._connection.device}
        absent = {name for name in ends if name in self._children and self._children[name].state in _ABSENT}
        for name in absent | {status.name}:
            self._connection.discard(ends[name], flush=DEVICE in absent | {status.name})

    def _status(self) -> Any:
        """The state of each child; that of a brake for whose want nothing may move says so."""
        refusal = self._refusal()
        children = self.supervisor.status()
        if refusal is not None:
            children = [
                msgspec.structs.replace(each, status=refusal) if each.name == BRAKE else each for each in children
            ]
        return msgspec.to_builtins(children)

    def _end_leases(self) -> None:
        """Stop all motion before the children stop one after another: a command such as `rt write` holds a lease too."""
        self._dispatcher.close()

    def _forget_devices(self) -> None:
        """Without the device process nobody knows the devices' values: let nobody go on with the old ones."""
        for buffer in self._store.devices().values() if self._store else ():
            try:
                buffer.valid = False
            except DeviceBufferError:
                buffer.invalidate_by_force()

    def _verify_memory(self) -> None:
        """Stop the robot if team code has overwritten the shared memory: nothing that it holds can be trusted any more."""
        if self.exit_code:
            return
        if self._leases.is_sound() and self._arena.mapping.is_sound() and not self._arena_lock.look():
            self._verify_buffers()
            return
        self._leases.bar_all(Bar.DAMAGED)
        self._doorbell.ring()
        self._stop(
            DeviceBufferError.EXIT_CODE,
            "team code has overwritten the robot's shared memory: every device is disabled, and the robot stops",
        )

    def _verify_buffers(self, *, at_once: bool = False) -> None:
        """End every mode if team code has overwritten the memory of a device or a gamepad, and have that memory made anew.

        Args:
            at_once: Whether all buffers are verified, however short the last time is ago.
        """
        if self._store is None or self.supervisor.ending:
            return
        if at_once or trio.current_time() - self._verified_at >= BUFFERS_INTERVAL:
            self._verified_at = trio.current_time()
            damaged = self._store.damaged()
        else:
            damaged = self._store.suspects()
        if not damaged:
            return
        self._dispatcher.memory_overwritten("team code has overwritten the memory of devices or gamepads")
        replaced = [key for key, reason in damaged.items() if self._replace(key, reason)]
        device = self._children.get(DEVICE)
        if device is not None and device.pid is not None and any(name != "gamepad" for name, _ in replaced):
            self.supervisor.child(DEVICE).feed(Restart("the memory of its devices was overwritten"))

    def _replace(self, key: tuple[str, int], reason: str) -> bool:
        """Have the memory of one device or gamepad made anew; False if that is impossible now, and is tried at the next look."""
        assert self._store is not None
        try:
            self._store.replace(key)
        except DeviceBufferError as error:
            self._log.debug("memory that team code has overwritten cannot be replaced yet", reason=error.message)
            return False
        name, number = key
        self._log.error(
            f"team code has overwritten the memory of a {name}: every mode and command is ended",
            number=str(number),
            reason=reason,
        )
        return True

    def _stop(self, exit_code: int, reason: str) -> None:
        if self.exit_code == exit_code:  # an emergency stop acts when it is read, and again when its turn comes
            return
        self.exit_code = exit_code
        self._log.critical(reason)
        self.supervisor.shutdown(reason)

    async def run(self, beside: Beside | None, name: str) -> None:
        """Run until the children are gone. See `rt.cli.robot.run_robot`."""
        try:
            async with trio.open_nursery() as nursery:
                # Before the children: without it no lease counts.
                stalled = functools.partial(self._dispatcher.end_mode, STALLED)
                nursery.start_soon(
                    functools.partial(beat, self._leases, self._doorbell, self._verify_memory, on_stall=stalled)
                )
                desk = VisitorDesk(self._instance.directory, self._arena, self._doorbell, self._bells, self._leases)
                self._desk = desk
                self._bar_without_brake()
                await nursery.start(desk.run)
                nursery.start_soon(self._watch_directory, desk)
                nursery.start_soon(self._watch_brake)
                nursery.start_soon(orphans.reap)
                supervisor = self.supervisor
                watch = functools.partial(signals.watch, supervisor.shutdown, supervisor.kill, early=self._early)
                await nursery.start(watch)
                nursery.start_soon(self._watch_outer)
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
                    # What lives as long as the robot is not looked at by later collections, which stop the event loop.
                    gc.freeze()
                    notify.send(ready=True, status="ready")
                    self._log.info(
                        "the robot is ready",
                        children=[status.name for status in self.supervisor.status() if not status.on_demand],
                    )
                    if beside is None:
                        has_code = find(self._config.exec_module, Path.cwd()) is not None
                        what = "`rt call teleop` lets it drive" if has_code else "there is no team code yet"
                        self._log.info(f"the robot is idle: {what}, Ctrl-C ends it")
                    else:
                        await beside(Robot(app, self.supervisor, self._instance.directory, self._arena.prefix))
                        self.supervisor.shutdown(f"{name} is over")
                    await self._children_gone.wait()
        finally:
            notify.send(stopping=True)
        self._log.info("stopped")

    async def _watch_directory(self, desk: VisitorDesk) -> None:
        """Make the instance directory and the sockets in it again when they are removed.

        logind removes /run/user/UID when the last session of a user ends. The children do not notice; without the sockets no
        command reaches the robot, and no child that is restarted.
        """
        said = ""
        while True:
            await _next(DIRECTORY_INTERVAL)
            try:
                mended = self._mend(desk)
            except (RuntimeBaseException, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    self._log.error(
                        f"commands and restarted processes do not reach the robot: {error}",
                        directory=str(self._instance.directory),
                        remedy="restart the robot; `loginctl enable-linger` keeps /run/user without a session",
                    )
                if not self._is_reachable():
                    self._dispatcher.end_mode("commands do not reach the robot: see the log")
                continue
            said = ""
            if mended:
                self._log.warning("files of the robot were removed and are made again", files=mended)

    def _is_reachable(self) -> bool:
        """Whether the instance directory and the router's sockets in it are there."""
        sockets = [Path(each[len(IPC) :]) for each in self._config.router_frontend if each.startswith(IPC)]
        return self._instance.is_in_place() and all(each.is_socket() for each in sockets)

    def _mend(self, desk: VisitorDesk) -> list[str]:
        """What was missing in the instance directory, and is there again."""
        mended = [str(self._instance.directory)] if self._instance.mend() else []
        mended += [VISITORS] if desk.mend() else []
        mended += [Path(address).name for address in mend_files()]
        if self._log_file is not None:
            log_place.mark(self._instance.directory, self._log_file)
        return mended

    async def _supervise(self, nursery: trio.Nursery, ready: trio.Event) -> None:
        """Start the children; a robot of which one could not start goes on trying, and one that is stopped meanwhile is never ready."""
        statuses = await nursery.start(self._keep_children, nursery.cancel_scope)
        if self.supervisor.ending:
            return
        missing = [status.name for status in statuses if not (status.ready or status.on_demand)]
        if missing:
            self._log.error("the robot is incomplete", missing=missing)
        ready.set()

    async def _keep_children(
        self, scope: trio.CancelScope, task_status: trio.TaskStatus[list[ChildStatus]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Run the children; when they are gone, so is the reason for everything else."""
        await self.supervisor.run(task_status=task_status)
        self._children_gone.set()
        scope.cancel()

    @contextlib.asynccontextmanager
    async def _broker(self) -> AsyncIterator[Application]:
        # The broker's imports are done while the children start up.
        from rt.broker import serve
        from rt.broker.driving import Driving

        driving = Driving()
        self._dispatcher.driver = driving
        driving.listen(lambda _live, _reason: self._dispatcher.driver_changed())
        app = Application(
            "broker",
            self._config,
            shm_prefix=self._arena.prefix,
            doorbell=self._doorbell,
            bells=self._bells,
            signals=False,
        )
        with self._explained():
            async with app:
                store = self._store = app.make_buffer_manager()
                await serve(
                    app,
                    store,
                    self._gate,
                    instance=self._instance.name,
                    directory=self._instance.directory,
                    status=self._status,
                    driving=driving,
                )
                await app.nursery.start(self._dispatcher.run)
                await app.make_service(
                    self._dispatcher, app.make_service_node("executor-service", self._dispatcher.at_once)
                )
                yield app

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Give the children's stop the reason that a person understands, before the nurseries give it theirs."""
        try:
            yield
        except BaseException as error:
            failures = [each for each in leaves(error) if not isinstance(each, trio.Cancelled)]
            if failures:
                why = ", ".join(f"{type(each).__name__}: {each}" for each in failures)
                self.supervisor.shutdown(f"the robot failed by {why}")
            raise

    async def _watch_outer(self) -> None:
        """An executable that unpacks itself has an outer process: without it nobody would remove the unpacked files."""
        await outer_gone()
        self.supervisor.shutdown("the outer process of the executable was killed")


async def _next(interval: float) -> None:
    """Sleep until trio's clock is a multiple of an interval (s), so that the process wakes once for all that is due then."""
    await trio.sleep(interval - trio.current_time() % interval)
