"""The device process as the root starts it: it disables its devices however it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
import trio
from support.device_robot import CATALOG, Board, make_board
from support.leases import keep

from rt.app import ChildSettings
from rt.buffer import BufferStore, DeviceBuffer, LeaseTable
from rt.buffer.write_event import WriteEvent
from rt.config import Config
from rt.emulator.lines import connect_emulated, serve_pty
from rt.process.lifeline import open_lifeline
from rt.protocol.message import DevDisable, DevWrite, SubReq

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0


@dataclass
class Child:
    """The process, its lifeline, and the side of its commander."""

    process: subprocess.Popen[bytes]
    lifeline: socket.socket
    port: int
    write_event: WriteEvent
    leases: LeaseTable
    buffers: BufferStore

    def buffer_of(self, board: Board) -> DeviceBuffer:
        return self.buffers.get_or_open(board.device.uid, create=False)

    async def keep_lease(self) -> None:
        while True:
            self.leases.heartbeat()
            if keep(self.leases.lease(0)):
                self.write_event.signal()
            await trio.sleep(0.02)

    async def exit_code(self) -> int:
        with trio.fail_after(PATIENCE):
            while (code := self.process.poll()) is None:  # noqa: ASYNC110
                await trio.sleep(0.005)
        return code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def start(
    prefix: str,
    directory: Path,
    port: int,
    write_event: WriteEvent,
    *,
    log: IO[bytes] | None = None,
) -> Iterator[Child]:
    config = Config(
        dev_vsd_addr=f"tcp://127.0.0.1:{port}",
        dev_ports=(f"{directory}/ttyACM*",),
        log_level="debug",
    ).resolved(directory)
    settings = ChildSettings(
        role="device",
        config=config,
        directory=str(directory),
        shm_prefix=prefix,
        write_event=write_event.fd,
    )
    ours, theirs = open_lifeline(settings.encode())
    command = [sys.executable, "-P", "-m", "rt", "_child", "device", str(theirs.fileno())]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with (
        LeaseTable.open(prefix) as leases,
        BufferStore(CATALOG, prefix, write_event=write_event, lock_timeout=0.1) as store,
        subprocess.Popen(
            command, pass_fds=(theirs.fileno(), write_event.fd), env=environment, stdout=log
        ) as process,
    ):
        theirs.close()
        try:
            yield Child(process, ours, port, write_event, leases, store)
        finally:
            process.kill()
            ours.close()


@asynccontextmanager
async def driving(prefix: str, directory: Path) -> AsyncIterator[tuple[Child, list[Board]]]:
    """A device process that drives two motors."""
    write_event = WriteEvent()
    try:
        with trio.fail_after(PATIENCE), start(prefix, directory, free_port(), write_event) as child:
            boards = [make_board("polar-bear", number=number) for number in range(2)]
            async with trio.open_nursery() as nursery:
                for board in boards:
                    nursery.start_soon(connect_emulated, board.device, "127.0.0.1", child.port)
                for board in boards:
                    await board.receives(SubReq)
                nursery.start_soon(child.keep_lease)
                await trio.sleep(0.05)
                for board in boards:
                    child.buffer_of(board).write("duty_cycle", 0.5)
                    await board.receives(DevWrite)
                yield child, boards
                nursery.cancel_scope.cancel()
    finally:
        write_event.close()


async def disabled(boards: list[Board]) -> None:
    for board in boards:
        board.received.clear()
    for board in boards:
        await board.receives(DevDisable)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_disables_devices_and_exits_with_code_0(
    prefix: str, tmp_path: Path, number: signal.Signals
) -> None:
    async with driving(prefix, tmp_path) as (child, boards):
        child.process.send_signal(number)
        child.process.send_signal(number)
        await disabled(boards)
        assert await child.exit_code() == 0
        assert all(board.device.values["duty_cycle"] == 0 for board in boards)


async def test_root_exit_disables_devices_and_ends_process(prefix: str, tmp_path: Path) -> None:
    async with driving(prefix, tmp_path) as (child, boards):
        child.lifeline.close()
        await disabled(boards)
        # On a busy machine the kernel's alarm may come first, after the devices were disabled.
        assert await child.exit_code() in {0, -signal.SIGALRM}


async def test_next_device_process_finds_devices_of_killed_one(prefix: str, tmp_path: Path) -> None:
    async with driving(prefix, tmp_path) as (child, boards):
        child.process.kill()
        with start(prefix, tmp_path, child.port, child.write_event):
            for board in boards:
                board.received.clear()
            for board in boards:
                await board.receives(SubReq)


async def test_taken_address_exits_with_code_75(prefix: str, tmp_path: Path) -> None:
    write_event = WriteEvent()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with start(prefix, tmp_path, int(taken.getsockname()[1]), write_event) as child:
            with trio.fail_after(PATIENCE):
                assert await child.exit_code() == 75
    write_event.close()


async def test_board_on_port_is_found_and_observer_is_logged(prefix: str, tmp_path: Path) -> None:
    write_event = WriteEvent()
    log = tmp_path / "log"
    board = make_board("limit-switch")
    with (
        log.open("wb") as file,
        trio.fail_after(PATIENCE),
        start(prefix, tmp_path, free_port(), write_event, log=file),
    ):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_pty, board.device, tmp_path / "ttyACM0")
            await board.receives(SubReq)
            nursery.cancel_scope.cancel()
    write_event.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (entry,) = [line for line in lines if "observer" in line]
    assert entry["observer"] == "EventObserver" or entry["reason"]
