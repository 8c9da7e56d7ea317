"""The Application: what one process of rt opens and closes.

An Application owns the process's sockets, buffers and tasks. When it ends, its tasks end first, and then whatever it has made is
closed, in reverse order. An exception in any of its tasks ends it and reaches its owner, in a group as every nursery makes it; none
is only logged.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import trio

from rt import catalog, log
from rt.app import nodes
from rt.app.owner import TaskOwner
from rt.app.settings import ChildSettings
from rt.buffer import Bells, BufferStore, Doorbell, LeaseTable
from rt.catalog import Catalog
from rt.config import Config, is_open
from rt.diagnostics import report_health
from rt.keys import Keyring, key_place
from rt.remote import (
    Client,
    DatagramNode,
    DatagramPeers,
    Gate,
    Handler,
    LogHub,
    LogPublisher,
    Node,
    Router,
    Service,
    VerifyingNode,
)
from rt.remote.address import get_connection


class Application(TaskOwner):
    """Makes and owns what a process needs; an async context manager.

    SIGINT and SIGTERM cancel what runs in its block, once: the block is left in order, and `stopped` says why. That is so where
    the application runs in the main thread, and unless ``signals`` is off.

    >>> async def main(options: Config) -> None:
    ...     async with Application("my-app", options) as app:
    ...         client = await app.make_client()
    ...         await client.call.list_uids(address="device-service")

    Args:
        name: Unique among the robot's processes; the service of ``device`` is ``device-service``.
        options: The options, with addresses resolved.
        shm_prefix: What the names of this robot's shared memory begin with.
        doorbell: Rung by writes to devices.
        bells: Rung by changes of buffers; its seat is that of this process.
        signals: Whether it answers SIGINT and SIGTERM. rt's own processes do that themselves.

    Attributes:
        name: As above.
        config: As ``options`` above.
        logger: Where it logs.
        threads: The limit of the worker threads for plain functions, as many as the option `thread_pool_workers` says; for
            `trio.to_thread.run_sync`.
        stopped: Why `stop` was called, or None.
        steps: Counts the steps of its event loop that were too long; only with the option `debug`.
    """

    def __init__(
        self,
        name: str,
        options: Config,
        *,
        shm_prefix: str = "",
        doorbell: Doorbell | None = None,
        bells: Bells | None = None,
        signals: bool = True,
    ) -> None:
        super().__init__(name, signals=signals, debug=options.debug)
        self.config = options
        self.doorbell = doorbell
        self.bells = bells
        self.gate: Gate | None = None
        self.threads = trio.CapacityLimiter(options.thread_pool_workers)
        self._shm_prefix = shm_prefix
        self._clients = 0
        self._serves = False
        self._router: Router | None = None

    @classmethod
    def of_child(cls, settings: ChildSettings) -> Self:
        """The application of a child, named by its role; the child answers signals itself."""
        return cls(
            settings.role,
            settings.config,
            shm_prefix=settings.shm_prefix,
            doorbell=Doorbell(settings.doorbell),
            bells=Bells(settings.bells, seat=settings.seat) if settings.bells else None,
            signals=False,
        )

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
        self._held.enter_context(store)
        return store

    def make_lease_table(self, orders: memoryview | None = None) -> LeaseTable:
        """The leases on the robot's devices; for ``orders`` see `LeaseTable`."""
        return self._held.enter_context(LeaseTable.open(self._shm_prefix, orders=orders))

    async def make_gate(self) -> Gate:
        """The gate through which what is made afterwards listens: open to the network only for stations with a key.

        Raises:
            ConfigError: The directory of the keys cannot be used.
        """
        place = key_place(self.config.keys_dir, self.config.instance)
        self.gate = Gate(Keyring(place.directory), insecure=self.config.insecure)
        await self.nursery.start(self.gate.run)
        return self.gate

    async def make_router(self) -> Router:
        """A router between clients and services, bound and running.

        Raises:
            InstanceBusyError: Somebody else holds one of its addresses.
        """
        router = self._router = Router(self.config.router_frontend, self.config.router_backend, gate=self.gate)
        await self.nursery.start(router.run)
        return router

    async def make_client(self, node: Node | None = None) -> Client:
        """A client for remote calls, open until the application ends.

        Args:
            node: Through which it calls. By default a DEALER socket that is connected to the router's frontend and called
                ``NAME-client``; further ones are called ``NAME-client-2`` and so on.
        """
        if node is None:
            self._clients += 1
            identity = f"{self.name}-client" + (f"-{self._clients}" if self._clients > 1 else "")
            node = nodes.client_node(self.config, identity)
        return await self._own(Client(node))

    async def make_service(
        self,
        handler: Handler,
        node: Node | None = None,
        logger: log.Logger | None = None,
    ) -> Service:
        """A service that answers remote calls, running until the application ends; returns when calls can come in.

        Args:
            handler: What can be called.
            node: Where calls come in. By default a DEALER socket that is connected to the router's backend and called
                ``NAME-service``.
            logger: Where it logs; by default where the application does.

        Raises:
            RuntimeError: The application has its service at the router already.
            InstanceBusyError: The node's address is in use.
            TypeError, NameError: The signature of a route cannot be served.
        """
        if node is not None:
            return await self._serve(handler, node, logger)
        if self._serves:
            raise RuntimeError(f"{self.name}-service is there already; give another service a node of its own")
        self._serves = True
        try:
            return await self._serve(handler, self.make_service_node(f"{self.name}-service"), logger)
        except BaseException:
            self._serves = False  # it is not there: it may be asked for again
            raise

    def make_service_node(self, name: str, at_once: Mapping[str, Callable[[], None]] | None = None) -> Node:
        """Where calls of a service come in. Where the router is an application's own, no other process can take the name.

        Args:
            name: The name of the service.
            at_once: See `rt.remote.Router.at_once`; only where the router is this application's own.
        """
        if self._router is not None and at_once is not None:
            self._router.at_once(name, at_once)
        identity = name if self._router is None else self._router.reserve(name)
        return nodes.service_node(self.config, identity)

    async def make_control_service(self, handler: Handler) -> Service:
        """A service that receives gamepads from the driver's station.

        Behind a gate, an address on the network takes signed datagrams only, and one of the loopback interface takes unsigned
        ones of this user and root only.

        Args:
            handler: Has a route ``update_gamepads`` with one argument, ``{"0": {"lx": f, "ly": f, "rx": f, "ry": f, "btn":
                bits}}``; see `rt.protocol.control`.
        """
        node = nodes.control_node(self.config)
        if self.gate is None:
            return await self.make_service(handler, node)
        address = self.config.control_addr
        peers = None if is_open(address) else DatagramPeers()
        verifying = VerifyingNode(node, self.gate.keyring, required=self.gate.guards(address), peers=peers)
        return await self.make_service(handler, verifying)

    async def make_control_client(self) -> Client:
        """A client that sends gamepads, as the driver's station does, with ``notification=True``: nobody answers.

        ``client.node.refused`` says which station has control while the robot refuses these gamepads.
        """
        return await self.make_client(nodes.station_node(self.config))

    async def make_update_service(self, handler: Handler) -> Service:
        """A service that receives device updates.

        Args:
            handler: Has a route ``update`` with one argument, ``{"UID": {"PARAM": value, ...}, ...}``.
        """
        return await self.make_service(handler, nodes.update_node(self.config, bind=True))

    async def make_update_client(self) -> Client:
        """A client that sends device updates, as the broker does, with ``notification=True``: nobody answers."""
        return await self.make_client(nodes.update_node(self.config, bind=False))

    async def make_update_node(self) -> DatagramNode:
        """Where device updates are sent, for messages that are encoded already."""
        return await self._own(nodes.update_node(self.config, bind=False))

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
        node = nodes.log_node(self.config, handler.routes(), level or self.config.log_level)
        # Warnings only: if this process hands in its own log, a refused event would be told by one that is refused too.
        return await self.make_service(handler, node, log.get_logger("warning"))

    def report_health(self) -> None:
        """Say in the log every `health_check_interval` how this process is; see `rt.diagnostics`."""
        report = functools.partial(report_health, self.name, self.config.health_check_interval, self.steps)
        self.nursery.start_soon(report, name=f"health of {self.name}")

    async def _serve(self, handler: Handler, node: Node, logger: log.Logger | None) -> Service:
        service = Service(
            node,
            handler,
            concurrency=self.config.service_workers,
            logger=logger or self.logger,
            threads=self.threads,
        )
        await self.nursery.start(service.run)
        return service
