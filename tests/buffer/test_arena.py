"""The arena: named segments in memory that has no name and cannot be truncated."""

import contextlib
import errno
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rt import catalog
from rt.buffer import Buffer, BufferStore, DeviceBufferError, LeaseTable, segment
from rt.buffer.arena import CAPACITY, SIZE, Arena, Mapping, locate
from rt.errors import BufferBusyError, ConfigError, ExecutionError
from rt.protocol.uid import DeviceUID

CATALOG = catalog.load()
MOTOR = int(DeviceUID(12, 7, 1))


def make(name: str, size: int = 8) -> memoryview | None:
    return segment.create(name, size, lambda memory: memory.__setitem__(0, 7))


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + mmap.PAGESIZE])
def test_arena_cannot_be_truncated_or_extended(arena: Arena, prefix: str, size: int) -> None:
    assert make(f"{arena.prefix}one") is not None
    for path in (arena.fd, f"/proc/self/fd/{arena.fd}"):
        with pytest.raises(PermissionError):
            os.truncate(path, size)
    with open(prefix.rstrip("/"), "r+b") as file, pytest.raises(PermissionError):  # noqa: PTH123
        file.truncate(size)
    assert segment.attach(f"{arena.prefix}one")[0] == 7


def test_arena_has_no_file_in_dev_shm(arena: Arena) -> None:
    before = set(Path("/dev/shm").iterdir())
    assert make(f"{arena.prefix}one") is not None
    assert not [path for path in set(Path("/dev/shm").iterdir()) - before if "one" in path.name]


def test_segments_are_found_by_name_through_either_prefix(arena: Arena, prefix: str) -> None:
    with pytest.raises(DeviceBufferError, match="no buffer one"):
        segment.attach(f"{arena.prefix}one")
    assert make(f"{arena.prefix}one") is not None
    assert make(f"{prefix}one") is None, "already exists"
    assert make(f"{arena.prefix}two", 5000) is not None
    assert bytes(segment.attach(f"{prefix}two")) == b"\7" + bytes(4999)
    assert list(segment.names(f"{arena.prefix}t")) == [f"{arena.prefix}two"]
    assert segment.unlink(f"{arena.prefix}one")
    assert not segment.unlink(f"{arena.prefix}one")
    assert list(segment.names(arena.prefix)) == [f"{arena.prefix}two"]
    assert make(f"{arena.prefix}one") is not None
    assert sorted(segment.names(arena.prefix)) == [f"{arena.prefix}one", f"{arena.prefix}two"]


def test_two_arenas_share_nothing(arena: Arena) -> None:
    with Arena("other") as other:
        assert make(f"{arena.prefix}one") is not None
        with pytest.raises(DeviceBufferError, match="no buffer"):
            segment.attach(f"{other.prefix}one")


def test_arena_is_mapped_once(arena: Arena, prefix: str) -> None:
    with locate(arena.prefix[:-1]) as (one, _), locate(prefix[:-1]) as (two, _):
        assert one is two is arena.mapping


