"""The brake as a process, with pseudo-terminals and a device process that fails."""

import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.brake import PATIENCE, Bench, open_bench

from rt.brake.machine import LATE
from rt.brake.process import _read_settings
from rt.brake.protocol import DISABLE, Kind
from rt.brake.watch import WAITING

MISSING_PID = 1 << 30  # above the limit of the kernel


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Yield a brake that knows a device process with two lines."""
    with open_bench() as bench:
        bench.wait_for(Kind.ASK)
        bench.introduce(bench.victim.pid)
        bench.wait_for(Kind.ASK)
        for _ in range(2):
            bench.open()
        bench.send(Kind.ALL)
        yield bench


def wake(bench: Bench) -> None:
    os.eventfd_write(bench.connection.device.wakeup, 1)


def end_device_process(bench: Bench) -> None:
    """Kill the device process and close its descriptors."""
    for line in bench.lines:
        bench.close_port(line)
    bench.victim.kill()


def test_lines_of_a_killed_device_process_are_disabled(bench: Bench) -> None:
    end_device_process(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)
    event = bench.wait_for_event("devices disabled by the brake")
    assert event["reason"] == "the device process ended"
    assert set(event["lines"].values()) == {"disabled"}


def test_stopped_device_process_is_killed_and_its_lines_are_disabled(bench: Bench) -> None:
    bench.heartbeat.renew()
    wake(bench)
    bench.victim.send_signal(signal.SIGSTOP)
    for line in bench.lines:
        line.wait_for(DISABLE)
    assert bench.victim.wait(PATIENCE) == -signal.SIGKILL
    assert (
        bench.wait_for_event("device process killed")["reason"] == "the device process is stopped"
    )


def test_late_device_process_is_warned_before_it_is_killed(bench: Bench) -> None:
    bench.heartbeat.renew()
    wake(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)
    bench.wait_for(Kind.BRAKED)
    assert (
        bench.wait_for_event("devices disabled by the brake")["reason"]
        == "the device process is late"
    )
    assert bench.victim.wait(PATIENCE) == -signal.SIGKILL
    assert bench.wait_for_event("device process killed")["reason"] == "the device process hangs"


def test_device_process_that_stamps_is_left_alone(bench: Bench) -> None:
    for _ in range(3):
        bench.heartbeat.renew()
        wake(bench)
        bench.heartbeat.clear()
        time.sleep(2 * LATE / 1e9)
    assert all(line.is_silent() for line in bench.lines)
    end_device_process(bench)
    assert (
        bench.wait_for_event("devices disabled by the brake")["reason"]
        == "the device process ended"
    )


def test_exit_of_the_root_kills_a_device_process_with_lines(bench: Bench) -> None:
    bench.lifeline.close()
    for line in bench.lines:
        line.wait_for(DISABLE)
    assert bench.victim.wait(PATIENCE) == -signal.SIGKILL
    assert bench.brake.wait(PATIENCE) == 0


def test_exit_of_root_and_device_process_disables_lines(bench: Bench) -> None:
    bench.lifeline.close()
    end_device_process(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)
    assert bench.brake.wait(PATIENCE) == 0


def test_sigterm_disables_every_line_before_the_brake_ends(bench: Bench) -> None:
    bench.brake.terminate()
    for line in bench.lines:
        line.wait_for(DISABLE)
    assert bench.brake.wait(PATIENCE) == 0


def test_stopped_brake_keeps_the_port_locks_of_a_living_process(bench: Bench) -> None:
    bench.brake.terminate()
    assert bench.brake.wait(PATIENCE) == 0
    assert all(line.is_locked() for line in bench.lines)


def test_ports_of_a_dead_process_are_unlocked_in_the_end(bench: Bench) -> None:
    end_device_process(bench)
    bench.lifeline.close()
    assert bench.brake.wait(PATIENCE) == 0
    assert not any(line.is_locked() for line in bench.lines)


def test_brake_without_lines_exits_immediately(bench: Bench) -> None:
    for line in bench.lines:
        bench.send(Kind.CLOSED, line.number)
    bench.victim.kill()
    bench.victim.wait()
    bench.brake.terminate()
    assert bench.brake.wait(PATIENCE) == 0
    assert all(line.is_silent() for line in bench.lines)


def test_full_line_is_flushed_and_delays_no_other_line(bench: Bench) -> None:
    full, other = bench.lines
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full.port, b"x" * 1000)
    end_device_process(bench)
    other.wait_for(DISABLE)
    full.wait_for(DISABLE)


def test_dead_line_delays_no_other_line(bench: Bench) -> None:
    dead, other = bench.lines
    with Path(os.devnull).open("rb") as nothing:  # an unplugged board
        os.dup2(nothing.fileno(), dead.board, inheritable=False)
    end_device_process(bench)
    other.wait_for(DISABLE)
    event = bench.wait_for_event("devices disabled by the brake")
    assert sorted(event["lines"].values()) == ["dead", "disabled"]


def test_tcp_line_is_disabled_and_then_closed(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as board:
            ours, _ = server.accept()
            ours.setblocking(False)
            bench.send(Kind.LINE, 9, f"tcp://127.0.0.1:{port}", ours.fileno())
            board.sendall(b"unread by the device process")
            ours.close()
            end_device_process(bench)
            board.settimeout(PATIENCE)
            data = b""
            while chunk := board.recv(100):
                data += chunk
            assert data == DISABLE


def test_full_line_of_a_killed_process_is_disabled_by_the_brake(bench: Bench) -> None:
    with full_line(bench, 9) as board:
        bench.send(Kind.CLOSED, bench.lines[0].number)
        end_device_process(bench)
        bench.lifeline.close()  # the root exits
        assert bench.brake.poll() is None
        received = b""
        while DISABLE not in received:
            received += board.recv(65536)
    assert bench.brake.wait(PATIENCE) == 0
    assert bench.wait_for_event("devices disabled by the brake")["lines"]["full"] == "disabled"


def descriptors(bench: Bench) -> list[str]:
    names = []
    for path in Path(f"/proc/{bench.brake.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed in the meantime
            names.append(str(path.readlink()))
    return names


def wait_until_closed(bench: Bench, port: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while port in descriptors(bench):
        assert time.monotonic() < deadline, "the duplicate stays open"
        time.sleep(0.005)


def test_duplicate_of_a_closed_line_is_closed(bench: Bench) -> None:
    line = bench.lines[0]
    port = os.ttyname(line.port)
    bench.send(Kind.CLOSED, line.number)
    wait_until_closed(bench, port)
    assert line.is_silent()


def test_line_that_is_not_announced_again_is_closed(bench: Bench) -> None:
    gone, kept = bench.lines
    port = os.ttyname(gone.port)
    bench.introduce(bench.victim.pid)
    bench.send(Kind.LINE, kept.number, "kept", kept.port)
    bench.send(Kind.ALL)
    wait_until_closed(bench, port)
    end_device_process(bench)
    kept.wait_for(DISABLE)
    assert gone.is_silent()


def test_new_brake_asks_for_all_lines(bench: Bench) -> None:
    bench.brake.kill()
    bench.brake.wait()
    bench.send(Kind.CLOSED, bench.lines[0].number)
    bench.start_brake()
    bench.introduce_lines()
    end_device_process(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)


def test_invalid_messages_are_ignored(bench: Bench) -> None:
    for data in (b"\xff" * 20, b"\x01", bytes(300)):
        bench.channel.send(data)
    socket.send_fds(bench.channel, [b"?????????"], [bench.lines[0].port] * 3)
    end_device_process(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)


def test_message_with_an_unexpected_descriptor_leaves_none_open(
    bench: Bench, tmp_path: Path
) -> None:
    path = tmp_path / "unexpected"
    with path.open("wb") as file:
        bench.send(Kind.ASK, 1, "", file.fileno())  # a message of the brake itself
        bench.send(Kind.CLOSED, 99)  # a line that was never announced
        bench.victim.kill()
        bench.wait_for_event("devices disabled by the brake")
        bench.send(Kind.LINE, 7, "of a dead process", file.fileno())
    wait_until_closed(bench, str(path))
    bench.lifeline.close()
    assert bench.brake.wait(PATIENCE) == 0


@pytest.mark.parametrize("unread", [False, True])
def test_closed_channel_does_not_end_the_brake(bench: Bench, *, unread: bool) -> None:
    if unread:
        bench.introduce(bench.victim.pid, MISSING_PID)  # the brake replies
        assert select.select([bench.channel], [], [], PATIENCE)[0]
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), bench.connection.device.channel, inheritable=False)
    bench.channel.close()
    bench.lifeline.close()
    for line in bench.lines:
        line.wait_for(DISABLE)
    assert bench.brake.wait(PATIENCE) == 0


def test_lines_of_replaced_device_processes_are_disabled(bench: Bench) -> None:
    """A new device process means that the earlier one is dead, even if its exit is not reported."""
    with (
        full_line(bench, 9) as earlier,
        subprocess.Popen([sys.executable, "-S", "-c", ""]) as successor,
    ):
        os.waitid(os.P_PID, successor.pid, os.WEXITED | os.WNOWAIT)
        bench.brake.send_signal(signal.SIGSTOP)
        bench.introduce(successor.pid)
        bench.open()
        bench.brake.send_signal(signal.SIGCONT)
        for line in bench.lines:
            line.wait_for(DISABLE)
        received = b""
        while DISABLE not in received:
            received += earlier.recv(65536)
        assert received.count(DISABLE) == 1, "only its own process's end concerns a line"


def test_late_process_missing_in_proc_is_killed(bench: Bench) -> None:
    bench.introduce(bench.victim.pid, MISSING_PID)
    bench.wait_for(Kind.ASK)
    bench.heartbeat.renew()
    wake(bench)
    assert bench.wait_for_event("device process killed")["killed"] == MISSING_PID
    assert bench.victim.wait(PATIENCE) == -signal.SIGKILL


def test_supervised_brake_reports_its_state_and_logs_to_the_pipe(bench: Bench) -> None:
    supervisor, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader, writer = os.pipe()
    with supervisor, child, os.fdopen(reader, "rb") as log:
        bench.replace_brake(
            environment={
                "RT_NOTIFY": f"{child.fileno()}:{os.fstat(child.fileno()).st_ino}",
                "RT_LOG_FD": str(writer),
                "WATCHDOG_USEC": "20000",
            },
            pass_fds=(child.fileno(), writer),
        )
        os.close(writer)
        supervisor.settimeout(PATIENCE)
        assert supervisor.recv(100) == b"READY=1"
        assert supervisor.recv(100) == f"STATUS={WAITING}".encode()
        bench.introduce_lines()
        reports: list[bytes] = []
        while reports.count(b"WATCHDOG=1") < 2 or b"STATUS=2 lines" not in reports:
            reports.append(supervisor.recv(100))
        end_device_process(bench)
        assert json.loads(log.readline())["event"] == "devices disabled by the brake"


@pytest.mark.parametrize("variable", ["9999:1", "0:0", "nonsense"])
def test_brake_with_an_invalid_supervisor_works_without(bench: Bench, variable: str) -> None:
    bench.replace_brake(environment={"RT_NOTIFY": variable})
    bench.introduce_lines()
    end_device_process(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)


def give_up_priority() -> None:
    """Give up the capability to raise priorities (prctl(2), PR_CAPBSET_DROP CAP_SYS_NICE)."""
    ctypes.CDLL(None).prctl(24, 23, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))


def test_brake_works_without_permission_to_raise_its_priority(bench: Bench) -> None:
    bench.replace_brake(preexec=give_up_priority)
    bench.introduce_lines()
    assert os.sched_getscheduler(bench.brake.pid) == os.sched_getscheduler(0)
    end_device_process(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)


def test_root_that_exits_before_the_settings_is_an_error() -> None:
    root, lifeline = socket.socketpair()
    with lifeline:
        root.sendall(struct.pack("<I", 100) + b"{")
        root.close()
        with pytest.raises(EOFError, match="before it sent the settings"):
            _read_settings(lifeline)


def wait_until_settled(bench: Bench) -> None:
    deadline = time.monotonic() + PATIENCE
    while not bench.heartbeat.is_settled:
        assert time.monotonic() < deadline, (
            "the brake does not report that every device is disabled"
        )
        time.sleep(0.005)


@contextlib.contextmanager
def full_line(bench: Bench, number: int) -> Iterator[socket.socket]:
    """Announce a line that accepts nothing until its other end is read; yield that end."""
    ours, board = socket.socketpair()
    with board:
        ours.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x" * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send(b"x")
        bench.send(Kind.LINE, number, "full", ours.fileno())
        ours.close()
        yield board


def test_late_process_is_settled_until_it_stamps_again(bench: Bench) -> None:
    assert bench.heartbeat.is_settled
    bench.heartbeat.renew()
    assert not bench.heartbeat.is_settled
    wake(bench)
    for line in bench.lines:
        line.wait_for(DISABLE)
    wait_until_settled(bench)
    bench.heartbeat.renew()
    assert not bench.heartbeat.is_settled


def test_dead_process_is_settled_after_its_lines_are_disabled(bench: Bench) -> None:
    bench.heartbeat.renew()
    wake(bench)
    end_device_process(bench)
    wait_until_settled(bench)
    assert bench.heartbeat.stamp
    for line in bench.lines:
        line.wait_for(DISABLE)


def test_unplugged_board_does_not_prevent_settling(bench: Bench) -> None:
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), bench.lines[0].board, inheritable=False)
    bench.heartbeat.renew()
    wake(bench)
    end_device_process(bench)
    wait_until_settled(bench)


def test_line_that_refuses_is_never_settled(bench: Bench) -> None:
    with full_line(bench, 9):
        bench.heartbeat.renew()
        wake(bench)
        end_device_process(bench)
        for line in bench.lines:
            line.wait_for(DISABLE)
        assert not bench.heartbeat.is_settled
        event = bench.wait_for_event("devices disabled by the brake")
        assert sorted(event["lines"].values()) == ["disabled", "disabled", "refused"]
        assert not bench.heartbeat.is_settled


def test_pending_line_is_not_settled(bench: Bench) -> None:
    with full_line(bench, 9) as board:
        end_device_process(bench)
        deadline = time.monotonic() + PATIENCE
        while bench.heartbeat.is_settled:
            assert time.monotonic() < deadline
        received = b""
        while DISABLE not in received:
            received += board.recv(65536)
    wait_until_settled(bench)


def test_process_with_unknown_lines_is_not_settled(bench: Bench) -> None:
    bench.introduce(bench.victim.pid)
    bench.heartbeat.renew()
    wake(bench)
    end_device_process(bench)
    bench.wait_for_event("devices disabled by the brake")
    assert not bench.heartbeat.is_settled


def test_dead_process_without_a_brake_is_not_settled(bench: Bench) -> None:
    bench.heartbeat.renew()
    bench.brake.kill()
    bench.brake.wait()
    end_device_process(bench)
    bench.victim.wait()
    bench.start_brake()
    bench.wait_for(Kind.ASK)
    assert not bench.heartbeat.is_settled
    bench.heartbeat.clear()  # like the next device process
    assert bench.heartbeat.is_settled
