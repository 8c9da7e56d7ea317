"""Log files on real disks: bounded size, complete lines, counted losses."""

import errno
import json
import os
import resource
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.stranger import require_another_user, run_stranger

from rt.logs import read
from rt.logs.file import LogFile
from rt.logs.place import link_log, linked_log, log_directory, log_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "on demand" / "robot.log"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", place], check=True)


def lines_of(path: Path) -> list[bytes]:
    return list(read.read(path))


def test_next_robot_appends_to_the_same_file(path: Path) -> None:
    for word in (b"one", b"two"):
        file = LogFile(path, 1000, 3)
        assert file.write([word, word]) == 2
        file.close()
    assert path.read_bytes() == b"one\none\ntwo\ntwo\n"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_and_directories_are_closed_to_other_users(path: Path) -> None:
    before = os.umask(0)
    try:
        file = LogFile(path, 10, 3)
        file.write([b"123456789"] * 3)
        file.close()
    finally:
        os.umask(before)
    assert {each.name: mode_of(each) for each in path.parent.iterdir()} == dict.fromkeys(
        ("robot.log", "robot.log.1", "robot.log.2"), 0o600
    )
    assert [mode_of(each) for each in (path.parent, path.parent.parent)] == [0o700, 0o700]


def test_files_of_earlier_versions_are_closed_to_other_users(tmp_path: Path) -> None:
    names = ("robot.log", "robot.log.1", "robot.log.2")
    for name in names:
        (tmp_path / name).write_text("old\n")
        (tmp_path / name).chmod(0o644)
    (tmp_path / "other").write_text("not of the log")
    (tmp_path / "other").chmod(0o644)
    (tmp_path / "robot.log.3").symlink_to("other")
    tmp_path.chmod(0o755)
    file = LogFile(tmp_path / "robot.log", 1000, 4)
    file.write([b"new"])
    file.close()
    assert [mode_of(tmp_path / name) for name in names] == [0o600] * 3
    assert (mode_of(tmp_path / "other"), mode_of(tmp_path)) == (0o644, 0o755)


def test_device_keeps_its_mode(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o644)
    (tmp_path / "fifo").chmod(0o644)
    file = LogFile(tmp_path / "fifo", 1000, 4)
    assert file.write([b"new"]) == 1
    file.close()
    assert mode_of(tmp_path / "fifo") == 0o644


def test_other_user_reads_no_log() -> None:
    require_another_user()
    # Other users cannot enter pytest's own directory.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "robot.log"
        file = LogFile(path, 1000, 3)
        file.write([b"secret"])
        file.close()
        program = "try:\n    open(sys.argv[1])\nexcept PermissionError:\n    print('refused')"
        assert run_stranger(program, str(path)) == "refused"