def test_full_arena_is_an_error(arena: Arena) -> None:
    size = SIZE
    while (size := size // 2) >= 64:
        with contextlib.suppress(DeviceBufferError):
            make(f"{arena.prefix}{size}", size)
            make(f"{arena.prefix}again-{size}", size)
    with pytest.raises(DeviceBufferError, match="restart the robot"):
        make(f"{arena.prefix}one", 64)
    with pytest.raises(DeviceBufferError, match="no room"):
        BufferStore(CATALOG, arena.prefix).get_or_open(MOTOR)


def test_full_directory_is_an_error(arena: Arena) -> None:
    for number in range(CAPACITY):
        assert make(f"{arena.prefix}{number}") is not None
    with pytest.raises(DeviceBufferError, match="no room"):
        make(f"{arena.prefix}{CAPACITY}")
    assert len(list(segment.names(arena.prefix))) == CAPACITY


@pytest.mark.parametrize("name", ["", "x" * 113, "ü" * 57])
def test_name_of_invalid_length_is_an_error(arena: Arena, name: str) -> None:
    with pytest.raises(DeviceBufferError, match="1 to 112 bytes"):
        make(f"{arena.prefix}{name}")


def test_segment_that_cannot_be_initialized_is_not_listed(arena: Arena) -> None:
    def fail(_: memoryview) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with pytest.raises(DeviceBufferError, match=r"no memory .* Cannot allocate memory"):
        segment.create(f"{arena.prefix}one", 8, fail)
    assert not list(segment.names(arena.prefix))
    assert make(f"{arena.prefix}one") is not None


def test_process_killed_during_creation_blocks_no_other(arena: Arena, prefix: str) -> None:
    pid = os.fork()
    if pid == 0:
        segment.create(f"{prefix}one", 8, lambda _: os.kill(os.getpid(), 9))
    os.waitpid(pid, 0)
    assert make(f"{arena.prefix}one") is not None
    assert bytes(segment.attach(f"{arena.prefix}one")) == b"\7" + bytes(7)


def test_replaced_descriptor_keeps_existing_memory_usable(arena: Arena, tmp_path: Path) -> None:
    make(f"{arena.prefix}one")
    with BufferStore(CATALOG, arena.prefix) as store:
        store.get_or_open(MOTOR).valid = True
        fd, other = os.dup(arena.fd), os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        os.dup2(other, arena.fd)
        try:
            with BufferStore(CATALOG, arena.prefix) as second:
                assert second.get_or_open(MOTOR, create=False).valid
            with pytest.raises(DeviceBufferError, match="no memory"):
                make(f"{arena.prefix}new")
        finally:
            os.dup2(fd, arena.fd)
            os.close(fd)
            os.close(other)
        assert make(f"{arena.prefix}new") is not None


@pytest.mark.parametrize(
    "location", ["fd:9999", "fd:x", "fd:-1", "/proc/self/fd/9999", "/dev/null", "/dev/zero"]
)
def test_location_without_arena_is_an_error(location: str) -> None:
    with pytest.raises(DeviceBufferError, match="cannot use the shared memory of the robot"):
        segment.attach(f"{location}/lease")
    assert list(segment.names(f"{location}/")) == []


def test_memory_without_seals_is_an_error() -> None:
    fd = os.memfd_create("rt-test")
    try:
        os.ftruncate(fd, SIZE)
        with pytest.raises(DeviceBufferError, match="is not the shared memory"):
            Mapping.of(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOMEM, "is exhausted"),
        (errno.ENOSYS, "Function not implemented"),
    ],
)
def test_refusal_of_the_system_is_explained(
    monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*_args: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(ConfigError, match=f"cannot create shared memory: .*{words}"):
        Arena("test")


LIMITED = """
import resource
from rt.buffer.arena import Arena
resource.setrlimit(resource.RLIMIT_{0}, ({1}, {1}))
Arena("test")
"""


@pytest.mark.parametrize(("limit", "value"), [("FSIZE", 4096), ("NOFILE", 3)])
def test_exceeded_limit_is_named(limit: str, value: int) -> None:
    program = LIMITED.format(limit, value)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr.splitlines()[-1].startswith("rt.errors.ConfigError: cannot create"), (
        done.stderr
    )
    assert "ulimit" in done.stderr


def test_fork_cannot_use_inherited_buffers(arena: Arena) -> None:
    with BufferStore(CATALOG, arena.prefix) as store, LeaseTable.open(arena.prefix) as leases:
        motor = store.get_or_open(MOTOR)
        pad = store.get_or_open(("gamepad", 0))
        motor.valid = pad.valid = True
        motor.set("enc_pos", 3.0)
        leases.heartbeat()
        pid = os.fork()
        if pid == 0:
            refused = 0
            for use in (
                lambda: motor.write("duty_cycle", 1.0),
                lambda: motor.get("enc_pos"),
                lambda: motor.set("enc_pos", 1.0),
                motor.snapshot,
                motor.read,
                pad.get_update,
                motor.transaction().__enter__,
                lambda: setattr(pad, "valid", False),
            ):
                try:
                    use()
                except ExecutionError:
                    refused += 1
            leases.lease(0).begin()
            os._exit(100 + refused + (50 if motor.valid or motor.dirty else 0))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 108
        assert not leases.fresh_tokens()
        assert motor.get("enc_pos") == 3.0
        assert not motor.dirty
        assert pad.valid


def test_mapping_is_not_inherited_by_forks(arena: Arena) -> None:
    flags = _flags_of(arena.mapping.address)
    assert "dc" in flags, "the mapping is inherited"


def _flags_of(address: int) -> list[str]:
    """Return the VmFlags of a mapping, from proc_pid_smaps(5)."""
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        found = found or line.startswith(f"{address:x}-")
        if found and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("not mapped")


@contextlib.contextmanager
def lock_held(arena: Arena) -> Iterator[None]:
    """Let another process hold the arena's lock."""
    hold = f"""
import sys
from rt.buffer import mutex
from rt.buffer.arena import Mapping
arena = Mapping.of({arena.fd})
mutex.RobustMutex(arena._mutex).acquire()
print("held", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold],
        pass_fds=[arena.fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        try:
            yield
        finally:
            holder.kill()


def test_event_loop_opens_buffers_without_waiting_for_the_arena(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BufferStore(CATALOG, arena.prefix) as earlier:
        earlier.get_or_open(MOTOR).valid = True
    waits = []

    def wait(*arguments: object) -> int:
        waits.append(arguments)
        return errno.ETIMEDOUT

    monkeypatch.setattr("rt.buffer.mutex._clock_lock", wait)
    with lock_held(arena), BufferStore(CATALOG, arena.prefix) as store:
        for _ in range(2):
            with pytest.raises(
                BufferBusyError, match="another process holds the lock of the robot's shared memory"
            ):
                store.get_or_open(MOTOR + 1)
            with pytest.raises(BufferBusyError):
                store.get_or_open(("gamepad", 0))
        assert store.get_or_open(MOTOR).valid, "an existing buffer needs no lock"
        with pytest.raises(BufferBusyError):
            segment.unlink(f"{arena.prefix}lease")
    assert waits == []
    with BufferStore(CATALOG, arena.prefix) as store:
        assert store.get_or_open(MOTOR + 1).lock_timeout == 0
        assert not store.get_or_open(("gamepad", 0)).valid


def test_locked_buffer_is_opened_without_waiting(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rt.buffer.mutex._clock_lock", lambda *_: pytest.fail("it waits"))
    with BufferStore(CATALOG, arena.prefix) as one, BufferStore(CATALOG, arena.prefix) as two:
        one.get_or_open(MOTOR).valid = True
        held, done = threading.Event(), threading.Event()

        def hold(buffer: Buffer) -> None:
            with buffer.transaction():
                held.set()
                done.wait(30)

        holder = threading.Thread(target=hold, args=(one.get_or_open(MOTOR),))
        holder.start()
        assert held.wait(30)
        try:
            buffer = two.get_or_open(MOTOR)
            with pytest.raises(BufferBusyError):
                buffer.valid = True
        finally:
            done.set()
            holder.join()
        buffer.valid = True


def test_lock_timeout_bounds_the_wait_for_the_arena(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[object] = []

    def wait(*arguments: object) -> int:
        waits.append(arguments)
        return errno.ETIMEDOUT

    with (
        lock_held(arena),
        BufferStore(CATALOG, arena.prefix, lock_timeout=0.001) as store,
        monkeypatch.context() as patch,
    ):
        patch.setattr("rt.buffer.mutex._clock_lock", wait)
        with pytest.raises(BufferBusyError):
            store.get_or_open(MOTOR)
    assert len(waits) == 1
    with BufferStore(CATALOG, arena.prefix, lock_timeout=0.001) as store:
        assert store.get_or_open(MOTOR).lock_timeout == 0.001
