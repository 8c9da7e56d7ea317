"""Reading of a log that a robot is writing: each line once, none missed."""

import os
import threading
from pathlib import Path

import pytest

from rt.logs import file as log_file
from rt.logs import read as log_read
from rt.logs.file import LogFile


def test_file_renamed_while_it_is_read_is_read_once_and_completely(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    file = LogFile(path, 100, 4)
    written = [b"%d" % number + b"x" * 80 for number in range(3)]
    for line in written:
        file.write([line])
    reading = log_read.read(path)
    read = [next(reading)]
    file.write([b"new" + b"x" * 80])  # every file is renamed
    file.close()
    assert [*read, *reading] == written


def test_file_renamed_while_files_are_opened_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "robot.log"
    path.write_bytes(b"new\n")
    path.with_name("robot.log.1").write_bytes(b"old\n")

    def numbered(path: Path, number: int) -> Path:
        if number == 1 and not log_file.numbered(path, 2).exists():
            LogFile(path, 1, 4).write([b"newest"])
        return log_file.numbered(path, number)

    monkeypatch.setattr("rt.logs.read.numbered", numbered)
    assert list(log_read.read(path)) == [b"old", b"new"]


def test_older_files_and_incomplete_lines_are_optional(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    path.write_bytes(b"new\nnot whole")
    path.with_name("robot.log.1").write_bytes(b"old\n")
    assert list(log_read.read(path, older=False)) == [b"new"]
    assert list(log_read.read(path, older=False, unfinished=True)) == [b"new", b"not whole"]
    path.unlink()
    assert list(log_read.read(path)) == [b"old"]
    assert list(log_read.read(tmp_path)) == []


def test_endless_line_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "robot.log"
    path.write_bytes(b"x" * (3 * log_read.MAX_LINE) + b"\nnext\n")
    first, after = log_read.read(path)
    assert first == b"x" * log_read.MAX_LINE + b" [line cut here]"
    assert after == b"next"


def test_pipe_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=[b"line\n"])
    writer.start()
    assert list(log_read.read(path, older=False)) == [b"line"]
    writer.join()
