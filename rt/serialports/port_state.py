"""The book of serial ports: looks and news in, changes out. Pure: it knows neither files nor udev.

The rule of this module: what has appeared appears again only after it has vanished, and only what
has appeared vanishes.
"""

from collections.abc import Iterable, Mapping

import msgspec

from rt.serialports.filter import FoundPort

REMOVED = "remove"
"""The action of news that a device is gone; every other one says that it is there."""


class PortChange(msgspec.Struct, frozen=True):
    """What a look at the ports found new.

    A port in both of the first two was unplugged and plugged in again: it vanished first.

    Attributes:
        appeared: Paths that were not there at the look before.
        vanished: Paths that were.
        announced: Of the paths that stay, those that the kernel or udev said something of: an
            attempt to open may go well now.
    """

    appeared: frozenset[str] = frozenset()
    vanished: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished or self.announced)


class PortEvent(msgspec.Struct, frozen=True):
    """What the kernel or udev said of a device.

    Attributes:
        action: ``add``, ``remove``, ``change`` or another word of the kernel's.
        device: The path of its file.
        number: The kernel's running number of what it says.
    """

    action: str
    device: str
    number: int


class _Port(msgspec.Struct, frozen=True):
    name: str
    identity: tuple[int, ...]


class PortState:
    """Which ports there were at the last look. One is known by a single name as long as it has that name."""

    def __init__(self) -> None:
        self._ports: dict[str, _Port] = {}
        self._number = 0

    @property
    def ports(self) -> frozenset[str]:
        """The paths of the ports of the last look."""
        return frozenset(port.name for port in self._ports.values())

    def update(
        self,
        found: Mapping[str, FoundPort],
        events: Iterable[PortEvent] = (),
        *,
        number: int = 0,
        lost: bool = False,
    ) -> PortChange:
        """Enter what a look found.

        Args:
            found: The ports that count, by the paths of their devices.
            events: What was said since the look before, up to this one or later.
            number: That of the last news when the look began: what was said until then is in
                ``found``.
            lost: Whether some of the news are lost; then they may have been of any port.
        """
        removed, announced = set(), set()
        for each in events:
            if each.action != REMOVED:
                announced.add(each.device)
            elif each.number > self._number:  # else the look before has seen what came of it
                removed.add(each.device)
        self._number = max(number, self._number)
        before, self._ports = self._ports, {}
        change: dict[str, set[str]] = {"appeared": set(), "announced": set()}
        stayed = set()
        for device, seen in found.items():
            port = before.get(device)
            if port and seen.names.get(port.name) == port.identity and device not in removed:
                stayed.add(device)
                if lost or device in announced:
                    change["announced"].add(port.name)
            else:
                port = _Port(seen.name, seen.names[seen.name])
                change["appeared"].add(port.name)
            self._ports[device] = port
        return PortChange(
            frozenset(change["appeared"]),
            frozenset(port.name for device, port in before.items() if device not in stayed),
            frozenset(change["announced"]),
        )
