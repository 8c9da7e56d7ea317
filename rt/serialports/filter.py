"""Selects the serial ports that rt uses.

A port is selected when a glob matches its name, or when it is a tty of a USB device with a known
id, unless a glob denies it. A port is its device: a symbolic link, such as those of
/dev/serial/by-id, is another name of the same port.
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


class FoundPort(msgspec.Struct, frozen=True):
    """A selected port.

    Attributes:
        names: Every path that selects it, the best first: the device's own, then links in
            alphabetical order. The value identifies the file, and changes when the device is
            unplugged and plugged in again.
    """

    names: dict[str, tuple[int, ...]]

    @property
    def name(self) -> str:
        """The best of its names."""
        return next(iter(self.names))


class PortFilter:
    """Finds the selected ports. A scan reads a few directories and opens nothing.

    Args:
        patterns: Globs of paths, e.g. ``/dev/ttyACM*``.
        usb_ids: ``VENDOR:PRODUCT``, four hexadecimal digits each: selects the ttys of such USB
            devices, whatever their names.
        denied: Globs of paths that are never selected, also if a link matches.
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
        """The globs of ports that neither the kernel nor udev announces, so they have to be polled.

        Ports in /dev whose names begin with ``tty``, and udev's links in /dev/serial, are
        announced. (A link that a person creates there is not.) Pseudo-terminals and links elsewhere
        never are.
        """
        return tuple(pattern for pattern in self.patterns if not _is_announced(pattern))

    def find(self) -> dict[str, FoundPort]:
        """Return the ports that are selected now, by the path of their device."""
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
                with contextlib.suppress(OSError):  # it vanished, or is a broken link
                    seen[path] = _identity(path)
            if seen:
                found[device] = FoundPort(seen)
        return found

    def usb_ttys(self) -> dict[str, str]:
        """Return the ttys of USB devices by path, each with its id ``vendor:product``.

        The id is in lower case.
        """
        found = {}
        try:
            entries = os.listdir(self._ttys)  # noqa: PTH208 - called often
        except OSError:  # no sysfs
            return {}
        for name in entries:
            # A tty without a device behind it is a console or a pseudo-terminal.
            has_device = os.path.exists(f"{self._ttys}/{name}/device")  # noqa: PTH110
            if has_device and (usb_id := self.usb_id(name)):
                found[str(self._dev / name)] = usb_id
        return found

    def usb_id(self, name: str) -> str | None:
        """Return the USB id of a tty by its name in sysfs, e.g.

        ``2341:8037``; None for other ttys.
        """
        link = self._ttys / name / "device"
        try:
            device = link.resolve(strict=True)
        except OSError:
            return None
        # A tty belongs to an interface, or to a port of one; the device with the ids is one or two
        # levels above.
        for directory in (device, *device.parents):
            if directory == self._ttys.parent.parent:
                break
            try:
                vendor, product = (
                    (directory / each).read_text().strip() for each in ("idVendor", "idProduct")
                )
            except OSError:
                continue
            return f"{vendor}:{product}".lower()
        return None

    def ignored_ports(self, found: Mapping[str, FoundPort]) -> Iterator[tuple[str, str]]:
        """Yield ports that a person might expect to be selected but are not, each with the reason.

        Args:
            found: The result of `find`.
        """
        usb = self.usb_ttys()
        for path in _paths(self.patterns):
            if _is_planted(path):
                owner = user(planted_by(Path(path)) or 0)
                yield path, f"it belongs to {owner}, who created it in a public directory"
        denied = {os.path.realpath(path) for path in _paths(self.denied)}
        named = {os.path.realpath(path) for path in _paths(self.patterns)}
        for device in sorted({*map(os.path.realpath, usb), *(denied & named)} - set(found)):
            if device in denied:
                yield device, "it matches dev_ports_denied"
            elif not os.path.exists(device):  # noqa: PTH110 - as above
                yield device, "the kernel lists it, but the file does not exist"
            else:
                reason = (
                    f"its USB id {usb[device]} is not in dev_usb_ids, "
                    "and no glob in dev_ports matches"
                )
                yield device, reason


def _identity(path: str) -> tuple[int, ...]:
    file = os.stat(path)  # noqa: PTH116 - called often
    own = os.lstat(path)
    # A pseudo-terminal may get the number of an earlier one; then a link to it is a new file.
    made = own.st_ctime_ns if stat.S_ISLNK(own.st_mode) else 0
    return (file.st_dev, file.st_ino, file.st_rdev, own.st_ino, made)


def _paths(patterns: Iterable[str]) -> Iterator[str]:
    for pattern in patterns:
        yield from glob.iglob(pattern)  # noqa: PTH207 - the patterns are whole paths


def _is_planted(path: str) -> bool:
    """Return whether another user created a port in a directory that every user may write to."""
    return not path.startswith((_KERNEL_NAMES, _UDEV_NAMES)) and planted_by(Path(path)) is not None


def _is_announced(pattern: str) -> bool:
    if pattern.startswith(_UDEV_NAMES):
        return True
    return pattern.startswith(_KERNEL_NAMES) and "/" not in pattern[len(_KERNEL_NAMES) :]
