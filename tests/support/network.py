"""Another machine on the network: a network namespace that is connected by a veth pair."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
import trio
from support.robot import PATIENCE, Robot

STATION = Path(__file__).parent / "station.py"


class Elsewhere:
    """A network namespace that reaches this machine at the address `here`.

    Attributes:
        here: Address of this machine on the connecting network.
        command: Command prefix that runs a program in the namespace.
    """

    def __init__(self, ip: str, name: str, here: str) -> None:
        self.here = here
        self.command = (ip, "netns", "exec", name)

    async def run(self, robot: Robot, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace, and wait for its end."""
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [*self.command, *arguments],
                cwd=robot.folder / "empty",
                env=robot.environment,
                stdin=b"",
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    async def call(
        self, robot: Robot, *arguments: str, key: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `rt call` in the namespace."""
        flags = [
            "--robot",
            f"tcp://{self.here}:{robot.port_base}",
            *(["--key", key] if key else []),
        ]
        return await self.run(robot, *robot.arguments("call", *flags, *arguments))

    def station(self, robot: Robot, *arguments: str) -> Sequence[str]:
        """Return the command that runs `support/station.py`."""
        return (sys.executable, str(STATION), self.here, str(robot.port_base), *arguments)

    @contextlib.asynccontextmanager
    async def driving(self, robot: Robot, *arguments: str) -> AsyncIterator[None]:
        """Run a driving station in the namespace during the block."""
        process = await trio.lowlevel.open_process(
            [*self.command, *self.station(robot, "drive", *arguments)], cwd=robot.folder / "empty"
        )
        try:
            yield
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


@contextlib.contextmanager
def elsewhere() -> Iterator[Elsewhere]:
    """Create a network namespace and remove it afterwards; skip the test if that is impossible."""
    ip = shutil.which("ip")
    if ip is None or os.geteuid() != 0:
        pytest.skip("network namespaces require root and ip of iproute2")
    token = secrets.token_hex(4)
    name, near, far = f"rt-{token}", f"rtn{token}", f"rtf{token}"
    net = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(256)}"
    last = 4 * secrets.randbelow(63)
    here, there = f"{net}.{last + 1}", f"{net}.{last + 2}"

    def run(*arguments: str) -> None:
        subprocess.run([ip, *arguments], check=True, capture_output=True, timeout=20)

    try:
        run("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"cannot create a network namespace: {error.stderr.decode().strip()}")
    try:
        run("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("addr", "add", f"{here}/30", "dev", near)
        run("link", "set", near, "up")
        run("-n", name, "addr", "add", f"{there}/30", "dev", far)
        run("-n", name, "link", "set", far, "up")
        yield Elsewhere(ip, name, here)
    finally:
        # Deleting the namespace removes the pair too, but asynchronously.
        subprocess.run([ip, "link", "del", near], check=False, capture_output=True, timeout=20)
        run("netns", "del", name)
