"""How a verb reaches the running robot: a client over the router's ipc socket, named apart from all others."""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import trio

from rt import log
from rt.app import Application
from rt.buffer.visitor import visit
from rt.config import Config
from rt.errors import RemoteCallError
from rt.instance import Instance
from rt.remote import Client

SERVICES = ("broker-service", "device-service", "executor-service")
DESCRIBE_TIMEOUT = 2.0


class Link:
    """A verb's way to the robot.

    Attributes:
        client: Makes calls.
        app: Makes buffers; closed with the link.
        instance: The robot.
    """

    def __init__(self, app: Application, client: Client, instance: Instance) -> None:
        self.app = app
        self.client = client
        self.instance = instance

    async def describe(self) -> dict[str, dict[str, Any]]:
        """The methods of each service that answers."""
        found: dict[str, dict[str, Any]] = {}

        async def ask(service: str) -> None:
            with contextlib.suppress(RemoteCallError):
                found[service] = await self.client.issue_call("describe", address=service, timeout=DESCRIBE_TIMEOUT)

        async with trio.open_nursery() as nursery:
            for service in SERVICES:
                nursery.start_soon(ask, service)
        return {service: found[service] for service in SERVICES if service in found}


@contextlib.asynccontextmanager
async def connect(config: Config, *, visiting: bool = False) -> AsyncIterator[Link]:
    """Connect to the robot of an instance.

    Args:
        config: The options; says which instance.
        visiting: Whether to take a seat in the robot, which writing and waiting for changes need.

    Raises:
        InstanceAbsentError: No robot runs as that instance.
        DeviceBufferError: There is no free seat.
    """
    instance = Instance.locate(config.instance)
    instance.require()
    resolved = config.resolved(instance.directory)
    name = f"cli-{os.getpid()}-{secrets.token_hex(3)}"
    async with contextlib.AsyncExitStack() as stack:
        visitor = await stack.enter_async_context(visit(instance.directory)) if visiting else None
        app = Application(
            name,
            resolved,
            shm_prefix=instance.shm_prefix,
            doorbell=visitor.doorbell if visitor else None,
            bells=visitor.bells if visitor else None,
        )
        await stack.enter_async_context(app)
        yield Link(app, await app.make_client(), instance)


def run(config: Config, function: Callable[[Link], Any], *, visiting: bool = False) -> Any:
    """Run an async function with a link to the robot and return its result; `connect` tells of ``visiting``."""
    log.configure(level="error", fmt="pretty")

    async def main() -> Any:
        async with connect(config, visiting=visiting) as link:
            return await function(link)

    return trio.run(main)
