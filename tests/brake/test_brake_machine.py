"""The brake's decisions, for all orders of events."""

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


def not_stopped() -> bool:
    return False


def is_stopped() -> bool:
    return True


def make_live() -> Brake:
    brake = Brake()
    assert brake.device_started() == []
    return brake


def test_exit_of_the_device_process_disables_its_lines() -> None:
    brake = make_live()
    assert brake.device_exited() == [Act.RELEASE]
    assert brake.device_exited() == [], "only once"


def test_new_device_process_means_the_old_one_exited() -> None:
    brake = make_live()
    assert brake.device_started() == [Act.RELEASE]
    assert brake.alive


def test_stopped_process_is_killed_and_its_lines_are_disabled() -> None:
    brake = make_live()
    assert brake.check(NOW, NOW - LATE + 1, 1, is_stopped) == []
    assert brake.check(NOW, NOW - LATE, 1, is_stopped) == [Act.KILL]
    assert brake.check(NOW + KILL_GRACE - 1, NOW - LATE, 1, is_stopped) == []
    assert brake.check(NOW + KILL_GRACE, NOW - LATE, 1, is_stopped) == [Act.DISABLE], (
        "its exit takes long"
    )
    assert brake.check(NOW + 2 * KILL_GRACE, NOW - LATE, 1, is_stopped) == []
    assert brake.device_exited() == [Act.RELEASE]
    assert brake.reason == "the device process is stopped"


def test_late_process_is_disabled_once_per_stamp() -> None:
    brake = make_live()
    assert brake.check(NOW, NOW - LATE, 1, not_stopped) == [Act.DISABLE, Act.WARN]
    assert brake.check(NOW + MS, NOW - LATE, 1, not_stopped) == []
    assert brake.check(NOW + MS + LATE, NOW + MS, 1, not_stopped) == [Act.DISABLE, Act.WARN]


def test_process_that_stays_late_is_killed() -> None:
    brake = make_live()
    brake.check(NOW, NOW - LATE, 1, not_stopped)
    assert brake.due(NOW - LATE, 1) == NOW + RECHECK
    assert brake.check(NOW - LATE + HUNG - 1, NOW - LATE, 1, not_stopped) == []
    assert brake.due(NOW - LATE, 1) == NOW - LATE + HUNG
    assert brake.check(NOW - LATE + HUNG, NOW - LATE, 1, not_stopped) == [Act.KILL]


@given(gaps=st.lists(st.integers(1, 150), max_size=30))
def test_sleeping_brake_detects_a_stopped_process(gaps: list[int]) -> None:
    """A stamp wakes the brake only if the previous one was 0."""
    brake = make_live()
    stamps = [NOW, *(NOW + sum(gaps[: count + 1]) * MS for count in range(len(gaps)))]
    now, acts = NOW, []
    while Act.KILL not in acts:
        stamp = max(each for each in stamps if each <= now)
        acts = brake.check(now, stamp, 1, lambda: now > stamps[-1])  # noqa: B023 - called at once
        due = brake.due(stamp, 1)
        assert due is not None or Act.KILL in acts
        last, now = now, max(now, due or 0)
    assert last <= stamps[-1] + LATE + RECHECK


def test_stopped_process_is_killed_when_its_lease_expires() -> None:
    brake = make_live()
    end, stamp = NOW, NOW - 5 * MS
    assert brake.due(stamp, 1, end) == end + OVERDUE < stamp + LATE
    assert brake.check(end + OVERDUE - 1, stamp, 1, is_stopped, end) == []
    assert brake.check(end + OVERDUE, stamp, 1, is_stopped, end) == [Act.KILL]


def test_devices_are_disabled_once_per_expired_lease() -> None:
    brake = make_live()
    now = NOW + OVERDUE
    assert brake.check(now, now - MS, 1, not_stopped, NOW) == [Act.DISABLE, Act.WARN]
    assert not brake.is_silent, "it may have written after its stamp"
    assert brake.check(now + 20 * MS, now + 19 * MS, 1, not_stopped, NOW) == []
    assert brake.check(now + 40 * MS, now + 39 * MS, 1, not_stopped, NOW + 20 * MS) == [
        Act.DISABLE,
        Act.WARN,
    ]


def test_late_process_is_disabled_again_after_its_lease_expired() -> None:
    brake = make_live()
    brake.check(NOW + OVERDUE, NOW, 1, not_stopped, NOW)
    assert brake.due(NOW, 1, NOW) == NOW + LATE, "it may have written since then"
    assert brake.check(NOW + LATE, NOW, 1, not_stopped, NOW) == [Act.DISABLE, Act.WARN]
    assert brake.is_silent


def test_renewed_lease_causes_no_action() -> None:
    brake = make_live()
    for now in range(NOW, NOW + 1000 * MS, 20 * MS):
        assert brake.check(now, now, 1, is_stopped, now + 40 * MS) == []


def test_nothing_is_due_while_no_device_can_move() -> None:
    brake = make_live()
    assert brake.due(0, 3) is None
    assert brake.check(NOW, 0, 3, is_stopped) == []


def test_device_process_may_disable_after_the_root_exited() -> None:
    brake = make_live()
    brake.root_exited(NOW)
    assert brake.check(NOW + DISABLE_GRACE - 1, 0, 1, not_stopped) == []
    assert brake.check(NOW + DISABLE_GRACE, 0, 1, not_stopped) == [Act.KILL]


