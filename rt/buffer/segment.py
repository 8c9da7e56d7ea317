"""Named pieces of shared memory.

A robot's segments are in its arena (`rt.buffer.arena`): their names begin with the location of the
arena and a slash. A name without a slash is a file under /dev/shm, for programs that share buffers
without a robot. Such a file is completed under another name and then linked to its own, so no
process maps an incomplete one. Its pages are allocated at creation, so a full /dev/shm is an error
there and not a SIGBUS later. It is never truncated.
"""

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from rt.buffer import arena
from rt.errors import DeviceBufferError

DIRECTORY = Path("/dev/shm")  # noqa: S108 - POSIX shared memory on Linux
MODE = 0o600


def create(
    name: str, size: int, initialize: Callable[[memoryview], None], timeout: float = 0.0
) -> memoryview | None:
    """Create a segment, and let ``initialize`` fill it before another process sees it.

    Args:
        name: Its name.
        size: Its size in bytes.
        initialize: Fills the memory, which is all zeros.
        timeout: How long to wait while another process creates a segment of the robot (s); 0 for
            event loops.

    Returns:
        Its memory, or None if a segment of that name exists.

    Raises:
        BufferBusyError: Another process took longer to create a segment.
        DeviceBufferError: There is no memory left, or /dev/shm is not writeable.
    """
    location, _, entry = name.rpartition("/")
    if location:
        with arena.locate(location) as (mapping, fd):
            return mapping.create(fd, entry, size, initialize, timeout)
    path = DIRECTORY / name
    draft = DIRECTORY / f"{name}~{os.getpid()}"
    try:
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
    except FileExistsError:
        # Left by a killed process with our process id.
        draft.unlink(missing_ok=True)
        return create(name, size, initialize, timeout)
    except OSError as error:
        raise DeviceBufferError(f"cannot create {path}: {error.strerror}", segment=name) from error
    try:
        os.posix_fallocate(fd, 0, size)
        memory = memoryview(mmap.mmap(fd, size))
        initialize(memory)
        os.link(draft, path)
    except FileExistsError:
        return None
    except OSError as error:
        raise DeviceBufferError(f"cannot create {path}: {error.strerror}", segment=name) from error
    finally:
        os.close(fd)
        draft.unlink(missing_ok=True)
    return memory


def attach(name: str) -> memoryview:
    """Map the segment of that name.

    Raises:
        DeviceBufferError: It is missing, or belongs to another user.
    """
    location, _, entry = name.rpartition("/")
    if location:
        with arena.locate(location) as (mapping, _):
            return mapping.attach(entry)
    path = DIRECTORY / name
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        raise DeviceBufferError(f"there is no buffer {name}", segment=name, absent=True) from None
    except OSError as error:
        raise DeviceBufferError(f"cannot open {path}: {error.strerror}", segment=name) from error
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            raise DeviceBufferError(f"{path} is empty and therefore not a buffer", segment=name)
        return memoryview(mmap.mmap(fd, size))
    finally:
        os.close(fd)


def unlink(name: str, timeout: float = 0.0) -> bool:
    """Remove the segment's name; processes that have it mapped keep its memory.

    Returns:
        False if there was no such segment.

    Raises:
        BufferBusyError: Another process creates or removes a segment of the robot for longer than
            ``timeout`` (s).
    """
    location, _, entry = name.rpartition("/")
    if location:
        with arena.locate(location) as (mapping, _):
            return mapping.unlink(entry, timeout)
    try:
        (DIRECTORY / name).unlink()
    except FileNotFoundError:
        return False
    return True


def names(prefix: str) -> Iterator[str]:
    """Yield the names of the segments that begin with ``prefix``."""
    location, slash, start = prefix.rpartition("/")
    if location:
        with contextlib.suppress(DeviceBufferError), arena.locate(location) as (mapping, _):
            yield from (
                location + slash + name for name in mapping.names() if name.startswith(start)
            )
        return
    with contextlib.suppress(OSError), os.scandir(DIRECTORY) as entries:
        for entry in entries:
            if entry.name.startswith(prefix) and "~" not in entry.name:
                yield entry.name
