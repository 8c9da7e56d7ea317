"""What is done so that a process of rt starts soon changes nothing but that."""

import os
import subprocess
import sys
from pathlib import Path

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


def run(program: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(rt.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, env=environment, timeout=60, check=True
    ).stdout


def test_no_program_is_run_to_import_trio_and_threads_still_have_names() -> None:
    before, _, after = run(PROGRAM).partition("imported")
    assert "subprocess.Popen" not in before
    assert "thread a name" in after
    assert "found libpthread.so.0 ctypes.util" in after
