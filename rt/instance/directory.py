"""One robot on a computer that may run several: its name, its directory, and who holds it.

The directory holds what lives as long as the robot: sockets, and the file ``pid``, on which the robot keeps a lock. The rule
of this module: the lock alone says whether a robot runs; what the file says is only for people, and everything else that is
found without a lock is the remains of a killed robot and is swept.

Invariant: a lock counts only in a directory of this user; what another user has put in its place is refused, and never asked, read or
connected to.
"""

import contextlib
import fcntl
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rt.errors import ConfigError, InstanceAbsentError, InstanceBusyError
from rt.instance import leftovers
from rt.limits import explain
from rt.ownership import user

MAX_DIRECTORY = 74
"""The longest path of a directory in bytes: a socket address has room for 107, and a socket's name takes up to 32."""

_RUN = Path("/run/rt")
"""Where robots are that are started by root, as a service."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}")


class Holder(msgspec.Struct, frozen=True):
    """The robot that holds an instance; what it wrote down itself.

    Attributes:
        pid: Its process, 0 when not known.
        started: When it started, as ISO 8601 with a time zone, empty when not known.
        argv: How it was called.
        frozen_dir: Where its executable unpacked itself, or None.
    """

    pid: int = 0
    started: str = ""
    argv: tuple[str, ...] = ()
    frozen_dir: str | None = None

    def started_before(self, name: str) -> bool:
        """Whether the options were changed since it started: the file that its ``--config`` names, else the one of this name.

        Args:
            name: The file in the robot's working directory.
        """
        file = self.argv[self.argv.index("--config") + 1] if "--config" in self.argv[:-1] else name
        try:
            changed = Path(f"/proc/{self.pid}/cwd", file).stat().st_mtime
            return changed >= datetime.fromisoformat(self.started).timestamp() + 1  # it is told in whole seconds
        except (OSError, ValueError):
            return False


class Instance:
    """A name, and the directory that belongs to it.

    Attributes:
        name: As given with ``--instance``.
        directory: Exists while the robot runs.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._held = -1
        self._holder = Holder()

    @classmethod
    def locate(cls, name: str, env: Mapping[str, str] | None = None) -> "Instance":
        """Find out which directory belongs to a name; makes nothing.

        It is ``$XDG_RUNTIME_DIR/rt/NAME``, else ``/run/rt/NAME`` where we may write there, else ``/tmp/rt-UID/NAME``.

        Raises:
            ConfigError: The name is not allowed, the path is too long for the sockets in it, or XDG_RUNTIME_DIR is another user's.
        """
        if not _NAME.fullmatch(name):
            allowed = "1 to 32 of A-Z a-z 0-9 _ . - and no leading dot"
            raise ConfigError(
                f"an instance cannot be named {name!r}: allowed are {allowed}", name=name, allowed=allowed
            )
        directory = _base(os.environ if env is None else env) / name
        length = len(os.fsencode(directory))
        if length > MAX_DIRECTORY:
            raise ConfigError(
                f"the instance directory {directory} is {length} bytes long, and sockets in it allow {MAX_DIRECTORY}: "
                "choose a shorter --instance name or XDG_RUNTIME_DIR",
                directory=str(directory),
            )
        return cls(name, directory)

    def path(self, name: str) -> Path:
        """The path of a file of this robot."""
        return self.directory / name

    def holder(self) -> Holder | None:
        """Who runs as this instance, or None. Takes the lock for a moment, which a starting robot waits out.

        Raises:
            ConfigError: The directory belongs to another user, or is a link.
        """
        try:
            self.verify()
            with self.path("pid").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return self._read_holder()
        except OSError:
            return None
        return None

    def verify(self) -> None:
        """Refuse a directory that another user has put in the place of this one; one that does not exist is fine.

        Root reaches the robot of a service that has a user of its own: only root can have made /run/rt for it.

        Raises:
            ConfigError: The directory or the one that it is in belongs to another user, or is a link; says whose it is.
        """
        base = self.directory.parent
        if base == _RUN and os.geteuid() == 0:
            return
        for path in (base, self.directory):
            try:
                _verify(path, foreign_root=path == base == _RUN)
            except (FileNotFoundError, NotADirectoryError):
                return
            except OSError as error:
                raise ConfigError(f"cannot look at {path}: {error.strerror}", directory=str(path)) from None

    def require(self) -> Holder:
        """Who runs as this instance.

        Raises:
            ConfigError: The directory belongs to another user, or is a link.
            InstanceAbsentError: Nobody; says how to start a robot.
        """
        holder = self.holder()
        if holder is None:
            raise InstanceAbsentError(
                f"no robot runs as {self.name!r}{self._elsewhere()}", instance=self.name, directory=str(self.directory)
            )
        return holder

    def _elsewhere(self) -> str:
        """Where a robot is that may have been meant, or how to start one: the end of a sentence."""
        service = _RUN / self.name
        if service != self.directory and service.is_dir():
            return (
                f" in {self.directory.parent}, but one may in {_RUN}: `sudo env -u XDG_RUNTIME_DIR rt ...` reaches it"
            )
        others = running(self.directory.parent)
        if others:
            name = others[0] if len(others) == 1 else "NAME"
            return f", but as {' and '.join(map(repr, others))}: use --instance {name}"
        return f": start one with `rt run{'' if self.name == 'default' else f' --instance {self.name}'}`"

    @contextlib.contextmanager
    def acquire(self) -> Iterator[list[str]]:
        """Hold this instance: make the directory, take the lock, sweep what a killed robot left.

        On the way out everything of the robot is removed: its directory, and processes that still carry its
        mark. May wait up to `leftovers.LEAVE_TIMEOUT` for processes; use it outside of the event loop.

        Yields:
            What was swept, in sentences for the log.

        Raises:
            InstanceBusyError: Another robot holds it; says which.
            ConfigError: The directory is not ours alone.
        """
        self._held = self._lock()
        try:
            left = self._read_holder()
            swept = self._sweep(left)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            self._holder = Holder(os.getpid(), started, tuple(sys.argv), getattr(sys, "_MEIPASS", None))
            self._write_holder(self._held)
            try:
                yield swept
            finally:
                if not self.path("pid").exists():  # another robot's processes carry the same mark as this one's
                    leftovers.end_processes(self.directory, leftovers.OWN_LEAVE_TIMEOUT)
                if self.is_in_place():
                    self._sweep(None)
                    with contextlib.suppress(OSError):
                        # The file goes while the lock is held; whoever waits for it sees that it is not the file of this name.
                        self.path("pid").unlink(missing_ok=True)
                        self.directory.rmdir()
        finally:
            os.close(self._held)
            self._held = -1

    def mend(self) -> bool:
        """Make the directory and its lock again if they were removed or replaced while this robot holds them; whether that was so.

        What else was in the directory is for its owners to make again.

        Raises:
            InstanceBusyError: Another robot has taken the name meanwhile.
            ConfigError: The directory cannot be made, or is not ours alone.
        """
        if self._is_file(self._held):
            return False
        fd = self._lock(patience=0.0)
        self._write_holder(fd)
        os.close(self._held)
        self._held = fd
        return True

    def _lock(self, patience: float = 0.2) -> int:
        deadline = time.monotonic() + patience
        while True:
            _make_private(self.directory)
            try:
                fd = os.open(self.path("pid"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except FileNotFoundError:  # the directory went with a robot that ended just now
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self.path("pid"))):  # noqa: PTH116 - beside fstat
                    return fd
            except FileNotFoundError:
                pass
            except BlockingIOError:
                # A client that asks who holds it has the lock for a moment too.
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise self._busy() from None
                time.sleep(0.01)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def is_in_place(self) -> bool:
        """Whether the directory of this name is the one that this robot holds; another robot, or anything else, may have the name."""
        return not self.directory.is_symlink() and self._is_file(self._held)

    def _is_file(self, fd: int) -> bool:
        """Whether a descriptor is of the file that has the lock's name now."""
        try:
            return os.path.samestat(os.fstat(fd), self.path("pid").lstat())
        except OSError:
            return False

    def _busy(self) -> InstanceBusyError:
        holder = self._read_holder()
        who = f"process {holder.pid}" if holder.pid else "another process"
        since = f" since {holder.started}" if holder.started else ""
        return InstanceBusyError(
            f"a robot runs as {self.name!r} already: {who}{since}; stop it, or use --instance NAME --port-base 6010",
            instance=self.name,
            pid=holder.pid,
            started=holder.started,
        )

    def _read_holder(self) -> Holder:
        try:
            return msgspec.json.decode(self.path("pid").read_bytes(), type=Holder)
        except (OSError, msgspec.MsgspecError):
            return Holder()

    def _write_holder(self, fd: int) -> None:
        path = self.path("pid")
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, msgspec.json.encode(self._holder), 0)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {explain(error)}", directory=str(self.directory)) from None

    def _sweep(self, left: Holder | None) -> list[str]:
        timeout = leftovers.OWN_LEAVE_TIMEOUT if left is None else leftovers.LEAVE_TIMEOUT
        swept: list[str] = []
        if left is not None and left.pid:
            since = f", started {left.started}," if left.started else ""
            swept.append(
                f"the last robot, process {left.pid}{since} was killed or lost power: its log ends without a reason"
            )
        if pids := leftovers.end_processes(self.directory, timeout):
            swept.append(f"ended {len(pids)} processes of a robot that was killed: {', '.join(map(str, pids))}")
        if files := leftovers.empty(self.directory, keep="pid"):
            swept.append(f"removed from {self.directory}: {', '.join(files)}")
        if left is not None and left.frozen_dir is not None and leftovers.is_stale_unpacked(Path(left.frozen_dir)):
            shutil.rmtree(left.frozen_dir, ignore_errors=True)
            swept.append(f"removed the unpacked files of a robot that was killed: {left.frozen_dir}")
        return swept


