"""A log is read while a robot writes it: each line once, and none is missed."""

import os
import threading
from pathlib import Path

import pytest

from rt.instance import logfile, logread
from rt.instance.logfile import LogFile


def test_a_file_that_gets_another_name_while_it_is_read_is_read_once_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    file = LogFile(path, 100, 4)
    written = [b"%d" % number + b"x" * 80 for number in range(3)]
    for line in written:
        file.write([line])
    reading = logread.read(path)
    read = [next(reading)]
    file.write([b"new" + b"x" * 80])  # every file is renamed
    file.close()
    assert [*read, *reading] == written


def test_a_file_that_gets_another_name_while_it_is_looked_for_is_met_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "robot.log"
    path.write_bytes(b"new\n")
    path.with_name("robot.log.1").write_bytes(b"old\n")

    def numbered(path: Path, number: int) -> Path:
        if number == 1 and not logfile.numbered(path, 2).exists():
            LogFile(path, 1, 4).write([b"newest"])
        return logfile.numbered(path, number)

    monkeypatch.setattr("rt.instance.logread.numbered", numbered)
    assert list(logread.read(path)) == [b"old", b"new"]


def test_without_older_files_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    path.write_bytes(b"new\nnot whole")
    path.with_name("robot.log.1").write_bytes(b"old\n")
    assert list(logread.read(path, older=False)) == [b"new"]
    assert list(logread.read(path, older=False, unfinished=True)) == [b"new", b"not whole"]
    path.unlink()
    assert list(logread.read(path)) == [b"old"]
    assert list(logread.read(tmp_path)) == []


def test_a_line_without_an_end_takes_a_bounded_room(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    path.write_bytes(b"x" * (3 * logread.MAX_LINE) + b"\nnext\n")
    first, after = logread.read(path)
    assert first == b"x" * logread.MAX_LINE + b" [line cut here]"
    assert after == b"next"


def test_what_comes_through_a_pipe_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[b"said\n"])
    writer.start()
    assert list(logread.read(path, older=False)) == [b"said"]
    writer.join()
