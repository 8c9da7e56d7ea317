"""The start of an rt process: fast imports, a quiet exit on an interrupt, and descriptors.

These functions are called before the libraries in question are imported.
"""

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import large libraries within this block, without garbage collections and ldconfig.

    Imported objects live as long as the process, so a collection during the imports would find
    nothing. They are also excluded from later collections, which would block the event loop for
    some 10 ms.
    """
    if "trio" in sys.modules or not gc.isenabled():
        # The libraries are already imported, or the caller controls the collector.
        yield
        return
    gc.disable()
    try:
        _avoid_ldconfig()
        yield
    finally:
        gc.freeze()
        gc.enable()


def _avoid_ldconfig() -> None:
    """Prevent the import of trio from running /sbin/ldconfig in each process of a robot.

    trio names its threads through libpthread, which it finds with `ctypes.util.find_library`, and
    that runs ldconfig. With glibc the result is always the same, so the first call returns it.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return
    import ctypes.util

    find = ctypes.util.find_library

    def find_pthread(name: str) -> str | None:
        if name != "pthread":
            return find(name)
        ctypes.util.find_library = find
        return "libpthread.so.0"

    ctypes.util.find_library = find_pthread


def close_descriptors_on_exec() -> None:
    """Set close-on-exec on all descriptors except the standard streams."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - only names are needed
        if int(name) > _STDERR:
            # The descriptor of the directory itself is already closed.
            with contextlib.suppress(OSError):
                os.set_inheritable(int(name), False)


def exit_quietly_on_interrupt() -> None:
    """Let SIGINT kill this process without a traceback until `restore_interrupts`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def restore_interrupts() -> None:
    """Let SIGINT raise `KeyboardInterrupt` again."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
