"""The follower of a log: events in the file and live events are printed once."""

import io
import json
from pathlib import Path

import pytest
import structlog
import trio

from rt import log
from rt.log.stamp import now
from rt.logs.file import LogFile
from rt.logs.file_writer import LogFileWriter
from rt.logs.follower import Follower, Printer
from rt.logs.hub import LogHub
from rt.logs.view import LogView
from rt.protocol.logevent import encode_line

ODD = {"event": "odd", "level": "info", "app": {"a": [1]}, "child": [2]}
OLD = {
    "event": "old",
    "level": "info",
    "app": "device",
    "timestamp": "2020-01-01T00:00:00Z",
}  # before the clock was set


async def test_event_in_the_file_and_received_live_is_printed_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(stream=io.StringIO(), app="root")
    path, address = tmp_path / "robot.log", f"ipc://{tmp_path}/hub"
    # Already in the file, from another program.
    odd = {**ODD, "timestamp": now()}
    path.write_bytes(encode_line(odd) + b"\nno event\n")
    follower = Follower(Printer(LogView(as_json=True)), address, file=path, with_history=True)

    printed: list[str] = []

    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(LogHub([address]).run)
            await nursery.start(LogFileWriter(LogFile(path, 1 << 20, 2)).run)
            log.get_logger().info("before")
            log.relay(OLD)
            nursery.start_soon(follower.run)
            number = 0
            with trio.fail_after(40):
                while "live 20" not in printed:  # some of them while the file is read
                    log.get_logger().info(f"live {number}")
                    number += 1
                    await trio.sleep(0.02)
                    printed += [
                        json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()
                    ]
            nursery.cancel_scope.cancel()
    finally:
        structlog.reset_defaults()
    assert printed[:4] == ["odd", "no event", "before", "old"]
    assert printed[4:] == [f"live {each}" for each in range(len(printed) - 4)]
