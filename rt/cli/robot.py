"""The root of a robot: signals, instance, children and broker, from start to end.

`rt run` and `rt demo` are this and nothing else; what differs between them is which children there are and what runs beside.
"""

import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import trio

from rt import catalog, log
from rt.app import Application, ChildSettings, child_command, stdout_format
from rt.buffer import Bells, BufferStore, Doorbell, LeaseTable
from rt.buffer.bells import DEVICE_SEAT, EXECUTOR_SEAT, ROOT_SEAT
from rt.buffer.visitor import VisitorDesk
from rt.cli.log_keeper import LogKeeper
from rt.cli.outer import outer_gone
from rt.config import Config, kept, opened, require_keys
from rt.errors import BufferBusyError, ConfigError, EmergencyStopException, InstanceBusyError
from rt.instance import Instance
from rt.keys import Keyring
from rt.protocol.control import Stamp
from rt.remote import Gate, Handler, route
from rt.remote.handler import Route
from rt.supervisor import notify, signals
from rt.supervisor.spec import ChildSpec, ChildStatus
from rt.supervisor.tree import Supervisor

if TYPE_CHECKING:
    from rt.broker import Broker

DEVICE_WATCHDOG = 2.0
"""How long the device process may be silent before it is taken for dead (s)."""
EXECUTOR_WATCHDOG = 5.0
"""The same of the executor: the team's code shares its interpreter, and may keep it for long while it imports."""
EXECUTOR_STOP_TIMEOUT = 1.0
"""How long the executor may take to stop (s); it is killed then, and the device process after it has its own time."""
BEAT_INTERVAL = 0.1
"""How often the root shows that it is alive (s); the devices are stopped when it has not for `rt.buffer.lease.ROOT_TIMEOUT`."""
DIRECTORY_INTERVAL = 1.0
"""How often it is verified that the instance directory is still there (s)."""
SEATS_OF = {"executor": EXECUTOR_SEAT, "device": DEVICE_SEAT}
"""The seats of the children that read and write buffers."""
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


async def run_robot(
    config: Config,
    instance: Instance,
    *,
    emulated: Sequence[str] = (),
    beside: Beside | None = None,
    name: str = "rt run",
    early: Sequence[int] = (),
) -> int:
    """Run a robot until a signal, an emergency stop, or the end of ``beside``.

    Args:
        config: The options, with addresses resolved.
        instance: The instance, which is held already.
        emulated: Virtual Smart Devices to run as one more child, as ``UID[:JSON]``.
        beside: Runs when all children are ready; the robot stops when it returns.
        name: What this robot is called in the log.
        early: Signals that came before this.

    Returns:
        The exit code: 0 for an orderly stop, 255 for an emergency stop.

    Raises:
        InstanceBusyError: Another program holds one of its addresses.
    """
    async with contextlib.AsyncExitStack() as stack:
        # First to come and last to go: everything else may have something to say.
        logs = await stack.enter_async_context(Application("log", config))
        gate = await logs.make_gate()
        await logs.make_log_forwarder()
        if (keeper := LogKeeper.of(config)) is not None:
            await logs.nursery.start(keeper.run)
        doorbell = Doorbell()
        stack.callback(doorbell.close)
        bells = Bells(seat=ROOT_SEAT)
        stack.callback(bells.close)
        leases = stack.enter_context(LeaseTable.open(instance.shm_prefix))
        root = _Root(config, instance, doorbell, bells, leases, gate=gate, emulated=emulated, early=early)
        return await root.run(beside, name)


