"""The wake-up latency of a bare process on this machine: the lower bound of every measured latency.

A child waits on a socket with trio and copies the received byte into shared memory; the parent
sends it and polls the memory.
"""

import mmap
import os
import signal
import socket
import statistics
import sys
import time

import trio


def wake(count: int, interval: float) -> float:
    """Return the median time (ms) from sending a byte to seeing it, one per ``interval`` (s)."""
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        trio.run(_copy, theirs, memory)
        os._exit(0)
    theirs.close()
    times = []
    for number in range(count):
        time.sleep(interval)
        value = number % 255 + 1
        began = time.perf_counter()
        ours.send(bytes([value]))
        while memory[0] != value:
            pass
        times.append((time.perf_counter() - began) * 1000)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    ours.close()
    return statistics.median(times)


async def _copy(line: socket.socket, memory: mmap.mmap) -> None:
    while True:
        await trio.lowlevel.wait_readable(line)
        memory[0] = line.recv(1)[0]


if __name__ == "__main__":
    sys.stdout.write(str(wake(int(sys.argv[1]), 0.04)))