def test_device_process_without_lines_has_longer_to_exit() -> None:
    brake = make_live()
    brake.root_exited(NOW)
    assert brake.check(NOW + DISABLE_GRACE, 0, 0, not_stopped) == []
    assert brake.due(0, 0) == NOW + EXIT_GRACE
    assert brake.check(NOW + EXIT_GRACE, 0, 0, not_stopped) == [Act.KILL]
    assert brake.device_exited() == [Act.RELEASE]
    assert brake.check(NOW + EXIT_GRACE, 0, 0, not_stopped) == [Act.EXIT]


def test_stop_disables_immediately_and_at_the_end_without_a_kill() -> None:
    brake = make_live()
    assert brake.stop(NOW) == [Act.DISABLE, Act.WARN]
    assert brake.stop(NOW) == []
    assert brake.check(NOW + STOP_GRACE - 1, 0, 1, not_stopped) == []
    assert brake.check(NOW + STOP_GRACE, 0, 1, not_stopped) == [Act.RELEASE]
    assert brake.check(NOW + STOP_GRACE, 0, 1, not_stopped) == []
    assert brake.check(NOW + STOP_GRACE, 0, 0, not_stopped) == [Act.EXIT]


def test_exit_of_the_root_overrides_a_stop() -> None:
    brake = make_live()
    brake.stop(NOW)
    brake.root_exited(NOW + MS)
    assert brake.check(NOW + MS + DISABLE_GRACE, 0, 1, not_stopped) == [Act.KILL]


class BrakeMachine(RuleBasedStateMachine):
    """All orders of events; actions are checked against the invariants of `rt.brake.machine`."""

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

    def apply(self, acts: list[Act]) -> None:
        self.killed |= Act.KILL in acts
        if Act.RELEASE in acts:
            self.killed = False

    @precondition(lambda self: not self.ended)
    @rule(lines=st.integers(0, 3))
    def device_started(self, lines: int) -> None:
        was_alive = self.brake.alive
        acts = self.brake.device_started()
        assert acts == ([Act.RELEASE] if was_alive else [])
        self.apply(acts)
        self.killed = False
        self.lines = lines
        self.stamp = self.end = 0

    @rule()
    def exits(self) -> None:
        was_alive = self.brake.alive
        acts = self.brake.device_exited()
        assert acts == ([Act.RELEASE] if was_alive else [])
        self.apply(acts)

    @rule(moves=st.booleans(), ms=st.integers(-20, 200))
    def stamps(self, moves: bool, ms: int) -> None:
        self.stamp = self.now if moves else 0
        self.end = self.now + ms * MS if moves else 0

    @rule()
    def releases_a_line(self) -> None:
        self.lines = max(0, self.lines - 1)

    @rule(by_root=st.booleans())
    def leaves(self, by_root: bool) -> None:
        if by_root:
            self.brake.root_exited(self.now)
        else:
            self.brake.stop(self.now)
        if self.leaving_since is None:
            self.leaving_since = self.now

    @rule(ms=st.integers(0, 400), stopped=st.booleans())
    def time_passes(self, ms: int, stopped: bool) -> None:
        self.now += ms * MS
        age = self.now - self.stamp if self.stamp else 0
        alive, killed = self.brake.alive, self.killed
        acts = self.brake.check(self.now, self.stamp, self.lines, lambda: stopped, self.end)
        if Act.EXIT in acts:
            assert self.lines == 0, "no line is left behind"
            assert not alive, "a living process is released first"
            assert self.leaving_since is not None
            self.ended = True
        if Act.KILL in acts:
            assert alive
            assert not killed
            overdue = self.end and self.now >= self.end + OVERDUE
            late = age >= HUNG or ((age >= LATE or overdue) and stopped)
            assert late or (
                self.leaving_since is not None and self.now - self.leaving_since >= DISABLE_GRACE
            )
        if self.leaving_since is None and not self.stamp and not killed:
            assert acts == []
        self.apply(acts)
        due = self.brake.due(self.stamp, self.lines, self.end)
        if self.brake.alive and not self.killed and self.stamp and not acts:
            assert due is not None, "a stamp is always checked"
            assert due <= max(self.now, self.stamp + HUNG)
        if due is not None and not self.ended and not acts:
            assert due > self.now, "no check is repeated without need"

    @invariant()
    def a_leaving_brake_exits(self) -> None:
        if self.leaving_since is not None and not self.ended and not self.killed:
            assert self.brake.due(self.stamp, self.lines, self.end) is not None or (
                not self.brake.alive and self.lines
            )


TestBrakeMachine = BrakeMachine.TestCase


@given(kind=st.sampled_from(Kind), number=st.integers(0, 2**32 - 1), name=st.text(max_size=300))
def test_messages_round_trip(kind: Kind, number: int, name: str) -> None:
    data = encode(Message(kind, number, name))
    assert len(data) <= SIZE
    message = decode(data)
    assert message is not None
    assert message[:2] == (kind, number)
    text = name.encode(errors="replace")
    if len(text) <= NAME_MAX:
        assert message.name == text.decode()


@given(data=st.binary(max_size=300))
def test_any_bytes_decode_to_a_message_or_none(data: bytes) -> None:
    message = decode(data)
    assert message is None or isinstance(message.kind, Kind)


def test_disable_is_the_frame_of_the_protocol() -> None:
    assert frames.DELIMITER + frames.encode(DevDisable()) == DISABLE
