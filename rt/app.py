"""What one process of rt opens and closes.

An Application owns the process's sockets, buffers and tasks: whatever it makes is closed when it ends, in reverse order, and an
exception in any of its tasks ends it and reaches its owner.
"""

import contextlib
import functools
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import structlog
import trio
import zmq

from rt import catalog, log
from rt.buffer import Bells, BufferStore, Doorbell, LeaseTable
from rt.buffer.bells import ROOT_SEAT
from rt.catalog import Catalog
from rt.config import Config
from rt.keys import Keyring
from rt.remote import (
    Client,
    DatagramNode,
    Gate,
    Handler,
    LogHub,
    LogPublisher,
    Node,
    Router,
    Service,
    SocketNode,
    VerifyingNode,
)
from rt.remote.address import get_connection, interface_of
from rt.remote.loghub import QUEUE_EVENTS
from rt.supervisor.spec import LIFELINE

T = TypeVar("T")


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a child needs to know; the one message on its lifeline.

    Attributes:
        role: What it does: ``device``, ``executor`` or ``emulator``.
        config: The options, with addresses resolved.
        directory: The instance directory.
        shm_prefix: What the names of this robot's shared memory begin with.
        doorbell: The inherited eventfd that wakes the device process.
        bells: The inherited eventfds that wake the processes that wait for changes, by seat.
        seat: The child's seat among them.
        emulated: Virtual Smart Devices to run, as ``UID[:JSON]``, for the role ``emulator``.
    """

    role: str
    config: Config
    directory: str
    shm_prefix: str
    doorbell: int
    bells: tuple[int, ...] = ()
    seat: int = ROOT_SEAT
    emulated: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The message for the lifeline (MessagePack)."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, message: bytes) -> Self:
        """The settings that a message carries.

        Raises:
            msgspec.ValidationError: It is no such message.
        """
        return msgspec.msgpack.decode(message, type=cls)


class Application:
    """Makes and owns what a process needs.

    Args:
        name: Unique among the robot's processes; the service of ``device`` is ``device-service``.
        config: The options, with addresses resolved.
        shm_prefix: What the names of this robot's shared memory begin with.
        doorbell: Rung by writes to devices.
        bells: Rung by changes of buffers; its seat is that of this process.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        *,
        shm_prefix: str = "",
        doorbell: Doorbell | None = None,
        bells: Bells | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.doorbell = doorbell
        self.bells = bells
        self.gate: Gate | None = None
        self._shm_prefix = shm_prefix
        self._stack = contextlib.AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._threads = trio.CapacityLimiter(config.thread_pool_workers)
        self.logger = log.get_logger()

    @classmethod
    def of_child(cls, settings: ChildSettings) -> Self:
        """The application of a child, named by its role."""
        return cls(
            settings.role,
            settings.config,
            shm_prefix=settings.shm_prefix,
            doorbell=Doorbell(settings.doorbell),
            bells=Bells(settings.bells, seat=settings.seat) if settings.bells else None,
        )

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self.nursery.cancel_scope.cancel()
        return await self._stack.__aexit__(kind, error, traceback)

    @property
    def nursery(self) -> trio.Nursery:
        """The owner of this process's tasks."""
        if self._nursery is None:
            raise RuntimeError("an Application is used within `async with`")
        return self._nursery

    @functools.cached_property
    def catalog(self) -> Catalog:
        """What peripherals there are.

        Raises:
            CatalogError: The catalog is wrong.
        """
        return catalog.load(Path(self.config.dev_catalog) if self.config.dev_catalog else None)

    @property
    def names(self) -> dict[str, int]:
        """UIDs by the names that the team gave them."""
        return {name: int(uid) for name, uid in self.config.dev_name.items()}

    def make_buffer_manager(self, *, shared: bool = True, lock_timeout: float = 0.0) -> BufferStore:
        """The robot's buffers; ``lock_timeout`` (s) stays 0 where only the event loop uses them."""
        store = BufferStore(
            self.catalog,
            self._shm_prefix,
            doorbell=self.doorbell,
            bells=self.bells,
            shared=shared,
            lock_timeout=lock_timeout,
        )
        self._stack.enter_context(store)
        return store

    def make_lease_table(self) -> LeaseTable:
        """The leases on the robot's devices."""
        return self._stack.enter_context(LeaseTable.open(self._shm_prefix))

    async def make_gate(self) -> Gate:
        """The gate through which what is made afterwards listens: open to the network only for stations with a key.

        Raises:
            ConfigError: The directory of the keys cannot be used.
        """
        self.gate = Gate(Keyring(Path(self.config.keys_dir)), insecure=self.config.insecure)
        await self.nursery.start(self.gate.run)
        return self.gate

    async def make_router(self) -> Router:
        """A router between clients and services, bound and running.

        Raises:
            InstanceBusyError: Somebody else holds one of its addresses.
        """
        router = Router(self.config.router_frontend, self.config.router_backend, gate=self.gate)
        await self.nursery.start(router.run)
        return router

    async def make_client(self, node: Node | None = None) -> Client:
        """A client for remote calls; without a node it goes over the router and is named after the application."""
        if node is None:
            node = SocketNode(
                zmq.DEALER,
                f"{self.name}-client",
                connections=[get_connection(self.config.router_frontend)],
                options=self.config.client_option,
            )
        return await self._own(Client(node))

    async def make_service(self, handler: Handler, node: Node | None = None) -> Service:
        """A service that answers remote calls, running; without a node it goes over the router."""
        if node is None:
            node = SocketNode(
                zmq.DEALER,
                f"{self.name}-service",
                connections=[get_connection(self.config.router_backend)],
                options=self.config.service_option,
            )
        service = Service(node, handler, concurrency=self.config.service_workers, threads=self._threads)
        await self.nursery.start(service.run)
        return service

    async def make_control_service(self, handler: Handler) -> Service:
        """A service that receives gamepad updates from the driver's station."""
        node = DatagramNode.from_address(self.config.control_addr, bind=True)
        if self.gate is None:
            return await self.make_service(handler, node)
        required = self.gate.guards(self.config.control_addr)
        return await self.make_service(handler, VerifyingNode(node, self.gate.keyring, required=required))

    async def make_control_client(self) -> Client:
        """A client that sends gamepad updates, as the driver's station does."""
        return await self.make_client(DatagramNode.from_address(self.config.control_addr, bind=False))

    async def make_update_service(self, handler: Handler) -> Service:
        """A service that receives device updates."""
        return await self.make_service(handler, self._update_node(bind=True))

    async def make_update_node(self) -> DatagramNode:
        """Where device updates are sent."""
        return await self._own(self._update_node(bind=False))

    async def make_log_forwarder(self) -> LogHub:
        """The log hub: publishes what this process logs, and what other processes hand in; running, behind the gate if there is one.

        Raises:
            InstanceBusyError: Somebody else holds one of its addresses.
        """
        hub = LogHub(self.config.log_frontend, self.config.log_backend, gate=self.gate)
        await self.nursery.start(hub.run)
        return hub

    async def make_log_publisher(self) -> LogPublisher:
        """Hands what this process logs in at the robot's log hub; running.

        For processes that are no children of the root, whose log it reads anyway. Waits up to 1 s for the hub; without one it goes
        on, and what is logged until there is one is lost.
        """
        publisher = LogPublisher(get_connection(self.config.log_backend))
        await self.nursery.start(publisher.run)
        return publisher

    async def make_log_subscriber(self, handler: Handler, *, level: str | None = None) -> Service:
        """A service that is given the robot's log events, running; what is published before it has connected, it misses.

        Args:
            handler: Its methods are named by level and take an event, a dict; of a level without a method nothing comes.
            level: The least severity that is wanted; that of the options by default.
        """
        least = log.LEVELS[level or self.config.log_level]
        routes = handler.routes()
        options: dict[int, int | bytes] = {zmq.RCVHWM: QUEUE_EVENTS}
        node = SocketNode(
            zmq.SUB,
            connections=[get_connection(self.config.log_frontend)],
            subscriptions=[name for name, severity in log.LEVELS.items() if name in routes and severity >= least],
            options=options,
        )
        # Warnings only: if this process hands in its own log, a refused event would be told by one that is refused too.
        logger = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(log.LEVELS["warning"]))
        service = Service(node, handler, concurrency=self.config.service_workers, logger=logger, threads=self._threads)
        await self.nursery.start(service.run)
        return service

    def report_health(self) -> None:
        """Say in the log every ``health_check_interval`` how this process is."""
        self.nursery.start_soon(self._report_health)

    async def _report_health(self) -> None:
        while True:
            await trio.sleep(self.config.health_check_interval)
            tasks = trio.lowlevel.current_statistics().tasks_living
            self.logger.debug("health", process=self.name, tasks=tasks, threads=threading.active_count())

    async def _own(self, resource: contextlib.AbstractAsyncContextManager[T]) -> T:
        """Keep something open in a task of its own, so that any task of the process may ask for it."""

        async def hold(task_status: trio.TaskStatus[T]) -> None:
            async with resource as opened:
                task_status.started(opened)
                await trio.sleep_forever()

        opened: T = await self.nursery.start(hold)
        return opened

    def _update_node(self, *, bind: bool) -> DatagramNode:
        interface = interface_of(self.config.bind)
        return DatagramNode.from_address(self.config.update_addr, bind=bind, interface=interface)


def child_command(role: str) -> tuple[str, ...]:
    """The command that starts this executable again as a child of that role."""
    if getattr(sys, "frozen", False):
        return (sys.executable, "_child", role, LIFELINE)
    return (sys.executable, "-P", "-m", "rt", "_child", role, LIFELINE)


def stdout_format(config: Config) -> str:
    """The log format on stdout: what the option says, or pretty on a terminal and JSON elsewhere."""
    if config.log_format != "auto":
        return config.log_format
    return "pretty" if sys.stdout.isatty() else "json"


__all__ = ["Application", "ChildSettings", "child_command", "stdout_format"]
