"""The decision which driver's station is in control of the robot.

Invariant: only the gamepads of one sender at a time are accepted. Control changes hands only after
the sender in control was silent, or by an explicit take-over.

The module is pure; callers pass the time (s) of a monotonic clock.
"""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from rt.protocol.datagrams import SILENCE

HANDOVER = 5.0
"""Silence (s) of the sender in control after which another sender takes control."""
MAX_CONTENDERS = 16
"""Maximum number of refused senders that are remembered, those with the newest updates."""

_NAME_MAX = 64


class Sender(msgspec.Struct, frozen=True):
    """The origin of gamepad updates.

    Attributes:
        key: Station whose key authenticates the update; "" without keys.
        host: IP address of the source of a datagram; "" for a call.
        line: Source: `host:port` of a datagram, or the name of the caller.
        run: The `station` of the update's stamp, which identifies one run of a station's program;
            "" without a stamp.
    """

    key: str = ""
    host: str = ""
    line: str = ""
    run: str = ""

    @property
    def name(self) -> str:
        """Name for people and `take_control`: printable, at most 64 characters, no spaces."""
        name = self.key or (f"{self.run}@{self.host or 'rpc'}" if self.run else self.line or "rpc")
        printable = all(char.isprintable() and not char.isspace() for char in name)
        return (name if printable else name.encode("unicode_escape").decode().replace(" ", "_"))[
            :_NAME_MAX
        ]

    @property
    def place(self) -> str:
        """Identity that survives a restart of the station's program: its key or its address."""
        return f"key {self.key}" if self.key else f"host {self.host}"

    def is_same(self, other: "Sender") -> bool:
        """Whether two updates are from one running program, which may send calls and datagrams."""
        if self.key != other.key:
            return False
        if self.line == other.line:
            return True
        same_host = bool(self.key) or not self.host or not other.host or self.host == other.host
        return bool(self.run) and self.run == other.run and same_host

    def may_be_restart_of(self, other: "Sender") -> bool:
        """Whether this sender may be the other one after a restart."""
        return self.place == other.place


class Refusal(msgspec.Struct, frozen=True):
    """The reason why an update or a call is refused.

    Attributes:
        by: Name of the sender in control; the refused sender itself after it released control.
        you: Name of the refused sender.
    """

    by: str
    you: str

    @property
    def sentence(self) -> str:
        """Error message with a remedy."""
        if self.by == self.you:
            fault = f"{self.you} has released control, or another program of {self.you} has it"
        else:
            fault = f"{self.by} has control of the robot, not {self.you}"
        return f"{fault}; {self.remedy}"

    @property
    def remedy(self) -> str:
        """How to give control to the refused sender."""
        return (
            "`rt call take_control` at that station, or `rt call take_control"
            f" {self.you}` at the robot, takes it over"
        )


class Contender(msgspec.Struct):
    """A refused sender.

    Attributes:
        sender: The newest sender of this name.
        refused: Number of refused updates.
        first: Time of its first update, ignoring those before a pause of `HANDOVER`.
        last_update: Time of its newest update.
    """

    sender: Sender
    refused: int
    first: float
    last_update: float


class Arbiter:
    """Decides whose gamepads are accepted.

    Attributes:
        contenders: Refused senders by name, newest last.
        refused: Number of refused updates of all senders.
        since: Time at which control was last taken.
    """

    def __init__(self) -> None:
        self.contenders: OrderedDict[str, Contender] = OrderedDict()
        self.refused = 0
        self._sender: Sender | None = None
        self._last_update = 0.0
        self.since = 0.0
        self._claimed = False
        self._released: tuple[Sender, float] | None = None

    def commander(self, now: float) -> Sender | None:
        """Return the sender in control, or None while control is free."""
        return (
            self._sender
            if self._sender is not None and now < self._last_update + HANDOVER
            else None
        )

    def check(self, sender: Sender, now: float) -> Refusal | None:
        """Return why an update is refused, or None.

        This does not accept the update, which may still be refused for another reason.
        """
        blocking = self._blocking(sender, now)
        if blocking is None:
            return None
        self._note(sender, now)
        return Refusal(blocking.name, sender.name)

    def accept(self, sender: Sender, now: float) -> bool:
        """Record an accepted update, after `check` returned None.

        Returns:
            Whether control has changed hands.
        """
        before = self.commander(now)
        changed = before is None or not sender.is_same(before)
        if changed and not (self._claimed and before is not None):
            self.since = now
        self._sender, self._last_update, self._claimed, self._released = sender, now, False, None
        self._forget(sender)
        return changed

    def take(self, sender: Sender, now: float) -> None:
        """Give control to a sender; if it has no line, the first program of its station gets it."""
        self._sender, self._last_update, self.since = sender, now, now
        self._claimed = not sender.line
        self._released = None
        self._forget(sender)

    def release(self, now: float) -> Sender | None:
        """Release control to the next sender.

        The former sender must wait for `HANDOVER`, unless it takes control over.

        Returns:
            The sender that had control, or None.
        """
        sender = self.commander(now)
        if sender is not None:
            self._released = sender, now
        self._sender = None
        return sender

    def find(self, name: str) -> Sender | None:
        """Return the contender, the sender in control or the released sender of a name, or None."""
        if (contender := self.contenders.get(name)) is not None:
            return contender.sender
        if self._sender is not None and self._sender.name == name:
            return self._sender
        if self._released is not None and self._released[0].name == name:
            return self._released[0]
        return None

    def waiting(self, now: float) -> Iterable[Contender]:
        """Return the contenders that have sent within `HANDOVER`."""
        return [each for each in self.contenders.values() if now < each.last_update + HANDOVER]

    def _blocking(self, sender: Sender, now: float) -> Sender | None:
        commander = self.commander(now)
        if commander is None:
            if self._released is None:
                return None
            former, when = self._released
            return former if now < when + HANDOVER and sender.is_same(former) else None
        if sender.is_same(commander):
            return None
        if sender.may_be_restart_of(commander) and (
            self._claimed or self._is_restarted(sender, now)
        ):
            return None
        return commander

    def _is_restarted(self, sender: Sender, now: float) -> bool:
        """Whether a sender at the place of the sender in control began after that one ended."""
        contender = self.contenders.get(sender.name)
        return now >= self._last_update + SILENCE and (
            contender is None or contender.first >= self._last_update
        )

    def _forget(self, sender: Sender) -> None:
        if not self.contenders:
            return
        contender = self.contenders.get(sender.name)
        if contender is not None and contender.sender.is_same(sender):
            del self.contenders[sender.name]

    def _note(self, sender: Sender, now: float) -> None:
        self.refused += 1
        contender = self.contenders.setdefault(sender.name, Contender(sender, 0, now, now))
        if now >= contender.last_update + HANDOVER or not sender.is_same(contender.sender):
            contender.first = now
        contender.sender, contender.last_update = sender, now
        contender.refused += 1
        self.contenders.move_to_end(sender.name)
        if len(self.contenders) > MAX_CONTENDERS:
            self.contenders.popitem(last=False)