class _Controls(Handler):
    """What the driver's station may call by datagram, which anybody on its network can send: gamepads and nothing else."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker

    @route(inline=True)
    def update_gamepads(self, update: dict[str, Any], stamp: Stamp | None = None) -> None:
        """Store the state of one or more gamepads: index -> lx, ly, rx, ry (-1 to 1) and btn."""
        self._broker.update_gamepads(update, stamp)

    def routes(self) -> dict[str, Route]:
        """The one method."""
        return {"update_gamepads": super().routes()["update_gamepads"]}


class _Root:
    def __init__(
        self,
        config: Config,
        instance: Instance,
        doorbell: Doorbell,
        bells: Bells,
        leases: LeaseTable,
        *,
        gate: Gate,
        emulated: Sequence[str],
        early: Sequence[int],
    ) -> None:
        self._config = config
        self._early = early
        self._leases = leases
        self._instance = instance
        self._doorbell = doorbell
        self._bells = bells
        self._gate = gate
        self._store: BufferStore | None = None
        self._exit_code = 0
        self._ready = False
        self._children_gone = trio.Event()
        specs = [
            self._spec("device", watchdog=DEVICE_WATCHDOG),
            self._spec("executor", watchdog=EXECUTOR_WATCHDOG, stop_timeout=EXECUTOR_STOP_TIMEOUT),
        ]
        if emulated:
            specs.insert(0, self._spec("emulator", emulated=tuple(emulated)))
        self.supervisor = Supervisor(specs, instance.directory, on_change=self._watch)
        self._log = log.get_logger()

    def _spec(
        self, role: str, *, watchdog: float | None = None, stop_timeout: float = 2.0, emulated: tuple[str, ...] = ()
    ) -> ChildSpec:
        settings = ChildSettings(
            role=role,
            config=self._config,
            directory=str(self._instance.directory),
            shm_prefix=self._instance.shm_prefix,
            doorbell=self._doorbell.fd,
            bells=self._bells.fds,
            seat=SEATS_OF.get(role, ROOT_SEAT),
            emulated=emulated,
        )
        return ChildSpec(
            name=role,
            command=child_command(role),
            message=settings.encode(),
            pass_fds=(self._doorbell.fd, *self._bells.fds),
            watchdog=watchdog,
            stop_timeout=stop_timeout,
        )

    def _watch(self, status: ChildStatus) -> None:
        """Stop the robot when a child ended in a way that concerns all of it."""
        if status.name == "device" and status.pid is None:
            self._forget_devices()
        if status.last_exit is None or self._exit_code:
            return
        if status.last_exit.emergency:
            self._stop(EmergencyStopException.EXIT_CODE, f"{status.name} raised an emergency stop")
        elif status.last_exit.code in UNUSABLE and not self._ready:
            self._stop(status.last_exit.code, f"{status.name} cannot start")

    def _forget_devices(self) -> None:
        """Without the device process nobody knows the devices' values: let nobody go on with the old ones."""
        for buffer in self._store.devices().values() if self._store else ():
            try:
                buffer.valid = False
            except BufferBusyError:
                buffer.invalidate_by_force()

    def _stop(self, exit_code: int, reason: str) -> None:
        self._exit_code = exit_code
        self._log.critical(reason)
        self.supervisor.shutdown(reason)

    async def run(self, beside: Beside | None, name: str) -> int:
        try:
            async with trio.open_nursery() as nursery:
                # Before the children: without it no lease counts.
                nursery.start_soon(self._beat)
                nursery.start_soon(self._watch_directory)
                desk = VisitorDesk(self._instance.directory, self._doorbell, self._bells, self._leases)
                await nursery.start(desk.run)
                await nursery.start(self._watch_signals)
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
                    notify.send(ready=True, status="ready")
                    self._log.info("the robot is ready", children=[status.name for status in self.supervisor.status()])
                    if beside is None:
                        self._log.info("the robot is idle: `rt call teleop` lets it drive, Ctrl-C ends it")
                    else:
                        await beside(Robot(app, self.supervisor, self._instance.directory, self._instance.shm_prefix))
                        self.supervisor.shutdown(f"{name} is over")
                    await self._children_gone.wait()
        finally:
            notify.send(stopping=True)
        self._log.info("stopped")
        return self._exit_code

    async def _beat(self) -> None:
        """Stamp the root's sign of life: nothing may move while this loop does not run."""
        while True:
            self._leases.beat()
            await trio.sleep(BEAT_INTERVAL)

    async def _watch_directory(self) -> None:
        """Say once that the directory was removed, as logind does with /run/user/UID when the last session of a user ends."""
        directory = self._instance.directory
        before = directory.stat()
        while True:
            await trio.sleep(DIRECTORY_INTERVAL)
            if not _is_same(directory, before):
                break
        self._log.error(
            f"{directory} was removed while the robot runs, so that commands do not reach it: restart the robot"
            " (`loginctl enable-linger` keeps the directory without a session)"
        )

    async def _supervise(self, nursery: trio.Nursery, ready: trio.Event) -> None:
        """Start the children; a robot of which one could not start is not ready, but goes on trying."""
        statuses = await nursery.start(self._keep_children, nursery.cancel_scope)
        missing = [status.name for status in statuses if not status.ready]
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
        from rt.broker import Access, Broker, GamepadFeed, UpdatePublisher

        app = Application(
            "broker",
            self._config,
            shm_prefix=self._instance.shm_prefix,
            doorbell=self._doorbell,
            bells=self._bells,
            signals=False,
        )
        async with app:
            store = self._store = app.make_buffer_manager()
            gamepads = GamepadFeed(store)
            app.gate = self._gate
            access = Access(self._config, self._gate)
            access.announce()
            handler = Broker(
                self._config,
                gamepads,
                lambda: msgspec.to_builtins(self.supervisor.status()),
                access.report,
                state=kept.state_directory(self._instance.name, os.environ),
                instance_directory=self._instance.directory,
            )
            await app.make_router()
            await app.make_service(handler)
            access.watch(await app.make_control_service(_Controls(handler)))
            app.nursery.start_soon(gamepads.run)
            app.report_health()
            updates = UpdatePublisher(store, await app.make_update_node(), self._config.update_interval)
            app.nursery.start_soon(updates.run)
            yield app

    async def _watch_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        if self._early:
            self.supervisor.shutdown(f"received {signal.Signals(self._early[0]).name}")
        await signals.watch(self.supervisor.shutdown, self.supervisor.kill, task_status=task_status)

    async def _watch_outer(self) -> None:
        """An executable that unpacks itself has an outer process: without it nobody would remove the unpacked files."""
        await outer_gone()
        self.supervisor.shutdown("the outer process of the executable was killed")


def _is_same(directory: Path, before: os.stat_result) -> bool:
    try:
        return os.path.samestat(directory.stat(), before)
    except OSError:
        return False


def refuse_strangers(config: Config) -> None:
    """Refuse to start a robot that anybody on the network could drive, unless it is meant to be.

    Raises:
        ConfigError: It is open to the network without keys; says what to do.
    """
    if not config.insecure and opened(config):
        keyring = Keyring(Path(config.keys_dir))
        keyring.refresh()
        if keyring.problems and not keyring.stations:
            raise ConfigError(keyring.problems[0])
        require_keys(config, keyring.stations)


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
    catalog.load(Path(resolved.dev_catalog) if resolved.dev_catalog else None)
    refuse_strangers(resolved)
    with signals.kept(signal.SIGINT, signal.SIGTERM) as early, instance.acquire() as swept:
        for sentence in swept:
            log.get_logger().warning(sentence)
        return trio.run(lambda: run_robot(resolved, instance, emulated=emulated, beside=beside, name=name, early=early))
