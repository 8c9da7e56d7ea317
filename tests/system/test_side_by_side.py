"""Two robots on one machine do not affect each other."""

import contextlib
import signal
import subprocess
from collections.abc import AsyncIterator

import pytest
import trio
from support.robot import Device, Robot

from rt.instance import Instance
from rt.protocol import datagrams
from rt.protocol.datagrams import GamepadState
from rt.remote import DatagramNode

pytestmark = pytest.mark.system

UPDATES = 15


async def devices_heard(robot: Robot) -> set[int]:
    """Return the devices in some updates of a robot."""
    heard: set[int] = set()
    node = DatagramNode.from_address(f"udp://224.1.1.1:{robot.port_base + 3}", bind=True)
    with trio.fail_after(40):
        async with node:
            for _ in range(UPDATES):
                heard |= datagrams.decode_devices((await node.recv())[1]).keys()
    return heard


async def test_two_robots_share_no_devices_calls_gamepads_or_updates(
    robot: Robot, neighbour: Robot
) -> None:
    ours, theirs = Device("polar-bear", 1), Device("polar-bear", 2)
    config = neighbour.folder / "empty" / "rt.toml"
    neighbour.write("rt.toml", config.read_text().replace(str(ours.uid), str(theirs.uid)))
    for each, motor in ((robot, ours), (neighbour, theirs)):
        await each.start()
        await each.plug_tcp(motor)
        await each.connected(motor)

    assert set(robot.devices()) == await devices_heard(robot) == {ours.uid}
    assert set(neighbour.devices()) == await devices_heard(neighbour) == {theirs.uid}

    await robot.call("teleop")
    assert (await robot.call("mode"), await neighbour.call("mode")) == ("teleop", "idle")
    await neighbour.call("teleop")
    async with trio.open_nursery() as driver:
        driver.start_soon(robot.drive, GamepadState(0.0, 0.5, 0.0, 0.0, 0))
        await ours.written(duty_cycle=0.5)
        driver.start_soon(neighbour.drive, GamepadState(0.0, -0.25, 0.0, 0.0, 0))
        since = await theirs.written(duty_cycle=-0.25)
        assert not any(
            each.emulated.values["duty_cycle"] not in {0.5, -0.25} for each in (ours, theirs)
        )

        # Neither the death of one robot nor its next start, which removes stale files, affects the
        # other.
        assert robot.process is not None
        robot.process.send_signal(signal.SIGKILL)
        await robot.wait()
        await robot.wait_all_exited()
        await robot.start()
        assert await neighbour.call("mode") == "teleop"
        assert theirs.emulated.values["duty_cycle"] == -0.25
        driver.cancel_scope.cancel()
    await theirs.written(duty_cycle=0.0, since=since)
    assert await robot.call("mode") == "idle"


async def test_emulated_devices_connect_to_the_named_robot(robot: Robot, neighbour: Robot) -> None:
    neighbour.environment["XDG_RUNTIME_DIR"] = robot.environment["XDG_RUNTIME_DIR"]
    neighbour.instance = Instance.locate(neighbour.name, neighbour.environment)
    await robot.start()
    # The options of this directory have the address of the first robot, whatever is named.
    robot.write("rt.toml", f"port_base = {robot.port_base}\n")
    done = await robot.command("emulate-dev", "--instance", neighbour.name, "polar-bear@2")
    assert done.returncode == 1
    address = f"tcp://127.0.0.1:{robot.port_base + 4}"
    assert (
        f"no robot runs as {neighbour.name!r}, and {address} is the address of {robot.name!r};"
        in done.stderr
    )

    await neighbour.start()
    async with emulating(robot, "--instance", neighbour.name, "polar-bear@2"):
        await neighbour.logged("device connected", uid=str(12 << 72 | 2))
    async with emulating(
        robot, "--instance", neighbour.name, "--port-base", str(robot.port_base), "polar-bear@3"
    ):
        await robot.logged("device connected", uid=str(12 << 72 | 3))
    robot.write("rt.toml", f"port_base = {neighbour.port_base}\n")
    async with emulating(robot, "polar-bear@4"):
        await robot.logged("device connected", uid=str(12 << 72 | 4))
    connected = [entry["uid"] for entry in robot.log if entry["event"] == "device connected"]
    assert connected == [str(12 << 72 | 3), str(12 << 72 | 4)]
    assert await robot.stop() == 0
    assert await neighbour.stop() == 0


@contextlib.asynccontextmanager
async def emulating(robot: Robot, *arguments: str) -> AsyncIterator[None]:
    """Run `rt emulate-dev` in the folder of a robot."""
    process = await trio.lowlevel.open_process(
        robot.arguments("emulate-dev", *arguments),
        cwd=robot.folder / "empty",
        env=robot.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        with trio.CancelScope(shield=True):
            process.terminate()
            await process.wait()
