"""Calls of the running robot, for checks that judge it and not only the options of a directory."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rt.config import Config
from rt.errors import RuntimeBaseException

if TYPE_CHECKING:
    from rt.instance import Instance

_ANSWER_TIMEOUT = 5.0
"""How long a running robot may take to answer, in s."""


def ask(robot: "Instance", method: str) -> Any:
    """Call a method of a robot's broker and return the result.

    Raises:
        RemoteCallError: The robot does not answer.
    """
    import trio
    import zmq

    from rt.remote import Client, SocketNode

    async def call() -> Any:
        router = f"ipc://{robot.path('router-frontend.sock')}"
        async with Client(
            SocketNode(zmq.DEALER, f"doctor-{secrets.token_hex(4)}", connections=[router])
        ) as client:
            return await client.issue_call(
                method, address="broker-service", timeout=_ANSWER_TIMEOUT
            )

    return trio.run(call)


def running_config(name: str) -> Config | None:
    """Return the options of the robot that runs as an instance.

    None if no robot runs, or if it does not answer.
    """
    from rt.instance import Instance

    try:
        robot = Instance.locate(name)
        holder = robot.holder()
        if holder is None or is_stopped(holder.pid):
            return None
        return msgspec.convert(ask(robot, "get_option"), Config, strict=False)
    except (RuntimeBaseException, OSError, msgspec.ValidationError):  # the checks say what is wrong
        return None


def is_stopped(pid: int) -> bool:
    """Return whether a process is stopped by a signal (proc(5), state T)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] == ["T"]