@settings(deadline=None)  # a disk may take its time
@given(
    st.lists(
        st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line), max_size=60
    ),
    st.integers(1, 4),
)
def test_newest_lines_are_in_order_and_the_size_is_bounded(lines: list[bytes], count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "robot.log"
        file = LogFile(path, 100, count)
        half = len(lines) // 2
        assert file.write(lines[:half]) + file.write(lines[half:]) == len(lines)
        file.close()
        kept = lines_of(path)
        assert kept == lines[len(lines) - len(kept) :]
        files = list(Path(folder).iterdir())
        assert len(files) <= count
        assert all(each.stat().st_size <= 100 for each in files)
        assert kept or not lines


def test_file_planted_while_it_is_opened_receives_no_line(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = iter([None, 12345])
    monkeypatch.setattr("rt.logs.file.planted_by", lambda _path: next(owners, None))
    file = LogFile(path, 100, 3)
    file.write([b"first"])
    assert isinstance(file.error, PermissionError)
    assert path.read_bytes() == b""
    monkeypatch.setattr("rt.logs.file.planted_by", lambda _path: 12345)
    file.write([b"second"])
    assert path.read_bytes() == b""
    file.close()


def test_line_longer_than_a_file_gets_its_own_file(path: Path) -> None:
    file = LogFile(path, 100, 3)
    assert file.write([b"a", b"x" * 500, b"b"]) == 3
    file.close()
    assert lines_of(path) == [b"a", b"x" * 500, b"b"]


def test_smaller_count_removes_surplus_files(path: Path) -> None:
    file = LogFile(path, 100, 5)
    for number in range(10):
        file.write([b"%d" % number * 80])
    file.close()
    assert len(list(path.parent.iterdir())) == 5
    file = LogFile(path, 100, 2)
    file.write([b"x" * 80])
    file.close()
    assert len(list(path.parent.iterdir())) == 2


def test_removed_or_renamed_file_is_created_again(path: Path) -> None:
    file = LogFile(path, 1000, 3)
    file.write([b"one"])
    path.unlink()
    assert file.write([b"two"]) == 1
    path.rename(path.with_name("kept"))
    assert file.write([b"three"]) == 1
    file.close()
    assert path.read_bytes() == b"three\n"


def test_incomplete_line_of_a_power_cut_does_not_affect_the_next(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"event": "whole"}\n{"event": "to')
    file = LogFile(path, 1000, 3)
    file.write([b'{"event": "next"}'])
    file.close()
    assert lines_of(path) == [b'{"event": "whole"}', b'{"event": "to', b'{"event": "next"}']


def test_full_disk_costs_only_lines(small_disk: Path) -> None:
    path = small_disk / "robot.log"
    ballast = small_disk / "ballast"
    file = LogFile(path, 1_000_000, 3)
    assert file.write([b"before"]) == 1
    with pytest.raises(OSError, match="No space"):
        ballast.write_bytes(b"x" * 1_000_000)
    lines = [b"%05d" % number + b"y" * 94 for number in range(200)]
    done = file.write(lines)
    assert 0 < done < 200
    assert file.error is not None
    assert file.error.errno == errno.ENOSPC
    ballast.unlink()
    assert file.write([b"after"]) == 1
    assert file.error is None
    file.close()
    kept = lines_of(path)
    assert kept[0] == b"before"
    assert kept[1 : done + 1] == lines[:done]
    assert kept[-1] == b"after"
    assert len(kept) <= done + 3  # the partly written line is one more


def test_file_size_limit_acts_like_a_full_disk(path: Path) -> None:
    file = LogFile(path, 1_000_000, 3)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        assert file.write([b"x" * 99] * 20) == 10
        assert file.error is not None
        assert file.error.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.write([b"after"]) == 1
    file.close()
    assert lines_of(path)[-1] == b"after"


def test_full_device_is_an_error_and_is_not_renamed() -> None:
    file = LogFile(Path("/dev/full"), 100, 3)
    assert file.write([b"x" * 99, b"y" * 99]) == 0
    assert file.error is not None
    file.close()
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize("path", ["/proc/none/robot.log", "/dev/null/robot.log", "/"])
def test_unwritable_path_is_an_error_of_the_write(path: str) -> None:
    file = LogFile(Path(path), 100, 3)
    assert file.write([b"x"]) == 0
    assert file.error is not None


def test_incomplete_line_is_not_read(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"event": "whole"}) + "\n" + '{"event": "ha')
    assert lines_of(path) == [b'{"event": "whole"}']


def test_log_directory_follows_the_environment() -> None:
    assert log_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/rt")
    ours = Path("/var/log/rt") if os.geteuid() == 0 else Path("/home/me/.local/state/rt")
    assert log_directory({"HOME": "/home/me", "XDG_STATE_HOME": "relative"}) == ours


def test_each_robot_has_its_own_file() -> None:
    env = {"XDG_STATE_HOME": "/s"}
    assert log_path("auto", "red", env) == Path("/s/rt/red.log")
    assert log_path("auto", "blue", env) == Path("/s/rt/blue.log")
    assert log_path("/elsewhere/x.log", "red", env) == Path("/elsewhere/x.log")
    assert log_path("", "red", env) is None


def test_log_file_of_a_running_robot_is_linked_in_its_directory(tmp_path: Path) -> None:
    assert linked_log(tmp_path) is None
    link_log(tmp_path, Path("/elsewhere/x.log"))
    assert linked_log(tmp_path) == Path("/elsewhere/x.log")
