"""A robot open to the network admits stations with a key and refuses strangers."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import trio
from support import station
from support.network import Elsewhere, elsewhere
from support.robot import PATIENCE, Device, Robot

pytestmark = pytest.mark.system

LOOK_INTERVAL = 0.02


@pytest.fixture
def remote() -> Iterator[Elsewhere]:
    with elsewhere() as machine:
        yield machine


async def opened(robot: Robot, *stations: str) -> Device:
    """Start the robot for these stations, with a motor that follows the stick."""
    motor = Device("polar-bear")
    for name in stations:
        done = await robot.command("keys", "new", name)
        assert done.returncode == 0, done.stderr
    await robot.start("--bind", "0.0.0.0")
    await robot.logged("open to the network for stations with a key", stations=sorted(stations))
    await robot.logged("device updates sent to the network")
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    return motor


async def counted(robot: Robot, verdict: str, count: int) -> dict[str, Any]:
    """Wait until this many control datagrams had a verdict; return the state of stations."""
    with trio.fail_after(PATIENCE):
        while True:
            report: dict[str, Any] = await robot.call("stations")
            if report["datagrams"][verdict] >= count:
                return report
            await trio.sleep(LOOK_INTERVAL)


async def test_stranger_is_refused_on_every_port(robot: Robot, remote: Elsewhere) -> None:
    motor = await opened(robot, "blue")
    await robot.call("teleop")

    done = await remote.call(robot, "mode")
    assert (done.returncode, done.stdout) == (1, "")
    assert "requires a key" in done.stderr

    done = await robot.command(
        "keys", "new", "blue", "--keys-dir", "other", "--output", "other.rtkey"
    )
    assert done.returncode == 0, done.stderr
    done = await remote.call(robot, "mode", key="other.rtkey")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did not accept the key of 'blue'" in done.stderr

    for what in ("listen", "plug"):
        done = await remote.run(robot, *remote.station(robot, what))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr

    async with remote.driving(robot, "1.0"):
        report = await counted(robot, "unsigned", 50)
    assert report["datagrams"]["obeyed"] == 0
    async with remote.driving(robot, "1.0", "other.rtkey"):
        report = await counted(robot, "unknown", 50)
    assert report["datagrams"]["obeyed"] == 0
    assert motor.emulated.values["duty_cycle"] == 0.0
    await robot.logged("control datagram dropped")


async def test_station_drives_with_its_key_until_revoked(robot: Robot, remote: Elsewhere) -> None:
    motor = await opened(robot, "blue", "red")
    root = robot.root()

    done = await remote.call(robot, "teleop", key="blue.rtkey")
    assert done.returncode == 0, done.stderr
    async with remote.driving(robot, "0.5", "blue.rtkey"):
        since = await motor.written(duty_cycle=0.5)
        done = await robot.command("keys", "revoke", "blue")
        assert done.returncode == 0, done.stderr
        await robot.logged("keys revoked", stations=["blue"])
        # It continues to send, but counts as silent.
        since = await motor.written(duty_cycle=0.0, since=since)
        await counted(robot, "unknown", 20)
    done = await remote.call(robot, "mode", key="blue.rtkey")
    assert done.returncode == 1
    assert "the key of 'blue' is unknown to the robot" in done.stderr

    async with remote.driving(robot, "0.25", "red.rtkey"):
        await motor.written(duty_cycle=0.25, since=since)
    done = await remote.call(robot, "idle", key="red.rtkey")
    assert done.returncode == 0, done.stderr
    assert robot.root() == root


async def test_second_station_commands_nothing_until_it_takes_control(
    robot: Robot, remote: Elsewhere
) -> None:
    motor = await opened(robot, "blue", "red")
    await robot.call("teleop")
    async with remote.driving(robot, "0.5", "blue.rtkey"):
        await motor.written(duty_cycle=0.5)
        async with remote.driving(robot, "-0.5", "red.rtkey"):
            await robot.logged("gamepad update refused", station="red", commander="blue")
            for method, arguments in (
                ("teleop", ()),
                ("auto", ()),
                ("execute", ('[{"func": "teleop_main"}]',)),
            ):
                done = await remote.call(robot, method, *arguments, key="red.rtkey")
                assert done.returncode == 1
                assert (
                    "blue has control of the robot, not red; `rt call take_control` at that station, or "
                    in done.stderr
                )
            done = await remote.call(robot, "take_control", "blue", key="red.rtkey")
            assert "station red can take control for itself only" in done.stderr
            done = await remote.call(robot, "release_control", key="red.rtkey")
            assert "only the station in control can release it" in done.stderr
            assert await robot.call("mode") == "teleop"

            since = len(motor.messages)
            done = await remote.call(robot, "take_control", key="red.rtkey")
            assert done.returncode == 0, done.stderr
            await robot.logged("control taken over", station="red", former="blue")
            await motor.written(duty_cycle=-0.5, since=since)
            assert (await robot.call("stations"))["commander"] == "red"
            done = await remote.call(robot, "teleop", key="blue.rtkey")
            assert "red has control of the robot, not blue" in done.stderr
            done = await remote.call(robot, "idle", key="blue.rtkey")
            assert done.returncode == 0, done.stderr
            await motor.disabled(since)
            assert await robot.call("mode") == "idle"


async def test_replayed_and_forged_gamepads_are_dropped_and_counted(
    robot: Robot, remote: Elsewhere
) -> None:
    motor = await opened(robot, "blue")
    await robot.call("teleop")
    done = await remote.run(robot, *remote.station(robot, "attack", "blue.rtkey"))
    assert done.returncode == 0, done.stderr
    for verdict in ("replayed", "forged", "unknown", "unsigned"):
        report = await counted(robot, verdict, station.COPIES)
    assert report["datagrams"]["obeyed"] == 1
    assert motor.emulated.values["duty_cycle"] == 0.0


async def test_station_receives_the_log(robot: Robot, remote: Elsewhere) -> None:
    await opened(robot, "blue")
    async with remote.driving(robot, "0.0", "blue.rtkey"), trio.open_nursery() as nursery:
        nursery.start_soon(chatter, robot, enough := trio.Event())
        done = await remote.run(robot, *remote.station(robot, "listen", "blue.rtkey"))
        assert "event" in done.stdout, done.stderr
        watching = robot.arguments(
            "logs", "--robot", f"tcp://{remote.here}:{robot.port_base}", "--key", "blue.rtkey"
        )
        done = await remote.run(robot, "sh", "-c", f"{shlex.join(watching)} | head -n 1")
        assert done.stdout, done.stderr
        enough.set()
    await robot.command("keys", "new", "blue", "--keys-dir", "other", "--output", "other.rtkey")
    done = await remote.run(robot, *watching[:-1], "other.rtkey")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


async def chatter(robot: Robot, enough: trio.Event) -> None:
    """Cause log events of the robot."""
    while not enough.is_set():
        await robot.call("teleop")
        await robot.call("idle")
        await trio.sleep(10 * LOOK_INTERVAL)


async def test_open_robot_without_keys_does_not_start(robot: Robot) -> None:
    for flags in (
        ["--bind", "0.0.0.0"],
        ["--bind", "0.0.0.0", "--dev-vsd-addr", "tcp://{bind}:{port4}"],
    ):
        done = await robot.command("run", "--port-base", str(robot.port_base), *flags)
        assert done.returncode == 78
        assert "`rt keys new NAME`" in done.stderr
        assert "--insecure" in done.stderr
    done = await robot.command("doctor", "--json", "--only", "keys", "--bind", "0.0.0.0")
    (finding,) = json.loads(done.stdout)
    assert (finding["status"], "rt keys new NAME" in finding["fact"]) == ("fail", True)


async def test_insecure_robot_warns_and_admits_everyone(robot: Robot) -> None:
    await robot.start("--bind", "0.0.0.0", "--insecure")
    said = await robot.logged("open to the network without keys (insecure)")
    assert said["level"] == "warning"
    done = await robot.command("call", "--robot", f"tcp://127.0.0.1:{robot.port_base}", "mode")
    assert (done.returncode, done.stdout) == (0, '"idle"\n'), done.stderr
    done = await robot.command(
        "doctor", "--json", "--only", "keys", "--bind", "0.0.0.0", "--insecure"
    )
    (finding,) = json.loads(done.stdout)
    assert (finding["status"], "insecure" in finding["fact"]) == ("warn", True)


async def test_remote_emergency_stop_is_answered(robot: Robot) -> None:
    done = await robot.command("keys", "new", "blue")
    await robot.start("--bind", "0.0.0.0")
    done = await robot.command(
        "call", "--robot", f"tcp://127.0.0.1:{robot.port_base}", "--key", "blue.rtkey", "estop"
    )
    assert done.returncode == 0, done.stderr
    assert await robot.wait() == 255
