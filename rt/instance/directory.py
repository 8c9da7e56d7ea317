"""One of the robots of a computer: its name, its directory and its lock.

The directory contains what lives as long as the robot: sockets, and the file ``pid``, which the
robot locks.

Invariant: only the lock determines whether a robot runs; the contents of ``pid`` are for people.
Everything else in a directory without a lock is left over from a killed robot and is removed.

Invariant: a lock counts only in a directory of this user. A directory that another user has put in
its place is refused and not used.
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
from rt.instance import stale_files
from rt.ownership import user
from rt.process_limits import explain

MAX_DIRECTORY = 74
"""Maximum length of a directory path in bytes; a socket address has 107, and a name up to 32."""

_RUN = Path("/run/rt")
"""Directory of the robots that root starts, as a service."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,31}")


class Holder(msgspec.Struct, frozen=True):
    """The robot that holds an instance, as it describes itself.

    Attributes:
        pid: Process id; 0 if unknown.
        started: Start time, as ISO 8601 with a time zone; "" if unknown.
        argv: Command line.
        frozen_dir: Directory into which its executable unpacked itself, or None.
    """

    pid: int = 0
    started: str = ""
    argv: tuple[str, ...] = ()
    frozen_dir: str | None = None

    def options_changed_since_start(self, name: str) -> bool:
        """Whether the option file was changed since the robot started.

        Args:
            name: Option file in the robot's working directory, unless its ``--config`` names one.
        """
        file = self.argv[self.argv.index("--config") + 1] if "--config" in self.argv[:-1] else name
        try:
            changed = Path(f"/proc/{self.pid}/cwd", file).stat().st_mtime
            # The start time is in whole seconds.
            return changed >= datetime.fromisoformat(self.started).timestamp() + 1
        except (OSError, ValueError):
            return False


