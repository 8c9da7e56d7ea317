"""The bootloader process, which is the parent of the program in a one-file executable.

The user sees the bootloader process, and it removes the unpacked files. If it is killed, the
program has to exit and remove them itself.
"""

import atexit
import os
import shutil
import sys

import trio


async def wait_for_bootloader_exit() -> None:
    """Wait until the bootloader process exits; forever when run from source.

    Afterwards this process removes the unpacked files when it exits.
    """
    if not getattr(sys, "frozen", False):
        await trio.sleep_forever()
    try:
        fd = os.pidfd_open(os.getppid())
    except OSError:
        await trio.sleep_forever()
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)
    atexit.register(shutil.rmtree, str(getattr(sys, "_MEIPASS", "")), ignore_errors=True)
