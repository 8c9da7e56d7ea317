"""Connections of commands to a robot: through the ipc socket of its router, or over the network."""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import Enum, auto
from pathlib import Path
from typing import Any

import trio
import zmq

from rt import log
from rt.access.probe import probe
from rt.access.station_key import StationKey
from rt.app import Application
from rt.buffer import session
from rt.client.target import RemoteTarget
from rt.config import Config, load
from rt.errors import RemoteCallError
from rt.instance import Instance
from rt.remote import Client, SocketNode

SERVICES = ("broker-service", "device-service", "executor-service")
DESCRIBE_TIMEOUT = 2.0
_CHECK_INTERVAL = 0.05
_PROBE_TIMEOUT = 1.0


class Access(Enum):
    """What a command needs of the robot."""

    CALLS = auto()
    """Calls."""
    BUFFERS = auto()
    """Calls, and reading buffers."""
    SESSION = auto()
    """Calls, buffers and a slot, which writing and waiting for changes need."""


class Connection:
    """A connection of a command to a robot.

    Attributes:
        client: The RPC client.
        app: The application that opens buffers; closed with the connection.
        instance: The instance of the robot. For a robot on another machine, the instance that the
            options name on this machine.
    """

    def __init__(
        self,
        app: Application,
        client: Client,
        instance: Instance,
        is_running: Callable[[], Awaitable[bool]],
    ) -> None:
        self.app = app
        self.client = client
        self.instance = instance
        self._is_running = is_running

    async def wait_until_ended(self, limit: float) -> bool:
        """Wait for the end of the robot, at most ``limit`` s, and return whether it has ended."""
        with trio.move_on_after(limit):
            while await self._is_running():  # noqa: ASYNC110 - no event from another process
                await trio.sleep(_CHECK_INTERVAL)
        return not await self._is_running()

    async def describe(self) -> dict[str, dict[str, Any]]:
        """Return the methods of each service that answers."""
        found: dict[str, dict[str, Any]] = {}

        async def ask(service: str) -> None:
            with contextlib.suppress(RemoteCallError):
                found[service] = await self.client.issue_call(
                    "describe", address=service, timeout=DESCRIBE_TIMEOUT
                )

        async with trio.open_nursery() as nursery:
            for service in SERVICES:
                nursery.start_soon(ask, service)
        return {service: found[service] for service in SERVICES if service in found}


@contextlib.asynccontextmanager
async def connect(
    instance: str | None = None, *, address: str | None = None, key: Path | None = None
) -> AsyncIterator[Connection]:
    """Connect to a running robot, as `rt call` does.

    Args:
        instance: The name of a robot on this machine. The default is RT_INSTANCE, or ``default``.
        address: ``tcp://HOST:PORT`` of the router of a robot on another machine, in place of
            `instance`.
        key: The file with this station's key for that robot, or None for a robot without keys.

    Raises:
        InstanceAbsentError: No robot runs as this instance.
        RemoteCallError: The robot at the address does not answer, or refuses this station.
        ConfigError: The address or the key is invalid.

    Examples:
        ::

            async with rt.connect() as robot:
                await robot.client.issue_call("auto", address="executor-service")
    """
    flags = {} if instance is None else {"instance": instance}
    loaded = load(flags=flags, cwd=Path(os.devnull)).config
    remote = (
        None if address is None else RemoteTarget(address, StationKey.load(key) if key else None)
    )
    async with open_remote(loaded, remote) if remote else open_local(loaded) as connection:
        yield connection


@contextlib.asynccontextmanager
async def open_local(config: Config, *, access: Access = Access.CALLS) -> AsyncIterator[Connection]:
    """Connect to a robot on this machine.

    Args:
        config: The options, which name the instance.
        access: What the caller needs of the robot.

    Raises:
        InstanceAbsentError: No robot runs as that instance.
        DeviceBufferError: All slots are taken.
    """
    instance = Instance.locate(config.instance)
    instance.require()
    resolved = config.resolved(instance.directory)
    async with contextlib.AsyncExitStack() as stack:
        prefix, write_event, wakeups = "", None, None
        if access is Access.BUFFERS:
            prefix = await stack.enter_async_context(session.read(instance.directory))
        elif access is Access.SESSION:
            open_session = await stack.enter_async_context(session.open_session(instance.directory))
            prefix, write_event, wakeups = (
                open_session.prefix,
                open_session.write_event,
                open_session.wakeups,
            )
        app = Application(
            _name(),
            resolved,
            shm_prefix=prefix,
            write_event=write_event,
            wakeups=wakeups,
            signals=False,
        )
        await stack.enter_async_context(app)

        async def is_running() -> bool:
            await trio.lowlevel.checkpoint()
            return instance.holder() is not None

        yield Connection(app, await app.make_client(), instance, is_running)


@contextlib.asynccontextmanager
async def open_remote(config: Config, remote: RemoteTarget) -> AsyncIterator[Connection]:
    """Connect to a robot on another machine.

    Raises:
        RemoteCallError: The robot does not answer, or refuses this station. The error says why.
        ConfigError: The address is invalid.
    """
    await probe(remote.address, remote.station_key)
    async with Application(_name(), config, signals=False) as app:

        async def is_running() -> bool:
            try:
                await probe(remote.address, remote.station_key, timeout=_PROBE_TIMEOUT)
            except RemoteCallError:
                return False
            return True

        node = SocketNode(
            zmq.DEALER,
            f"{app.name}-client",
            connections=[remote.address],
            options={**config.client_option, **remote.options()},
        )
        yield Connection(
            app, await app.make_client(node), Instance.locate(config.instance), is_running
        )


def _name() -> str:
    return f"cli-{os.getpid()}-{secrets.token_hex(3)}"


def run(
    config: Config,
    function: Callable[[Connection], Any],
    *,
    access: Access = Access.CALLS,
    remote: RemoteTarget | None = None,
) -> Any:
    """Run an async function with a connection to the robot and return its result.

    Args:
        config: The options, which name the instance.
        function: The function, called with the connection.
        access: See `open_local`.
        remote: The robot on another machine, or None for one on this machine.
    """
    log.configure(level="error", fmt="pretty")

    async def main() -> Any:
        async with (
            open_remote(config, remote) if remote else open_local(config, access=access) as link
        ):
            return await function(link)

    return trio.run(main)
