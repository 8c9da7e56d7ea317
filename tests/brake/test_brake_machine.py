"""The brake's decisions, against every order of events."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rt.brake.machine import (
    DISABLE_GRACE,
    EXIT_GRACE,
    HUNG,
    KILL_GRACE,
    LATE,
    MS,
    OVERDUE,
    RECHECK,
    STOP_GRACE,
    Act,
    Brake,
)
from rt.brake.protocol import DISABLE, NAME_MAX, SIZE, Kind, Message, decode, encode
from rt.protocol import frames
from rt.protocol.message import DevDisable

NOW = 10**12


def running() -> bool:
    return False


def standing() -> bool:
    return True


def live() -> Brake:
    brake = Brake()
    assert brake.hello() == []
    return brake


def test_death_of_the_device_process_disables_its_lines() -> None:
    brake = live()
    assert brake.died() == [Act.FINISH]
    assert brake.died() == [], "once"


def test_successor_of_a_device_process_proves_its_death() -> None:
    brake = live()
    assert brake.hello() == [Act.FINISH]
    assert brake.alive


def test_stopped_process_is_killed_and_its_lines_are_disabled() -> None:
    brake = live()
    assert brake.look(NOW, NOW - LATE + 1, 1, standing) == []
    assert brake.look(NOW, NOW - LATE, 1, standing) == [Act.KILL]
    assert brake.look(NOW + KILL_GRACE - 1, NOW - LATE, 1, standing) == []
    assert brake.look(NOW + KILL_GRACE, NOW - LATE, 1, standing) == [Act.DISABLE], (
        "its end takes long"
    )
    assert brake.look(NOW + 2 * KILL_GRACE, NOW - LATE, 1, standing) == []
    assert brake.died() == [Act.FINISH]
    assert brake.reason == "the device process is stopped"


def test_starved_process_is_disabled_over_once_for_each_stamp() -> None:
    brake = live()
    assert brake.look(NOW, NOW - LATE, 1, running) == [Act.DISABLE, Act.WARN]
    assert brake.look(NOW + MS, NOW - LATE, 1, running) == []
    assert brake.look(NOW + MS + LATE, NOW + MS, 1, running) == [Act.DISABLE, Act.WARN]


def test_process_that_stays_late_is_killed() -> None:
    brake = live()
    brake.look(NOW, NOW - LATE, 1, running)
    assert brake.due(NOW - LATE, 1) == NOW + RECHECK
    assert brake.look(NOW - LATE + HUNG - 1, NOW - LATE, 1, running) == []
    assert brake.due(NOW - LATE, 1) == NOW - LATE + HUNG
    assert brake.look(NOW - LATE + HUNG, NOW - LATE, 1, running) == [Act.KILL]


@given(gaps=st.lists(st.integers(1, 150), max_size=30))
def test_brake_that_sleeps_until_something_is_due_sees_that_a_process_is_stopped(
    gaps: list[int],
) -> None:
    """A stamp wakes the brake only if the one before was 0, whatever the brake has done meanwhile."""
    brake = live()
    stamps = [NOW, *(NOW + sum(gaps[: count + 1]) * MS for count in range(len(gaps)))]
    now, acts = NOW, []
    while Act.KILL not in acts:
        stamp = max(each for each in stamps if each <= now)
        acts = brake.look(now, stamp, 1, lambda: now > stamps[-1])  # noqa: B023 - called at once
        due = brake.due(stamp, 1)
        assert due is not None or Act.KILL in acts
        last, now = now, max(now, due or 0)
    assert last <= stamps[-1] + LATE + RECHECK


def test_process_stopped_before_its_lease_ended_is_killed_when_the_lease_ends() -> None:
    brake = live()
    end, stamp = NOW, NOW - 5 * MS
    assert brake.due(stamp, 1, end) == end + OVERDUE < stamp + LATE
    assert brake.look(end + OVERDUE - 1, stamp, 1, standing, end) == []
    assert brake.look(end + OVERDUE, stamp, 1, standing, end) == [Act.KILL]


def test_devices_that_outlast_their_lease_are_disabled_once_for_each_end() -> None:
    brake = live()
    now = NOW + OVERDUE
    assert brake.look(now, now - MS, 1, running, NOW) == [Act.DISABLE, Act.WARN]
    assert not brake.is_silent, "it may have written since its stamp"
    assert brake.look(now + 20 * MS, now + 19 * MS, 1, running, NOW) == []
    assert brake.look(now + 40 * MS, now + 39 * MS, 1, running, NOW + 20 * MS) == [
        Act.DISABLE,
        Act.WARN,
    ]


def test_process_that_is_late_after_the_end_of_its_lease_is_disabled_over_again() -> None:
    brake = live()
    brake.look(NOW + OVERDUE, NOW, 1, running, NOW)
    assert brake.due(NOW, 1, NOW) == NOW + LATE, "it may have written since the first time"
    assert brake.look(NOW + LATE, NOW, 1, running, NOW) == [Act.DISABLE, Act.WARN]
    assert brake.is_silent


def test_lease_that_is_renewed_in_time_causes_nothing() -> None:
    brake = live()
    for now in range(NOW, NOW + 1000 * MS, 20 * MS):
        assert brake.look(now, now, 1, standing, now + 40 * MS) == []


def test_nothing_is_due_while_no_device_can_move() -> None:
    brake = live()
    assert brake.due(0, 3) is None
    assert brake.look(NOW, 0, 3, standing) == []


def test_device_process_has_its_time_to_disable_when_the_root_is_gone() -> None:
    brake = live()
    brake.root_gone(NOW)
    assert brake.look(NOW + DISABLE_GRACE - 1, 0, 1, running) == []
    assert brake.look(NOW + DISABLE_GRACE, 0, 1, running) == [Act.KILL]


def test_device_process_without_lines_has_longer_to_end() -> None:
    brake = live()
    brake.root_gone(NOW)
    assert brake.look(NOW + DISABLE_GRACE, 0, 0, running) == []
    assert brake.due(0, 0) == NOW + EXIT_GRACE
    assert brake.look(NOW + EXIT_GRACE, 0, 0, running) == [Act.KILL]
    assert brake.died() == [Act.FINISH]
    assert brake.look(NOW + EXIT_GRACE, 0, 0, running) == [Act.EXIT]


def test_stop_disables_at_once_and_again_in_the_end_without_a_kill() -> None:
    brake = live()
    assert brake.stop(NOW) == [Act.DISABLE, Act.WARN]
    assert brake.stop(NOW) == []
    assert brake.look(NOW + STOP_GRACE - 1, 0, 1, running) == []
    assert brake.look(NOW + STOP_GRACE, 0, 1, running) == [Act.FINISH]
    assert brake.look(NOW + STOP_GRACE, 0, 1, running) == []
    assert brake.look(NOW + STOP_GRACE, 0, 0, running) == [Act.EXIT]


def test_stop_gives_way_to_the_end_of_the_root() -> None:
    brake = live()
    brake.stop(NOW)
    brake.root_gone(NOW + MS)
    assert brake.look(NOW + MS + DISABLE_GRACE, 0, 1, running) == [Act.KILL]


class Life(RuleBasedStateMachine):
    """Every order of events: what follows is checked against what the invariants of the module say."""

    def __init__(self) -> None:
        super().__init__()
        self.brake = Brake()
        self.now = NOW
        self.stamp = 0
        self.end = 0
        self.lines = 0
        self.leaving_since: int | None = None
        self.killed = False
        self.ended = False

    def took(self, acts: list[Act]) -> None:
        self.killed |= Act.KILL in acts
        if Act.FINISH in acts:
            self.killed = False

    @precondition(lambda self: not self.ended)
    @rule(lines=st.integers(0, 3))
    def hello(self, lines: int) -> None:
        was_alive = self.brake.alive
        acts = self.brake.hello()
        assert acts == ([Act.FINISH] if was_alive else [])
        self.took(acts)
        self.killed = False
        self.lines = lines
        self.stamp = self.end = 0

    @rule()
    def dies(self) -> None:
        was_alive = self.brake.alive
        acts = self.brake.died()
        assert acts == ([Act.FINISH] if was_alive else [])
        self.took(acts)

    @rule(moves=st.booleans(), ms=st.integers(-20, 200))
    def stamps(self, moves: bool, ms: int) -> None:
        self.stamp = self.now if moves else 0
        self.end = self.now + ms * MS if moves else 0

    @rule()
    def gives_a_line_up(self) -> None:
        self.lines = max(0, self.lines - 1)

    @rule(by_root=st.booleans())
    def leaves(self, by_root: bool) -> None:
        if by_root:
            self.brake.root_gone(self.now)
        else:
            self.brake.stop(self.now)
        if self.leaving_since is None:
            self.leaving_since = self.now

    @rule(ms=st.integers(0, 400), stands=st.booleans())
    def time_passes(self, ms: int, stands: bool) -> None:
        self.now += ms * MS
        age = self.now - self.stamp if self.stamp else 0
        alive, killed = self.brake.alive, self.killed
        acts = self.brake.look(self.now, self.stamp, self.lines, lambda: stands, self.end)
        if Act.EXIT in acts:
            assert self.lines == 0, "no line is left alone"
            assert not alive, "a process that lives is given up first"
            assert self.leaving_since is not None
            self.ended = True
        if Act.KILL in acts:
            assert alive
            assert not killed
            overdue = self.end and self.now >= self.end + OVERDUE
            late = age >= HUNG or ((age >= LATE or overdue) and stands)
            assert late or (
                self.leaving_since is not None and self.now - self.leaving_since >= DISABLE_GRACE
            )
        if self.leaving_since is None and not self.stamp and not killed:
            assert acts == []
        self.took(acts)
        due = self.brake.due(self.stamp, self.lines, self.end)
        if self.brake.alive and not self.killed and self.stamp and not acts:
            assert due is not None, "a stamp is always watched"
            assert due <= max(self.now, self.stamp + HUNG)
        if due is not None and not self.ended and not acts:
            assert due > self.now, "no look is repeated in vain"

    @invariant()
    def a_leaving_brake_ends(self) -> None:
        if self.leaving_since is not None and not self.ended and not self.killed:
            assert self.brake.due(self.stamp, self.lines, self.end) is not None or (
                not self.brake.alive and self.lines
            )


TestLife = Life.TestCase


@given(kind=st.sampled_from(Kind), number=st.integers(0, 2**32 - 1), name=st.text(max_size=300))
def test_messages_survive_the_channel(kind: Kind, number: int, name: str) -> None:
    data = encode(Message(kind, number, name))
    assert len(data) <= SIZE
    message = decode(data)
    assert message is not None
    assert message[:2] == (kind, number)
    text = name.encode(errors="replace")
    if len(text) <= NAME_MAX:
        assert message.name == text.decode()


@given(data=st.binary(max_size=300))
def test_any_bytes_are_a_message_or_none(data: bytes) -> None:
    message = decode(data)
    assert message is None or isinstance(message.kind, Kind)


def test_the_brake_writes_the_frame_of_the_protocol() -> None:
    assert frames.DELIMITER + frames.encode(DevDisable()) == DISABLE
