"""The brake as a process, with lines on pseudo-terminals and a device process that is killed, stopped or late."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brake import PATIENCE, Bench, bench

from rt.brake.machine import LATE
from rt.brake.protocol import DISABLE, Kind


@pytest.fixture
def driving() -> Iterator[Bench]:
    """A brake that knows a device process with two lines."""
    with bench() as made:
        made.hears(Kind.ASK)
        made.introduce(made.victim.pid)
        made.hears(Kind.ASK)
        for _ in range(2):
            made.open()
        made.tell(Kind.ALL)
        yield made


def ring(made: Bench) -> None:
    os.eventfd_write(made.connection.device.wakeup, 1)


def die(made: Bench) -> None:
    """Let the device process die, with its descriptors."""
    for line in made.lines:
        made.lose(line)
    made.victim.kill()


def test_killed_device_process_leaves_no_line_enabled(driving: Bench) -> None:
    die(driving)
    for line in driving.lines:
        line.hears(DISABLE)
    said = driving.said("devices disabled by the brake")
    assert said["reason"] == "the device process ended"
    assert set(said["lines"].values()) == {"disabled"}


def test_stopped_device_process_is_killed_and_its_lines_are_disabled(driving: Bench) -> None:
    driving.heartbeat.renew()
    ring(driving)
    driving.victim.send_signal(signal.SIGSTOP)
    for line in driving.lines:
        line.hears(DISABLE)
    assert driving.victim.wait(PATIENCE) == -signal.SIGKILL
    assert driving.said("the device process is killed")["reason"] == "the device process is stopped"


def test_late_device_process_is_disabled_over_and_told_before_it_is_killed(driving: Bench) -> None:
    driving.heartbeat.renew()
    ring(driving)
    for line in driving.lines:
        line.hears(DISABLE)
    driving.hears(Kind.BRAKED)
    assert driving.said("devices disabled by the brake")["reason"] == "the device process is late"
    assert driving.victim.wait(PATIENCE) == -signal.SIGKILL
    assert driving.said("the device process is killed")["reason"] == "the device process hangs"


def test_device_process_that_stamps_is_left_alone(driving: Bench) -> None:
    for _ in range(3):
        driving.heartbeat.renew()
        ring(driving)
        driving.heartbeat.clear()
        time.sleep(2 * LATE / 1e9)
    assert all(line.is_silent() for line in driving.lines)
    die(driving)
    assert driving.said("devices disabled by the brake")["reason"] == "the device process ended"


def test_end_of_the_root_kills_a_device_process_that_keeps_its_lines(driving: Bench) -> None:
    driving.lifeline.close()
    for line in driving.lines:
        line.hears(DISABLE)
    assert driving.victim.wait(PATIENCE) == -signal.SIGKILL
    assert driving.brake.wait(PATIENCE) == 0


def test_end_of_the_root_and_of_the_device_process_together(driving: Bench) -> None:
    driving.lifeline.close()
    die(driving)
    for line in driving.lines:
        line.hears(DISABLE)
    assert driving.brake.wait(PATIENCE) == 0


def test_sigterm_disables_every_line_before_the_brake_ends(driving: Bench) -> None:
    driving.brake.terminate()
    for line in driving.lines:
        line.hears(DISABLE)
    assert driving.brake.wait(PATIENCE) == 0


def test_brake_that_is_stopped_alone_leaves_a_living_process_the_lock_of_its_ports(
    driving: Bench,
) -> None:
    driving.brake.terminate()
    assert driving.brake.wait(PATIENCE) == 0
    assert all(line.is_locked() for line in driving.lines)


def test_ports_are_free_when_the_brake_has_disabled_over_a_dead_process(driving: Bench) -> None:
    die(driving)
    driving.lifeline.close()
    assert driving.brake.wait(PATIENCE) == 0
    assert not any(line.is_locked() for line in driving.lines)


def test_brake_without_lines_ends_at_once_with_its_device_process(driving: Bench) -> None:
    for line in driving.lines:
        driving.tell(Kind.CLOSED, line.number)
    driving.victim.kill()
    driving.victim.wait()
    driving.brake.terminate()
    assert driving.brake.wait(PATIENCE) == 0
    assert all(line.is_silent() for line in driving.lines)


def test_full_line_is_flushed_and_keeps_no_other_line_waiting(driving: Bench) -> None:
    full, other = driving.lines
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full.port, b"x" * 1000)
    die(driving)
    other.hears(DISABLE)
    full.hears(DISABLE)


def test_dead_line_keeps_no_other_line_waiting(driving: Bench) -> None:
    dead, other = driving.lines
    with Path(os.devnull).open("rb") as nothing:  # a board that is unplugged
        os.dup2(nothing.fileno(), dead.board, inheritable=False)
    die(driving)
    other.hears(DISABLE)
    said = driving.said("devices disabled by the brake")
    assert sorted(said["lines"].values()) == ["dead", "disabled"]


def test_tcp_line_is_disabled_and_then_ended(driving: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as board:
            ours, _ = server.accept()
            ours.setblocking(False)
            driving.tell(Kind.LINE, 9, f"tcp://127.0.0.1:{port}", ours.fileno())
            board.sendall(b"what the device process never read")
            ours.close()
            die(driving)
            board.settimeout(PATIENCE)
            data = b""
            while chunk := board.recv(100):
                data += chunk
            assert data == DISABLE


def test_process_killed_while_it_waits_for_a_full_line_leaves_it_to_the_brake(
    driving: Bench,
) -> None:
    with full_line(driving, 9) as board:
        driving.tell(Kind.CLOSED, driving.lines[0].number)
        die(driving)
        driving.lifeline.close()  # the robot ends
        assert driving.brake.poll() is None
        heard = b""
        while DISABLE not in heard:
            heard += board.recv(65536)
    assert driving.brake.wait(PATIENCE) == 0
    assert driving.said("devices disabled by the brake")["lines"]["full"] == "disabled"


def descriptors(made: Bench) -> list[str]:
    names = []
    for path in Path(f"/proc/{made.brake.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.append(str(path.readlink()))
    return names


def until_closed(made: Bench, port: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while port in descriptors(made):
        assert time.monotonic() < deadline, "the duplicate stays open"
        time.sleep(0.005)


def test_duplicate_of_a_closed_line_is_closed(driving: Bench) -> None:
    line = driving.lines[0]
    port = os.ttyname(line.port)
    driving.tell(Kind.CLOSED, line.number)
    until_closed(driving, port)
    assert line.is_silent()


def test_line_that_is_not_told_again_is_closed(driving: Bench) -> None:
    gone, kept = driving.lines
    port = os.ttyname(gone.port)
    driving.introduce(driving.victim.pid)
    driving.tell(Kind.LINE, kept.number, "kept", kept.port)
    driving.tell(Kind.ALL)
    until_closed(driving, port)
    die(driving)
    kept.hears(DISABLE)
    assert gone.is_silent()


def test_another_brake_asks_for_everything(driving: Bench) -> None:
    driving.brake.kill()
    driving.brake.wait()
    driving.tell(Kind.CLOSED, driving.lines[0].number)
    driving.start_brake()
    driving.hears(Kind.ASK)
    driving.introduce(driving.victim.pid)
    for line in driving.lines:
        driving.tell(Kind.LINE, line.number, "told again", line.port)
    driving.tell(Kind.ALL)
    die(driving)
    for line in driving.lines:
        line.hears(DISABLE)


def test_nonsense_on_the_channel_is_left_out(driving: Bench) -> None:
    for data in (b"\xff" * 20, b"\x01", bytes(300)):
        driving.channel.send(data)
    socket.send_fds(driving.channel, [b"?????????"], [driving.lines[0].port] * 3)
    die(driving)
    for line in driving.lines:
        line.hears(DISABLE)


def until_settled(made: Bench) -> None:
    deadline = time.monotonic() + PATIENCE
    while not made.heartbeat.is_settled:
        assert time.monotonic() < deadline, "the brake does not say that every device is disabled"
        time.sleep(0.005)


@contextlib.contextmanager
def full_line(made: Bench, number: int) -> Iterator[socket.socket]:
    """Register a line that takes nothing until its other end, which this yields, is read; the test's descriptor is closed."""
    ours, board = socket.socketpair()
    with board:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x")
        made.tell(Kind.LINE, number, "full", ours.fileno())
        ours.close()
        yield board


