"""Tests of the start of rt processes: few imports, and a quiet exit on an interrupt."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import rt

PROGRAM = """
import sys
sys.addaudithook(lambda event, _: print(event) if event == "subprocess.Popen" else None)
import rt.__main__
sys.argv = ["rt", "ping", "--help"]
rt.__main__.main()
assert "trio" in sys.modules
print("imported")
import ctypes.util
print("found", ctypes.util.find_library("pthread"), ctypes.util.find_library.__module__)
import threading, trio
names = []
def name(): names.append(open(f"/proc/self/task/{threading.get_native_id()}/comm").read().strip())
async def main():
    await trio.to_thread.run_sync(name, thread_name="a name")
trio.run(main)
print("thread", names[0])
"""

CHILD = """
import sys
from rt.startup import importing
with importing():
    import rt.root.entry
import rt.{package}.process
print(*sys.modules)
"""
BRAKE = """
import sys
import rt.__main__
import rt.brake.process
print(*sys.modules)
"""
COLLECTIONS = """
import gc
from rt.startup import importing
collections = []
gc.callbacks.append(lambda phase, info: collections.append(phase))
with importing():
    import trio
print(len(collections), gc.isenabled(), gc.get_freeze_count() > 10_000)
"""


INTERRUPTED = """
import os, signal, sys
import rt.__main__
class Interrupt:
    def find_spec(self, name, *_):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)
module, sys.argv = sys.argv[1], ["rt", "config", "port_base"]
sys.meta_path.insert(0, Interrupt())
sys.exit(rt.__main__.main())
"""


@pytest.mark.parametrize(
    ("module", "status"), [("rt.cli.main", -signal.SIGINT), ("rt.cli.config", 130)]
)
def test_interrupt_during_imports_exits_quietly(module: str, status: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(rt.__file__).parent.parent)}
    command = [sys.executable, "-P", "-c", INTERRUPTED, module]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "", "")


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(rt.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-P", "-c", program],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=True,
    ).stdout


def test_import_of_trio_runs_no_program_and_threads_have_names() -> None:
    before, _, after = run(PROGRAM).partition("imported")
    assert "subprocess.Popen" not in before
    assert "thread a name" in after
    assert "found libpthread.so.0 ctypes.util" in after


@pytest.mark.parametrize("role", ["device", "executor"])
def test_child_imports_nothing_of_parents_commands_and_other_children(role: str) -> None:
    others = {
        "device": [
            "rt.executor",
            "rt.emulator.lines",
            "rt.emulator.firmware",
            "rt.emulator.uid_spec",
        ],
        "executor": ["rt.smartdevice", "trio_serial", "pyudev", "cobs"],
    }
    of_parents = ["rt.process.command", "rt.process.spawn", "rt.supervisor.tree", "rt.instance"]
    of_the_root = [
        "rt.broker",
        "rt.lint",
        "rt.doctor",
        "rt.cli.main",
        "rt.root.lifecycle",
        "rt.access.zap",
        "zmq.auth",
        "zmq.utils.z85",
    ]
    of_commands = [
        "click",
        "pyflakes",
        "rt.client.option_flags",
        "rt.client.connection",
        "rt.client.device_table",
    ]
    imported = set(
        run(CHILD.format(package={"device": "smartdevice", "executor": "executor"}[role])).split()
    )
    assert {"trio", "zmq", "rt.app", "rt.remote.service"} <= imported
    assert imported.isdisjoint([*others[role], *of_parents, *of_the_root, *of_commands])


def test_brake_imports_only_the_standard_library_and_itself() -> None:
    modules = set(run(BRAKE).split())
    assert "rt.brake.process" in modules
    own = {name for name in modules if name.partition(".")[0] == "rt"}
    assert own <= {"rt", "rt.__main__", "rt.startup"} | {name for name in own if "rt.brake" in name}
    assert modules.isdisjoint(
        {"trio", "zmq", "msgspec", "structlog", "cobs", "asyncio", "subprocess"}
    )


def test_imports_run_no_garbage_collection_and_are_frozen() -> None:
    assert run(COLLECTIONS).split() == ["0", "True", "True"]
