"""How a process of rt starts: soon, and quietly if it is ended before it has begun.

Called before the libraries that it is about are imported.
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
    """Import the large libraries within this: no program is run for it, and no garbage is looked for.

    What an import makes stays, so that the collector, which looks at all of it again and again
    while it grows, would find nothing. Later it need not look at that either: a full collection
    would stop the event loop for some 10 ms.
    """
    if (
        "trio" in sys.modules or not gc.isenabled()
    ):  # the large ones are there, or it is none of our business
        yield
        return
    gc.disable()
    try:
        _spare_ldconfig()
        yield
    finally:
        gc.freeze()
        gc.enable()


def _spare_ldconfig() -> None:
    """Answer the one question for which the import of trio runs a program, /sbin/ldconfig, in each process of a robot.

    trio names its threads through libpthread, whose file it asks `ctypes` for, and `ctypes` asks
    ldconfig. With glibc the answer is always the same, and the dynamic loader finds the file by it,
    as it would by ldconfig's. It is given once.
    """
    if "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return
    import ctypes.util

    find = ctypes.util.find_library

    def answer(name: str) -> str | None:
        if name != "pthread":
            return find(name)
        ctypes.util.find_library = find
        return "libpthread.so.0"

    ctypes.util.find_library = answer


def close_descriptors_on_exec() -> None:
    """Set close-on-exec on every descriptor but the standard streams: what a child has inherited is for no program that it starts."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are all that is needed
        if int(name) > _STDERR:
            with contextlib.suppress(OSError):  # that of the directory itself is closed again
                os.set_inheritable(int(name), False)


def exit_quietly_on_interrupt() -> None:
    """Let Ctrl-C end this process without a word, as long as it only imports; until `restore_interrupts`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def restore_interrupts() -> None:
    """Let Ctrl-C be a `KeyboardInterrupt` again: from now on somebody catches it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