def running(base: Path | None = None) -> list[str]:
    """The names of our robots that run, sorted; ``base`` is where their directories are, if elsewhere than usual.

    Directories of other users are left out.
    """
    names: list[str] = []
    with contextlib.suppress(ConfigError):
        for pid in (_base(os.environ) if base is None else base).glob("*/pid"):
            with contextlib.suppress(ConfigError):
                if Instance(pid.parent.name, pid.parent).holder():
                    names.append(pid.parent.name)
    return sorted(names)


def is_file(path: Path, before: os.stat_result) -> bool:
    """Whether a path still leads to the file that it led to before."""
    try:
        return os.path.samestat(path.lstat(), before)
    except OSError:
        return False


def _base(env: Mapping[str, str]) -> Path:
    runtime = env.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/") and os.access(runtime, os.W_OK | os.X_OK):
        _verify_runtime(Path(runtime))
        return Path(runtime) / "rt"
    if os.access(_RUN if _RUN.exists() else _RUN.parent, os.W_OK | os.X_OK):
        return _RUN
    return Path(f"/tmp/rt-{os.geteuid()}")  # noqa: S108 - the owner is verified; not TMPDIR, which clients may have otherwise


def _make_private(directory: Path) -> None:
    base = directory.parent
    try:
        base.mkdir(mode=0o755 if base == _RUN else 0o700, exist_ok=True)
        _verify(base, foreign_root=base == _RUN)
        if base != _RUN:
            base.chmod(0o700)
        directory.mkdir(mode=0o700, exist_ok=True)
        _verify(directory, foreign_root=False)
        directory.chmod(0o700)
    except FileExistsError:
        raise ConfigError(
            f"{directory} or what it lies in is not a directory: remove it", directory=str(directory)
        ) from None
    except FileNotFoundError as error:
        if base.is_dir():
            return  # removed by a robot that ended just now; the caller tries again
        raise ConfigError(f"cannot make {base}: {error.strerror}", directory=str(directory)) from None
    except OSError as error:
        raise ConfigError(f"cannot use {error.filename}: {error.strerror}", directory=str(directory)) from None


def _verify_runtime(path: Path) -> None:
    """Refuse an XDG_RUNTIME_DIR in which another user could put directories in the place of ours."""
    info = path.stat()
    if info.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"XDG_RUNTIME_DIR is {path}, which belongs to {user(info.st_uid)}: unset it, or run rt as that user",
            directory=str(path),
        )
    if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"XDG_RUNTIME_DIR is {path}, which every user may write: close it with `chmod 700 {path}`",
            directory=str(path),
        )


def _verify(path: Path, *, foreign_root: bool) -> None:
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(
            f"{path} is a link or a file of {user(info.st_uid)} where a directory of ours should be: remove it",
            directory=str(path),
        )
    if info.st_uid != os.geteuid() and not (foreign_root and info.st_uid == 0):
        other = "run rt as that user" if os.geteuid() == 0 else "set XDG_RUNTIME_DIR to a directory of yours"
        raise ConfigError(
            f"{path} belongs to {user(info.st_uid)}: have it removed, or {other}",
            directory=str(path),
        )
