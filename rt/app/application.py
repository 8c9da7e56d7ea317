"""The application object, which owns the sockets, buffers and tasks of an rt process.

When it ends, its tasks end first, and then its resources are closed in reverse order. An exception
in one of its tasks ends it and propagates to its owner, in an exception group.
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import trio

from rt import catalog, log
from rt.access.authenticator import Authenticator
from rt.access.key_directory import key_directory
from rt.access.keyring import Keyring
from rt.access.peer import DatagramPeers
from rt.app import nodes
from rt.app.owner import TaskOwner
from rt.app.settings import ChildSettings
from rt.buffer import BufferStore, LeaseTable
from rt.buffer.wakeup import Wakeups
from rt.buffer.write_event import WriteEvent
from rt.catalog import Catalog
from rt.config import Config
from rt.config.network import is_open
from rt.diagnostics import report_health
from rt.logs.hub import LogHub, LogPublisher
from rt.remote import Client, DatagramNode, Handler, Node, Router, Service
from rt.remote.signed_node import VerifyingNode
from rt.transport.address import get_connection


class Application(TaskOwner):
    """An async context manager that creates and owns what a process needs.

    In the main thread, SIGINT and SIGTERM cancel its block once, unless ``signals`` is False;
    `stopped` contains the reason.

    >>> async def main(options: Config) -> None:
    ...     async with Application("my-app", options) as app:
    ...         client = await app.make_client()
    ...         await client.call.list_uids(address="device-service")

    Args:
        name: Unique among the robot's processes; the service of ``device`` is ``device-service``.
        options: The options, with resolved addresses.
        shm_prefix: The prefix of the names of the robot's shared memory.
        write_event: Signalled by writes to devices.
        wakeups: Signalled by changes of buffers; its slot is that of this process.
        signals: Whether it handles SIGINT and SIGTERM. rt's own processes do that themselves.

    Attributes:
        config: ``options``.
        logger: The logger.
        threads: The limiter for `trio.to_thread.run_sync`, with as many threads as the option
            `thread_pool_workers`.
        stopped: The reason that was passed to `stop`, or None.
        slow_tasks: Counts slow steps of the event loop; only with the option `debug`.
    """

    def __init__(
        self,
        name: str,
        options: Config,
        *,
        shm_prefix: str = "",
        write_event: WriteEvent | None = None,
        wakeups: Wakeups | None = None,
        signals: bool = True,
    ) -> None:
        super().__init__(name, signals=signals, debug=options.debug)
        self.config = options
        self.write_event = write_event
        self.wakeups = wakeups
        self.authenticator: Authenticator | None = None
        self.threads = trio.CapacityLimiter(options.thread_pool_workers)
        self._shm_prefix = shm_prefix
        self._clients = 0
        self._serves = False
        self._router: Router | None = None

    @classmethod
    def for_child(cls, settings: ChildSettings) -> Self:
        """Create the application of a child, named after its role; the child handles signals."""
        return cls(
            settings.role,
            settings.config,
            shm_prefix=settings.shm_prefix,
            write_event=WriteEvent(settings.write_event),
            wakeups=Wakeups(settings.wakeups, slot=settings.slot) if settings.wakeups else None,
            signals=False,
        )

    @functools.cached_property
    def catalog(self) -> Catalog:
        """The catalog of peripherals.

        Raises:
            CatalogError: The catalog is invalid.
        """
        return catalog.load(Path(self.config.dev_catalog) if self.config.dev_catalog else None)

    @property
    def names(self) -> dict[str, int]:
        """UIDs by the names that the team assigned."""
        return {name: int(uid) for name, uid in self.config.dev_name.items()}

    def make_buffer_manager(
        self, known: Catalog | None = None, *, shared: bool = True, lock_timeout: float = 0.0
    ) -> BufferStore:
        """Open the robot's buffers.

        Args:
            known: The catalog of the robot, if it is not that of the options.
            shared: Whether they are in shared memory.
            lock_timeout: How long to wait for a lock (s); 0 if only the event loop uses them.
        """
        store = BufferStore(
            self.catalog if known is None else known,
            self._shm_prefix,
            write_event=self.write_event,
            wakeups=self.wakeups,
            shared=shared,
            lock_timeout=lock_timeout,
        )
        self._resources.enter_context(store)
        return store

    def make_lease_table(self, orders: memoryview | None = None) -> LeaseTable:
        """Open the leases on the robot's devices; for ``orders`` see `LeaseTable`."""
        return self._resources.enter_context(LeaseTable.open(self._shm_prefix, orders=orders))

    async def make_authenticator(self) -> Authenticator:
        """Start the authenticator of all sockets that are opened afterwards.

        From the network, it admits only stations with a key.

        Raises:
            ConfigError: The key directory cannot be used.
        """
        keys = key_directory(self.config.keys_dir, self.config.instance)
        self.authenticator = Authenticator(Keyring(keys.directory), insecure=self.config.insecure)
        await self.nursery.start(self.authenticator.run)
        return self.authenticator

    async def make_router(self) -> Router:
        """Start a router between clients and services.

        Raises:
            InstanceBusyError: One of its addresses is in use.
        """
        router = self._router = Router(
            self.config.router_frontend,
            self.config.router_backend,
            authenticator=self.authenticator,
        )
        await self.nursery.start(router.run)
        return router

    async def make_client(self, node: Node | None = None) -> Client:
        """Open a client for remote calls until the application ends.

        Args:
            node: The node for the calls. By default a DEALER that is connected to the router's
                frontend, with the identity ``NAME-client``, then ``NAME-client-2`` and so on.
        """
        if node is None:
            self._clients += 1
            identity = f"{self.name}-client" + (f"-{self._clients}" if self._clients > 1 else "")
            node = nodes.client_node(self.config, identity)
        return await self._own(Client(node))

    async def make_service(
        self, handler: Handler, node: Node | None = None, logger: log.Logger | None = None
    ) -> Service:
        """Start a service for remote calls, which runs until the application ends.

        Args:
            handler: Has the routes that can be called.
            node: The node for the calls. By default a DEALER that is connected to the router's
                backend, with the identity ``NAME-service``.
            logger: By default the logger of the application.

        Raises:
            RuntimeError: The application already has a service at the router.
            InstanceBusyError: The node's address is in use.
            TypeError, NameError: The signature of a route is invalid.
        """
        is_own = node is None
        if node is None:
            if self._serves:
                raise RuntimeError(
                    f"{self.name}-service already exists; pass a node for another service"
                )
            self._serves = True
            node = self.make_service_node(f"{self.name}-service")
        try:
            service = Service(
                node,
                handler,
                concurrency=self.config.service_workers,
                logger=logger or self.logger,
                threads=self.threads,
            )
            await self.nursery.start(service.run)
        except BaseException:
            if is_own:
                self._serves = False  # it did not start, so the caller may try again
            raise
        return service

    def make_service_node(
        self, name: str, immediate: Mapping[str, Callable[[], None]] | None = None
    ) -> Node:
        """Return a node for the calls of a service.

        If the application has the router, no other process can take the name.

        Args:
            name: The name of the service.
            immediate: See `rt.remote.Router.set_immediate_calls`; ignored unless the application
                has the router.
        """
        if self._router is not None and immediate is not None:
            self._router.set_immediate_calls(name, immediate)
        identity = name if self._router is None else self._router.reserve(name)
        return nodes.service_node(self.config, identity)

    async def make_control_service(self, handler: Handler) -> Service:
        """Start a service that receives gamepads from the driver's station.

        With an authenticator, an address on the network accepts only signed datagrams. The loopback
        interface accepts unsigned ones from this user and from root.

        Args:
            handler: Has a route ``update_gamepads`` with one argument, ``{"0": {"lx": f, "ly": f,
                "rx": f, "ry": f, "btn": bits}}``; see `rt.protocol.datagrams`.
        """
        node = nodes.control_node(self.config)
        if self.authenticator is None:
            return await self.make_service(handler, node)
        address = self.config.control_addr
        peers = None if is_open(address) else DatagramPeers()
        verifying = VerifyingNode(
            node.host,
            node.port,
            self.authenticator.keyring,
            required=self.authenticator.requires_key(address),
            peers=peers,
        )
        return await self.make_service(handler, verifying)

    async def make_control_client(self) -> Client:
        """Open a client that sends gamepads as the driver's station does.

        Call with ``notification=True``, because there is no answer. ``client.node.refused`` names
        the station that has control while the robot refuses these gamepads.
        """
        return await self.make_client(nodes.station_node(self.config))

    async def make_update_service(self, handler: Handler) -> Service:
        """Start a service that receives device updates.

        Args:
            handler: Has a route ``update`` with one argument, ``{"UID": {"PARAM": value, ...},
                ...}``.
        """
        return await self.make_service(handler, nodes.update_node(self.config, bind=True))

    async def make_update_client(self) -> Client:
        """Open a client that sends device updates as the broker does.

        Call with ``notification=True``, because there is no answer.
        """
        return await self.make_client(nodes.update_node(self.config, bind=False))

    async def make_update_node(self) -> DatagramNode:
        """Open the node that sends device updates, for encoded messages."""
        return await self._own(nodes.update_node(self.config, bind=False))

    async def make_log_forwarder(self) -> LogHub:
        """Start the log hub, which publishes the log events of this and of other processes.

        It uses the authenticator, if there is one.

        Raises:
            InstanceBusyError: One of its addresses is in use.
        """
        hub = LogHub(
            self.config.log_frontend, self.config.log_backend, authenticator=self.authenticator
        )
        await self.nursery.start(hub.run)
        return hub

    async def make_log_publisher(self) -> LogPublisher:
        """Start to send the log events of this process to the robot's log hub.

        For processes other than children of the root, whose log the root reads. Waits up to 1 s for
        the hub. Without a hub, events are dropped until there is one.
        """
        publisher = LogPublisher(get_connection(self.config.log_backend))
        await self.nursery.start(publisher.run)
        return publisher

    async def make_log_subscriber(self, handler: Handler, *, level: str | None = None) -> Service:
        """Start a service that receives the robot's log events from now on.

        Args:
            handler: Has a method for each wanted level, named after the level, with the event (a
                dict) as its argument.
            level: The lowest wanted level; by default that of the options.
        """
        node = nodes.log_node(self.config, handler.routes(), level or self.config.log_level)
        # Warnings only: if this process sends its own log to the hub, each refused event would
        # cause another one.
        return await self.make_service(handler, node, log.get_logger("warning"))

    def report_health(self) -> None:
        """Log the health of this process every `health_check_interval`; see `rt.diagnostics`."""
        report = functools.partial(
            report_health, self.name, self.config.health_check_interval, self.slow_tasks
        )
        self.nursery.start_soon(report, name=f"health of {self.name}")
