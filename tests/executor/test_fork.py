"""What a fork of the executor may do, in a process of its own."""

import subprocess
import sys

PROGRAM = """
import os, time
from rt import catalog
from rt.buffer.store import BufferStore
from rt.buffer.write_event import WriteEvent
from rt.buffer.lease import LeaseTable
from rt.errors import ExecutionError
from rt.executor.api import Robot
from rt.executor.lease import LeaseKeeper
from rt.executor.time_limit import ExecutionRequest, Run, SyncExecutor

robot = Robot(BufferStore(catalog.load(), "", shared=False), {})
# No heartbeat comes, and a busy machine is slow.
with LeaseTable.open("PREFIX", timeout=600.0, root_timeout=600.0) as table:
    table.heartbeat()
    keeper = LeaseKeeper(table.lease(0), WriteEvent())
    keeper.heartbeat()
    executor = SyncExecutor(lambda error, name: print("reported", error, flush=True), "/nowhere")

    def split():
        pid = os.fork()
        if pid:
            status, held = os.waitpid(pid, 0)[1], bool(table.fresh_tokens())
            print("child ended with", status, "and a lease", held, flush=True)
            return
        try:
            robot.write(1, "duty_cycle", 1.0)
        except ExecutionError as error:
            print(error.message, flush=True)
        keeper.revoke()

    run = Run([ExecutionRequest(split)], keeper, done=lambda error: executor.stop())
    executor.schedule(run)
    executor.execute_forever()
    print("finished", flush=True)
"""


def test_fork_moves_nothing_and_exits_when_it_returns(prefix: str) -> None:
    program = PROGRAM.replace("PREFIX", prefix)
    # A constant program of this file.
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.splitlines() == [
        "a process that team code forked cannot move devices",
        "child ended with 0 and a lease True",
        "finished",
    ], done.stderr


API = """
import os, sys
from rt import catalog
from rt.buffer.store import BufferStore
from rt.buffer.lease import LeaseTable
from rt.errors import ExecutionError
from rt.executor.api import Actions, Gamepad, Robot, RunState

store = BufferStore(catalog.load(), "PREFIX")
motor = store.get_or_open(12 << 72)
pad = store.get_or_open(("gamepad", 0))
motor.valid = pad.valid = True
motor.write("duty_cycle", 0.25)
robot, gamepad, actions = Robot(store, {}), Gamepad(store, RunState()), Actions(None)
uses = {
    "write": lambda: robot.write(12 << 72, "duty_cycle", 1.0),
    "get": lambda: robot.get(12 << 72, "enc_pos"),
    "gamepad": lambda: gamepad.get("button_a"),
    "action": lambda: actions.run(None),
    "buffer": lambda: motor.write("duty_cycle", 1.0),
    "values": lambda: motor.snapshot(),
    "store": lambda: store[12 << 72].get("enc_pos"),
}
pid = os.fork()
if pid == 0:
    for name, use in uses.items():
        try:
            use()
        except ExecutionError as error:
            print(name, "refused" if "forked" in error.message else error, flush=True)
        else:
            print(name, "allowed", flush=True)
    os._exit(0)
print("child ended with", os.waitpid(pid, 0)[1], "and the value", motor.get_write(), flush=True)
"""


def test_api_raises_in_a_fork(prefix: str) -> None:
    program = API.replace("PREFIX", prefix)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    refused = [
        f"{name} refused"
        for name in ("write", "get", "gamepad", "action", "buffer", "values", "store")
    ]
    assert done.stdout.splitlines() == [
        *refused,
        "child ended with 0 and the value {'duty_cycle': 0.25}",
    ], done.stderr
