"""The outer process of an executable that unpacks itself.

It is the one that a person sees, and that removes the unpacked files; if it is killed, the inner
one has to end by itself.
"""

import atexit
import os
import shutil
import sys

import trio


async def wait_for_bootloader_exit() -> None:
    """Wait until the outer process has ended; for ever where there is none, as from source.

    Nobody else removes the unpacked files then: this process does when it ends.
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
