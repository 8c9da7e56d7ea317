"""Which serial ports count.

A port counts when a glob names it or when it is a tty of a USB device with a known id, unless a
glob denies it. A port is its device: a symbolic link, as those of /dev/serial/by-id, is another
name of the same port.
"""

import contextlib
import glob
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from rt.ownership import planted_by, user

_KERNEL_NAMES = "/dev/tty"
_UDEV_NAMES = "/dev/serial/"
_WILD = frozenset("*?[")


class FoundPort(msgspec.Struct, frozen=True):
    """A port that counts, as one look saw it.

    Attributes:
        names: Every path by which it counts, the best first: the device's own, then links in
            alphabetical order. Each has numbers of its file that are others after the device was
            unplugged and plugged in again.
    """

    names: dict[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """The best of its names."""
        return next(iter(self.names))


class PortFilter:
    """Finds the ports that count; a look reads a few directories and opens nothing.

    Args:
        patterns: Globs of paths, e.g. ``/dev/ttyACM*``.
        usb_ids: ``VENDOR:PRODUCT``, four hexadecimal digits each: a tty of such a USB device counts
            whatever its name is.
        denied: Globs of paths that never count, also if named by a link.
        sysfs: Where sysfs is mounted.
        dev: Where device files are.
    """

    def __init__(
        self,
        patterns: Iterable[str] = (),
        usb_ids: Iterable[str] = (),
        denied: Iterable[str] = (),
        *,
        sysfs: str = "/sys",
        dev: str = "/dev",
    ) -> None:
        self.patterns = tuple(patterns)
        self.usb_ids = frozenset(each.lower() for each in usb_ids)
        self.denied = tuple(denied)
        self._ttys = Path(sysfs, "class/tty")
        self._dev = Path(dev)

    @property
    def polled_patterns(self) -> tuple[str, ...]:
        """The globs of which neither the kernel nor udev tells when a port appears there; they have to be looked at often.

        Told of is what stands directly in /dev and begins with ``tty``, and the links of udev below
        /dev/serial. (A link that a person puts there by hand is not told of.) Pseudo-terminals and
        links elsewhere never are.
        """
        return tuple(pattern for pattern in self.patterns if not _is_announced(pattern))

    def find(self) -> dict[str, FoundPort]:
        """Return the ports that count at this moment, each under the path of its device."""
        names: dict[str, set[str]] = {}
        for path in _paths(self.patterns):
            if not _is_planted(path):
                names.setdefault(os.path.realpath(path), set()).add(path)
        if self.usb_ids:
            for device, usb_id in self.usb_ttys().items():
                if usb_id in self.usb_ids:
                    names.setdefault(os.path.realpath(device), set()).add(device)
        for path in _paths(self.denied):
            names.pop(os.path.realpath(path), None)
        found = {}
        for device, paths in names.items():
            seen = {}
            for path in sorted(paths, key=lambda path: (path != device, path)):
                with contextlib.suppress(OSError):  # it vanished, or is a link to nothing
                    seen[path] = _identity(path)
            if seen:
                found[device] = FoundPort(seen)
        return found

    def usb_ttys(self) -> dict[str, str]:
        """Return every tty of a USB device, its path with the id ``vendor:product`` in lower case."""
        found = {}
        try:
            entries = os.listdir(self._ttys)  # noqa: PTH208 - called often
        except OSError:  # no sysfs
            return {}
        for name in entries:
            # A tty without a device behind it is a console or a pseudo-terminal.
            if os.path.exists(f"{self._ttys}/{name}/device") and (usb_id := self.usb_id(name)):  # noqa: PTH110
                found[str(self._dev / name)] = usb_id
        return found

    def usb_id(self, name: str) -> str | None:
        """Return the USB id of a tty by its name in sysfs, as ``2341:8037``; None if it hangs on no USB device."""
        link = self._ttys / name / "device"
        try:
            behind = link.resolve(strict=True)
        except OSError:
            return None
        # A tty hangs on an interface, or on a port of one; the device with the ids is one or two
        # steps above.
        for place in (behind, *behind.parents):
            if place == self._ttys.parent.parent:
                break
            try:
                vendor, product = (
                    (place / each).read_text().strip() for each in ("idVendor", "idProduct")
                )
            except OSError:
                continue
            return f"{vendor}:{product}".lower()
        return None

    def ignored_ports(self, found: Mapping[str, FoundPort]) -> Iterator[tuple[str, str]]:
        """Yield the ports that do not count though one might think so, each with the reason.

        Args:
            found: What `find` has returned.
        """
        usb = self.usb_ttys()
        for path in _paths(self.patterns):
            if _is_planted(path):
                yield (
                    path,
                    f"it belongs to {user(planted_by(Path(path)) or 0)}, who has put it there in advance",
                )
        denied = {os.path.realpath(path) for path in _paths(self.denied)}
        named = {os.path.realpath(path) for path in _paths(self.patterns)}
        for device in sorted({*map(os.path.realpath, usb), *(denied & named)} - set(found)):
            if device in denied:
                yield device, "dev_ports_denied denies it"
            elif not os.path.exists(device):  # noqa: PTH110 - as above
                yield device, "the kernel knows it, but there is no such file"
            else:
                yield (
                    device,
                    f"its USB id {usb[device]} is not in dev_usb_ids, and no glob of dev_ports matches",
                )


def _identity(path: str) -> tuple[int, ...]:
    file = os.stat(path)  # noqa: PTH116 - called often
    own = os.lstat(path)
    # A pseudo-terminal gets the number of an earlier one; a link that leads to it is a new one
    # then.
    made = own.st_ctime_ns if stat.S_ISLNK(own.st_mode) else 0
    return (file.st_dev, file.st_ino, file.st_rdev, own.st_ino, made)


def _paths(patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        yield from glob.iglob(pattern)  # noqa: PTH207 - the patterns are whole paths


def _is_planted(path: str) -> bool:
    """Whether another user has put a port where every user may make files."""
    return not path.startswith((_KERNEL_NAMES, _UDEV_NAMES)) and planted_by(Path(path)) is not None


def _is_announced(pattern: str) -> bool:
    if pattern.startswith(_UDEV_NAMES):
        return True
    return pattern.startswith(_KERNEL_NAMES) and "/" not in pattern[len(_KERNEL_NAMES) :]
