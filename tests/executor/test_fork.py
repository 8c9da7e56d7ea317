"""What a copy of the executor may do, in a process that is made for it."""

import subprocess
import sys

PROGRAM = """
import os, time
from rt import catalog
from rt.buffer import BufferStore, Doorbell, LeaseTable, lease
from rt.errors import ExecutionError
from rt.executor.api import Robot
from rt.executor.lease import LeaseKeeper
from rt.executor.sync import ExecutionRequest, Run, SyncExecutor

lease._TIMEOUT_NS = lease._ROOT_TIMEOUT_NS = 600 * 10**9  # no beat comes, and a busy machine is slow
robot = Robot(BufferStore(catalog.load(), "", shared=False), {})
with LeaseTable.open("PREFIX") as table:
    table.beat()
    keeper = LeaseKeeper(table.slot(0), Doorbell())
    keeper.beat()
    executor = SyncExecutor(lambda error, name: print("reported", error, flush=True), "/nowhere")

    def split():
        pid = os.fork()
        if pid:
            print("child ended with", os.waitpid(pid, 0)[1], "and a lease", bool(table.fresh()), flush=True)
            return
        try:
            robot.write(1, "duty_cycle", 1.0)
        except ExecutionError as error:
            print(error.message, flush=True)
        keeper.withdraw()

    run = Run([ExecutionRequest(split)], keeper, done=lambda error: executor.stop())
    executor.schedule(run)
    executor.execute_forever()
    print("over", flush=True)
"""


def test_a_fork_moves_nothing_and_ends_when_it_returns(prefix: str) -> None:
    program = PROGRAM.replace("PREFIX", prefix)
    # A constant program of this file.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.splitlines() == [
        "a process that the team's code forked cannot move devices",
        "child ended with 0 and a lease True",
        "over",
    ], done.stderr
