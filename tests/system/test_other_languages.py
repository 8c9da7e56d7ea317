"""Clients that share only the specification with rt call a robot."""

import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support.robot import PATIENCE, Device, Robot
from support.tiny_rpc import TinyClient, pack, unpack

from rt.protocol import rpc

NODE = Path(__file__).parents[1] / "node"

plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20)
    ),
    max_leaves=20,
)


@given(st.lists(plain, max_size=3))
def test_two_implementations_encode_messages_alike(params: list[Any]) -> None:
    assert rpc.decode(pack([0, 7, "m", params])) == rpc.Request(7, "m", params)
    assert unpack(rpc.encode(rpc.Notification("m", params))) == [2, "m", params]
    assert rpc.decode(pack([1, 7, ["no", {"at": params}], None])) == rpc.Response(
        7, ("no", {"at": params}), None
    )


@pytest.mark.system
async def test_second_implementation_calls_the_robot(robot: Robot) -> None:
    await robot.start()
    motor = Device("polar-bear")
    await robot.plug_tcp(motor)
    await robot.connected(motor)
    await in_thread(
        functools.partial(_call_everything, f"tcp://127.0.0.1:{robot.port_base}", str(motor.uid))
    )


def _call_everything(address: str, uid: str) -> None:
    with TinyClient(address) as client:
        assert client.hello() == [b"", b""]
        assert client.call("device-service", "list_uids") == (None, [uid])
        for service in ("broker-service", "device-service", "executor-service"):
            error, methods = client.call(service, "describe")
            assert error is None
            assert {"signature", "doc", "arguments", "result"} <= set(methods["describe"])
        for mode in ("teleop", "idle"):
            assert client.call("executor-service", mode) == (None, None)
            assert client.call("executor-service", "mode") == (None, mode)
        (message, context), result = client.call("device-service", "read", 5)
        assert message == "read: argument uid came as 5: Expected `str`, got `int`"
        assert (context["argument"], context["method"], result) == ("uid", "read", None)
        (message, context), _ = client.call("devic-service", "ping")
        assert message == "there is no service devic-service; did you mean device-service?"
        assert context == {"address": "devic-service", "method": "ping"}
        (message, _), _ = client.call("device-service", "pong")
        assert message == "there is no method pong; did you mean ping?"
        # An answer to the notification would precede the answer to the later call.
        client.notify("device-service", "ping")
        client.notify("device-service", "no such method", 1)
        client.notify("device-service", "$cancel", 1)
        assert client.call("executor-service", "mode") == (None, "idle")
        assert client.call("device-service", "list_uids") == (None, [uid])
        # Only peers that announce it are notified of ended services: each answer is the next
        # message.
        _, children = client.call("broker-service", "status")
        (child,) = [each for each in children if each["name"] == "device"]
        os.kill(child["pid"], signal.SIGKILL)
        while _pid_of_device(client) in {None, child["pid"]}:
            time.sleep(0.01)
        while client.call("device-service", "list_uids") != (None, [uid]):
            time.sleep(0.01)


def _pid_of_device(client: TinyClient) -> int | None:
    _, children = client.call("broker-service", "status")
    return next(
        (each["pid"] for each in children if each["name"] == "device" and each["state"] == "ready"),
        None,
    )


@pytest.fixture(scope="module")
def node_home() -> Iterator[Path]:
    """A directory with the packages of Node.js; skips the test if they are unavailable."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    with tempfile.TemporaryDirectory(prefix="rt-node-") as folder:
        shutil.copy(NODE / "package.json", folder)
        command = [
            "npm",
            "install",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--fetch-retries=0",
        ]
        try:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=180, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip("npm took longer than 180 s to install zeromq and @msgpack/msgpack")
        if done.returncode:
            pytest.skip(
                f"npm cannot install zeromq and @msgpack/msgpack: {done.stderr.strip()[:200]}"
            )
        yield Path(folder)


@pytest.mark.system
async def test_node_program_calls_the_robot(robot: Robot, node_home: Path) -> None:
    await robot.start()
    address = f"tcp://127.0.0.1:{robot.port_base}"
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            ["node", str(NODE / "client.mjs"), address, str(node_home)],
            env={"PATH": os.environ["PATH"]},
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr.decode()
    learned = json.loads(done.stdout)
    assert learned["list_uids"] == {"error": None, "result": []}
    assert learned["describe"] == sorted(
        ["auto", "describe", "estop", "execute", "idle", "mode", "teleop"]
    )
    assert learned["teleop"] == learned["idle"] == {"error": None, "result": None}
    assert (learned["mode"]["result"], learned["afterNotification"]["result"]) == ("teleop", "idle")
    message, context = learned["wrong"]["error"]
    assert message == "read: argument uid came as 5: Expected `str`, got `int`"
    assert context["argument"] == "uid"
    assert "there is no service nobody-service" in learned["absent"]["error"][0]
    assert learned["afterRestart"] == {"error": None, "result": []}


async def in_thread(function: Callable[[], None]) -> None:
    with trio.fail_after(PATIENCE):
        await trio.to_thread.run_sync(function)
