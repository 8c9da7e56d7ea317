"""Tests of sd_notify over real sockets, also without a receiver."""

import os
import resource
import socket
from pathlib import Path

import pytest
import trio
from support.supervised import place

from rt.process.notify import FD_VARIABLE, VARIABLE, Channel, Listener, send, watchdog_period
from rt.protocol.notify import Notice


async def test_notice_is_received() -> None:
    with place() as directory, Listener(directory / "n.sock") as listener:
        assert send(ready=True, status="all well", env={VARIABLE: str(listener.path)})
        with trio.fail_after(30):
            assert await listener.receive() == Notice(ready=True, status="all well")
        assert listener.receive_nowait() is None


async def test_cancelled_receive_loses_no_notice() -> None:
    with place() as directory, Listener(directory / "n.sock") as listener:
        with trio.move_on_after(0.01):
            await listener.receive()
        send(watchdog=True, env={VARIABLE: str(listener.path)})
        with trio.fail_after(30):
            assert (await listener.receive()).watchdog


def test_stale_socket_is_replaced() -> None:
    with place() as directory:
        path = directory / "n.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as old:
            old.bind(str(path))
        with Listener(path) as listener:
            assert send(ready=True, env={VARIABLE: str(path)})
            assert listener.receive_nowait() == Notice(ready=True)


@pytest.mark.parametrize(
    "address",
    ["", "relative", "/nonexistent/socket", "@no-such-socket", "/" + "x" * 200, "vsock:2:1"],
)
def test_missing_receiver_is_no_error(address: str) -> None:
    assert not send(ready=True, env={VARIABLE: address})


def test_abstract_address_is_supported() -> None:
    name = f"rt-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as parent:
        parent.bind("\0" + name)
        assert send(stopping=True, env={VARIABLE: "@" + name})
        assert parent.recv(100) == b"STOPPING=1"


def test_send_does_not_block_when_the_queue_is_full() -> None:
    with place() as directory, Listener(directory / "n.sock") as listener:
        answers = [send(watchdog=True, env={VARIABLE: str(listener.path)}) for _ in range(2000)]
    assert answers[0]
    assert not answers[-1]


def test_closed_listener_leaves_no_file() -> None:
    with place() as directory:
        listener = Listener(directory / "n.sock")
        listener.close()
        listener.close()


@pytest.mark.parametrize(
    ("value", "period"), [("2000000", 1.0), ("", None), ("0", None), ("soon", None), ("-5", None)]
)
def test_watchdog_period_is_half_of_the_timeout(value: str, period: float | None) -> None:
    assert watchdog_period({"WATCHDOG_USEC": value, "WATCHDOG_PID": "1"}) == period


async def test_removed_socket_is_created_again(tmp_path: Path) -> None:
    with Listener(tmp_path / "d.sock") as listener:
        assert not listener.was_unreachable()
        listener.path.unlink()
        assert listener.was_unreachable()
        assert send(ready=True, env={VARIABLE: str(listener.path)})
        with trio.fail_after(30):
            assert (await listener.receive()).ready


def test_invalid_address_is_no_error() -> None:
    assert not send(ready=True, env={VARIABLE: "/a\0b"})


async def test_channel_receives_without_a_file() -> None:
    with Channel() as channel:
        env = channel.environment()
        assert send(ready=True, env=env | {VARIABLE: "/nowhere"})
        with trio.fail_after(30):
            assert await channel.receive() == Notice(ready=True)
        channel.started()
        assert not send(ready=True, env=env), "the descriptor is closed"


def test_full_channel_does_not_block_the_child() -> None:
    with Channel() as channel:
        answers = [send(watchdog=True, env=channel.environment()) for _ in range(5000)]
    assert answers[0]
    assert not answers[-1]


def test_channel_receives_without_a_free_descriptor() -> None:
    with Channel() as channel:
        env = channel.environment()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            assert send(watchdog=True, env=env)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert channel.receive_nowait() == Notice(watchdog=True)


@pytest.mark.parametrize(
    "value", ["", "x", "1", "1:", "1:0", "9999:1", "-1:1", "99999999999999999999:1", ":", "²:1"]
)
def test_channel_of_another_process_is_not_used(value: str) -> None:
    assert not send(ready=True, env={FD_VARIABLE: value})


def test_descriptor_of_another_file_is_not_written(tmp_path: Path) -> None:
    with Channel() as channel, (tmp_path / "file").open("wb") as file:
        inode = channel.environment()[FD_VARIABLE].partition(":")[2]
        assert not send(ready=True, env={FD_VARIABLE: f"{file.fileno()}:{inode}"})
    assert not (tmp_path / "file").read_bytes()