class Instance:
    """The name of a robot and its directory.

    Attributes:
        name: Value of ``--instance``.
        directory: Exists while the robot runs.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory
        self._held = -1
        self._holder = Holder()

    @classmethod
    def locate(cls, name: str, env: Mapping[str, str] | None = None) -> "Instance":
        """Return the instance of a name; do not create its directory.

        The directory is ``$XDG_RUNTIME_DIR/rt/NAME``, else ``/run/rt/NAME`` if that is writable,
        else ``/tmp/rt-UID/NAME``.

        Raises:
            ConfigError: The name is not allowed, the path is too long for sockets, or
                XDG_RUNTIME_DIR belongs to another user.
        """
        if not _NAME.fullmatch(name):
            allowed = "1 to 32 of A-Z a-z 0-9 _ . - without a leading dot"
            raise ConfigError(
                f"invalid instance name {name!r}; use {allowed}", name=name, allowed=allowed
            )
        directory = _base(os.environ if env is None else env) / name
        length = len(os.fsencode(directory))
        if length > MAX_DIRECTORY:
            raise ConfigError(
                f"the path of the instance directory {directory} has {length} bytes, but sockets"
                f" allow {MAX_DIRECTORY}; choose a shorter --instance name or XDG_RUNTIME_DIR",
                directory=str(directory),
            )
        return cls(name, directory)

    def path(self, name: str) -> Path:
        """Return the path of a file of this robot."""
        return self.directory / name

    def holder(self) -> Holder | None:
        """Return the robot that runs as this instance, or None.

        This takes the lock for a moment; a starting robot waits for that.

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
        """Refuse a directory that another user has put in the place of this one.

        A missing directory is accepted. Root may use the robot of a service with its own user,
        because only root can have created /run/rt.

        Raises:
            ConfigError: The directory or its parent belongs to another user or is a link.
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
                raise ConfigError(
                    f"cannot access {path}: {error.strerror}", directory=str(path)
                ) from None

    def require(self) -> Holder:
        """Return the robot that runs as this instance.

        Raises:
            ConfigError: The directory belongs to another user, or is a link.
            InstanceAbsentError: No robot runs as this instance; the message says how to start one.
        """
        holder = self.holder()
        if holder is None:
            raise InstanceAbsentError(
                f"no robot runs as {self.name!r}{self._elsewhere()}",
                instance=self.name,
                directory=str(self.directory),
            )
        return holder

    def _elsewhere(self) -> str:
        """Return the end of an error message: other robots, or how to start this one."""
        service = _RUN / self.name
        if service != self.directory and service.is_dir():
            return (
                f" in {self.directory.parent}, but one may in {_RUN};"
                " use `sudo env -u XDG_RUNTIME_DIR rt ...` for it"
            )
        others = running(self.directory.parent)
        if others:
            name = others[0] if len(others) == 1 else "NAME"
            return f", but as {' and '.join(map(repr, others))}; use --instance {name}"
        option = "" if self.name == "default" else f" --instance {self.name}"
        return f"; start one with `rt run{option}`"

    @contextlib.contextmanager
    def acquire(self, exit_timeout: float = stale_files.EXIT_TIMEOUT) -> Iterator[list[str]]:
        """Hold this instance: create the directory, lock it, remove the remains of a killed robot.

        At the end of the block the directory and the remaining processes of the robot are removed.
        Use this outside of the event loop, because it may wait for processes.

        Args:
            exit_timeout: Time that the processes of a killed robot get to exit (s).

        Yields:
            Texts for the log about what was removed.

        Raises:
            InstanceBusyError: Another robot holds the instance.
            ConfigError: Other users can access the directory.
        """
        self._held = self._lock()
        try:
            removed = self._remove_stale(self._read_holder(), exit_timeout)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            self._holder = Holder(
                os.getpid(), started, tuple(sys.argv), getattr(sys, "_MEIPASS", None)
            )
            self._write_holder(self._held)
            try:
                yield removed
            finally:
                # The processes of another robot that has taken the name carry the same mark.
                if not self.path("pid").exists():
                    stale_files.end_processes(self.directory, stale_files.OWN_EXIT_TIMEOUT)
                if self.is_in_place():
                    self._remove_stale(None, stale_files.OWN_EXIT_TIMEOUT)
                    with contextlib.suppress(OSError):
                        # Removed while it is locked: a process that waits for the lock sees that
                        # the file has lost its name.
                        self.path("pid").unlink(missing_ok=True)
                        self.directory.rmdir()
        finally:
            os.close(self._held)
            self._held = -1

    def restore(self) -> bool:
        """Create the directory and the lock again if they were removed or replaced.

        Other files in the directory must be restored by their owners.

        Returns:
            Whether that was necessary.

        Raises:
            InstanceBusyError: Another robot has taken the name meanwhile.
            ConfigError: The directory cannot be created, or other users can access it.
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
                fd = os.open(
                    self.path("pid"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
                )
            except FileNotFoundError:  # a robot that just ended removed the directory
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), self.path("pid").stat()):
                    return fd
            except FileNotFoundError:
                pass
            except BlockingIOError:
                # A client that calls `holder` also has the lock for a moment.
                if time.monotonic() > deadline:
                    os.close(fd)
                    raise self._busy() from None
                time.sleep(0.01)
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def is_in_place(self) -> bool:
        """Return whether the directory of this name is still the one that this robot has locked.

        If it was removed, another robot or something else may have taken the name.
        """
        return not self.directory.is_symlink() and self._is_file(self._held)

    def _is_file(self, fd: int) -> bool:
        """Whether a descriptor refers to the current lock file."""
        try:
            return os.path.samestat(os.fstat(fd), self.path("pid").lstat())
        except OSError:
            return False

    def _busy(self) -> InstanceBusyError:
        holder = self._read_holder()
        process = f"process {holder.pid}" if holder.pid else "another process"
        since = f" since {holder.started}" if holder.started else ""
        return InstanceBusyError(
            f"a robot already runs as {self.name!r}: {process}{since};"
            " stop it, or use --instance NAME --port-base 6010",
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
            raise ConfigError(
                f"cannot write {path}: {explain(error)}", directory=str(self.directory)
            ) from None

    def _remove_stale(self, former: Holder | None, exit_timeout: float) -> list[str]:
        removed: list[str] = []
        if former is not None and former.pid:
            since = f", started {former.started}," if former.started else ""
            removed.append(f"the last robot, process {former.pid}{since} was killed or lost power")
        if pids := stale_files.end_processes(self.directory, exit_timeout):
            removed.append(f"ended processes of a killed robot: {', '.join(map(str, pids))}")
        if files := stale_files.empty(self.directory, keep="pid"):
            removed.append(f"removed stale files in {self.directory}: {', '.join(files)}")
        unpacked = former and former.frozen_dir
        if unpacked and stale_files.is_stale_unpacked(Path(unpacked)):
            shutil.rmtree(unpacked, ignore_errors=True)
            removed.append(f"removed the unpacked files of a killed robot: {unpacked}")
        return removed


def running(base: Path | None = None) -> list[str]:
    """Return the sorted names of this user's running robots.

    Args:
        base: Parent of the instance directories; by default that of `Instance.locate`.
    """
    names: list[str] = []
    with contextlib.suppress(ConfigError):
        for pid in (_base(os.environ) if base is None else base).glob("*/pid"):
            with contextlib.suppress(ConfigError):
                if Instance(pid.parent.name, pid.parent).holder():
                    names.append(pid.parent.name)
    return sorted(names)


def is_same_file(path: Path, before: os.stat_result) -> bool:
    """Whether a path still refers to the same file as before."""
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
    # Not TMPDIR, which may differ between the robot and its clients.
    return Path(f"/tmp/rt-{os.geteuid()}")  # noqa: S108 - the owner is verified


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
            f"{directory} or its parent is not a directory; remove it", directory=str(directory)
        ) from None
    except FileNotFoundError as error:
        if base.is_dir():
            return  # removed by a robot that just ended; the caller tries again
        raise ConfigError(
            f"cannot create {base}: {error.strerror}", directory=str(directory)
        ) from None
    except OSError as error:
        raise ConfigError(
            f"cannot use {error.filename}: {error.strerror}", directory=str(directory)
        ) from None


def _verify_runtime(path: Path) -> None:
    """Refuse an XDG_RUNTIME_DIR in which another user could replace our directories."""
    info = path.stat()
    if info.st_uid not in {0, os.geteuid()}:
        raise ConfigError(
            f"XDG_RUNTIME_DIR is {path}, which belongs to {user(info.st_uid)};"
            " unset it, or run rt as that user",
            directory=str(path),
        )
    if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
        raise ConfigError(
            f"XDG_RUNTIME_DIR is {path}, which every user may write; run `chmod 700 {path}`",
            directory=str(path),
        )


def _verify(path: Path, *, foreign_root: bool) -> None:
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(
            f"{path} is a link or a file of {user(info.st_uid)}, not a directory; remove it",
            directory=str(path),
        )
    if info.st_uid != os.geteuid() and not (foreign_root and info.st_uid == 0):
        other = (
            "run rt as that user"
            if os.geteuid() == 0
            else "set XDG_RUNTIME_DIR to your own directory"
        )
        raise ConfigError(
            f"{path} belongs to {user(info.st_uid)}; have it removed, or {other}",
            directory=str(path),
        )
