"""Which driver's station is in control of the robot.

Invariant: the gamepads of one sender at a time are accepted. Control changes hands only when the
sender in control has been silent, or by an explicit take-over.

The module is pure: the caller brings the time, in s, of a clock that never goes back.
"""

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from rt.broker.driver import SILENCE

HANDOVER = 5.0
"""Silence (s) of the sender in control after which the next one that sends takes control."""
MAX_CONTENDERS = 16
"""Refused senders that are remembered; the one that has been silent for longest is forgotten."""

_NAME_MAX = 64


class Sender(msgspec.Struct, frozen=True):
    """Where gamepad updates come from.

    Attributes:
        key: The station whose key proves the update; empty without keys.
        host: The IP address of a datagram's source; empty for a call.
        line: The source itself: `host:port` of a datagram, or the name of the caller.
        run: The `station` of the update's stamp: one run of one station's program; empty without a
            stamp.
    """

    key: str = ""
    host: str = ""
    line: str = ""
    run: str = ""

    @property
    def name(self) -> str:
        """The name by which people and `take_control` call the sender: printable, at most 64 characters, without spaces."""
        name = self.key or (f"{self.run}@{self.host or 'rpc'}" if self.run else self.line or "rpc")
        printable = all(char.isprintable() and not char.isspace() for char in name)
        return (name if printable else name.encode("unicode_escape").decode().replace(" ", "_"))[
            :_NAME_MAX
        ]

    @property
    def place(self) -> str:
        """What stays when the station's program is restarted: its key, or else its address."""
        return f"key {self.key}" if self.key else f"host {self.host}"

    def is_same(self, other: "Sender") -> bool:
        """Whether two updates come from one running program, which may send by calls, by datagrams, or by both in turn."""
        if self.key != other.key:
            return False
        if self.line == other.line:
            return True
        somewhere = bool(self.key) or not self.host or not other.host or self.host == other.host
        return bool(self.run) and self.run == other.run and somewhere

    def may_be_restart_of(self, other: "Sender") -> bool:
        """Whether a sender may be the other one, restarted."""
        return self.place == other.place


class Refusal(msgspec.Struct, frozen=True):
    """Why an update or a call is refused.

    Attributes:
        by: The name of the sender in control; of the refused sender itself after it released
            control.
        you: The name of the refused sender.
    """

    by: str
    you: str

    @property
    def sentence(self) -> str:
        """What is wrong and what to do."""
        if self.by == self.you:
            fault = f"{self.you} has released control of the robot, or another program of {self.you} has it"
        else:
            fault = f"{self.by} has control of the robot, not {self.you}"
        return f"{fault}; {self.remedy}"

    @property
    def remedy(self) -> str:
        """What gives control to the refused sender."""
        return f"`rt call take_control` at that station, or `rt call take_control {self.you}` at the robot, takes it over"


class Contender(msgspec.Struct):
    """A refused sender.

    Attributes:
        sender: The newest one of this name.
        refused: Its refused updates.
        first: When it sent the first one, not counting those before a pause of `HANDOVER`.
        heard: When it sent the newest one.
    """

    sender: Sender
    refused: int
    first: float
    last_update: float


class Arbiter:
    """Decides whose gamepads are accepted.

    Attributes:
        contenders: The refused senders by name, the newest last.
        refused: Refused updates, of all senders.
    """

    def __init__(self) -> None:
        self.contenders: OrderedDict[str, Contender] = OrderedDict()
        self.refused = 0
        self._sender: Sender | None = None
        self._last_update = 0.0
        self._since = 0.0
        self._claimed = False
        self._released: tuple[Sender, float] | None = None

    def commander(self, now: float) -> Sender | None:
        """The sender in control, or None while control is free."""
        return (
            self._sender
            if self._sender is not None and now < self._last_update + HANDOVER
            else None
        )

    @property
    def since(self) -> float:
        """When the newest sender in control took it."""
        return self._since

    def check(self, sender: Sender, now: float) -> Refusal | None:
        """Decide on an update, without accepting it: it may still be refused for another reason."""
        blocking = self._blocking(sender, now)
        if blocking is None:
            return None
        self._note(sender, now)
        return Refusal(blocking.name, sender.name)

    def accept(self, sender: Sender, now: float) -> bool:
        """Note an accepted update of a sender that `check` let pass.

        Returns:
            Whether control has changed hands.
        """
        before = self.commander(now)
        changed = before is None or not sender.is_same(before)
        if changed and not (self._claimed and before is not None):
            self._since = now
        self._sender, self._last_update, self._claimed, self._released = sender, now, False, None
        self._forget(sender)
        return changed

    def take(self, sender: Sender, now: float) -> None:
        """Give control to a sender; one without a line is any program of its station, the first that sends."""
        self._sender, self._last_update, self._since = sender, now, now
        self._claimed = not sender.line
        self._released = None
        self._forget(sender)

    def release(self, now: float) -> Sender | None:
        """Free control for the next sender; the one that had it, and now has to wait for `HANDOVER` unless it takes over."""
        sender = self.commander(now)
        if sender is not None:
            self._released = sender, now
        self._sender = None
        return sender

    def find(self, name: str) -> Sender | None:
        """The contender of a name, or else the sender of that name that has control or has released it."""
        if (contender := self.contenders.get(name)) is not None:
            return contender.sender
        if self._sender is not None and self._sender.name == name:
            return self._sender
        if self._released is not None and self._released[0].name == name:
            return self._released[0]
        return None

    def waiting(self, now: float) -> Iterable[Contender]:
        """The contenders that have sent within `HANDOVER`."""
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
        """Whether a sender at the place of the one in control has begun when that one ended: both never sent at once."""
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


__all__ = ["HANDOVER", "MAX_CONTENDERS", "Arbiter", "Contender", "Refusal", "Sender"]