def test_brake_publishes_that_a_late_process_is_disabled_over_until_it_stamps_again(
    driving: Bench,
) -> None:
    assert driving.heartbeat.is_settled
    driving.heartbeat.renew()
    assert not driving.heartbeat.is_settled
    ring(driving)
    for line in driving.lines:
        line.hears(DISABLE)
    until_settled(driving)
    driving.heartbeat.renew()
    assert not driving.heartbeat.is_settled


def test_brake_publishes_that_a_dead_process_is_disabled_over(driving: Bench) -> None:
    driving.heartbeat.renew()
    ring(driving)
    die(driving)
    until_settled(driving)
    assert driving.heartbeat.stamp
    for line in driving.lines:
        line.hears(DISABLE)


def test_unplugged_board_does_not_keep_the_brake_from_settling(driving: Bench) -> None:
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), driving.lines[0].board, inheritable=False)
    driving.heartbeat.renew()
    ring(driving)
    die(driving)
    until_settled(driving)


def test_line_that_refuses_is_never_published_as_disabled(driving: Bench) -> None:
    with full_line(driving, 9):
        driving.heartbeat.renew()
        ring(driving)
        die(driving)
        for line in driving.lines:
            line.hears(DISABLE)
        assert not driving.heartbeat.is_settled
        said = driving.said("devices disabled by the brake")
        assert sorted(said["lines"].values()) == ["disabled", "disabled", "refused"]
        assert not driving.heartbeat.is_settled


def test_line_that_is_still_tried_is_not_settled_while_the_process_rests(driving: Bench) -> None:
    with full_line(driving, 9) as board:
        die(driving)
        deadline = time.monotonic() + PATIENCE
        while driving.heartbeat.is_settled:
            assert time.monotonic() < deadline
        heard = b""
        while DISABLE not in heard:
            heard += board.recv(65536)
    until_settled(driving)


def test_death_of_a_process_that_was_not_introduced_fully_is_not_settled(driving: Bench) -> None:
    driving.introduce(driving.victim.pid)
    driving.heartbeat.renew()
    ring(driving)
    die(driving)
    driving.said("devices disabled by the brake")
    assert not driving.heartbeat.is_settled


def test_without_a_brake_a_dead_process_is_not_settled(driving: Bench) -> None:
    driving.heartbeat.renew()
    driving.brake.kill()
    driving.brake.wait()
    die(driving)
    driving.victim.wait()
    driving.start_brake()
    driving.hears(Kind.ASK)
    assert not driving.heartbeat.is_settled
    driving.heartbeat.clear()  # the next device process
    assert driving.heartbeat.is_settled
