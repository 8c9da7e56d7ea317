"""The known serial ports: scans and events in, changes out. Pure.

Invariant: a port that has appeared appears again only after it has vanished, and only a port that
    has appeared vanishes.
"""

from collections.abc import Iterable, Mapping

import msgspec

from rt.serialports.filter import FoundPort

REMOVED = "remove"
"""The action of an event for a removed device; all other actions mean that it exists."""


class PortChange(msgspec.Struct, frozen=True):
    """The changes that a scan found.

    A port in both of the first two was unplugged and plugged in again.

    Attributes:
        appeared: Paths that did not exist at the previous scan.
        vanished: Paths that no longer exist.
        announced: Paths that still exist and that an event was about; opening one may succeed now.
    """

    appeared: frozenset[str] = frozenset()
    vanished: frozenset[str] = frozenset()
    announced: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.appeared or self.vanished or self.announced)


class PortEvent(msgspec.Struct, frozen=True):
    """An event of the kernel or udev about a device.

    Attributes:
        action: ``add``, ``remove``, ``change`` or another action of the kernel.
        device: The path of its file.
        number: The kernel's sequence number of the event.
    """

    action: str
    device: str
    number: int


class PortState:
    """The ports of the last scan.

    A port is known by one of its names as long as it has that name.
    """

    def __init__(self) -> None:
        self._ports: dict[str, tuple[str, tuple[int, ...]]] = {}  # name and identity by device
        self._number = 0

    @property
    def ports(self) -> frozenset[str]:
        """The paths of the ports of the last scan."""
        return frozenset(name for name, _ in self._ports.values())

    def update(
        self,
        found: Mapping[str, FoundPort],
        events: Iterable[PortEvent] = (),
        *,
        number: int = 0,
        lost: bool = False,
    ) -> PortChange:
        """Record what a scan found, and return the changes.

        Args:
            found: The selected ports, by the paths of their devices.
            events: The events since the previous scan, up to this one or later.
            number: The number of the last event when the scan began: the effects of earlier events
                are in ``found``.
            lost: Whether events were lost; they may have been about any port.
        """
        removed, announced = set(), set()
        for each in events:
            if each.action != REMOVED:
                announced.add(each.device)
            elif each.number > self._number:  # otherwise the previous scan saw its effect
                removed.add(each.device)
        self._number = max(number, self._number)
        before, self._ports = self._ports, {}
        change: dict[str, set[str]] = {"appeared": set(), "announced": set()}
        stayed = set()
        for device, seen in found.items():
            name, identity = before.get(device, ("", ()))
            if name and seen.names.get(name) == identity and device not in removed:
                stayed.add(device)
                if lost or device in announced:
                    change["announced"].add(name)
            else:
                name, identity = seen.name, seen.names[seen.name]
                change["appeared"].add(name)
            self._ports[device] = name, identity
        return PortChange(
            frozenset(change["appeared"]),
            frozenset(name for device, (name, _) in before.items() if device not in stayed),
            frozenset(change["announced"]),
        )
