"""Key files: permissions, validation, revocation and errors."""

import contextlib
import errno
import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rt.access import private_files
from rt.access.keyring import Keyring
from rt.access.station_key import StationKey
from rt.errors import ConfigError


@pytest.fixture
def ring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_key_files_are_private_regardless_of_umask(ring: Keyring, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring.new("blue").write(tmp_path / "blue.rtkey")
    finally:
        os.umask(before)
    assert mode(ring.directory) == 0o700
    assert mode(ring.directory / "robot.key") == 0o600
    assert mode(ring.directory / "blue.station") == 0o600
    assert mode(tmp_path / "blue.rtkey") == 0o600
    assert (ring.directory / ".gitignore").read_text() == "*\n"
    assert not list(tmp_path.rglob(".*.*[0-9]"))


def test_station_key_matches_the_keys_of_the_robot(ring: Keyring, tmp_path: Path) -> None:
    station_key = ring.new("blue")
    station_key.write(tmp_path / "blue.rtkey")
    assert StationKey.load(tmp_path / "blue.rtkey") == station_key
    assert ring.refresh()
    assert ring.station_of(station_key.public) == "blue"
    assert ring.station_of_datagram(station_key.datagram.id) == "blue"
    assert ring.datagram_keys == {station_key.datagram.id: station_key.datagram}
    assert station_key.robot_public == ring.robot().public


def test_secret_of_a_station_is_not_stored_at_the_robot(ring: Keyring) -> None:
    station_key = ring.new("blue")
    for path in ring.directory.iterdir():
        assert station_key.secret not in path.read_text()


def test_robot_key_is_created_once(ring: Keyring) -> None:
    assert ring.robot() == ring.robot() == Keyring(ring.directory).robot()


def test_refresh_finds_created_and_revoked_keys(ring: Keyring) -> None:
    assert ring.refresh()
    assert not ring.refresh()
    other = Keyring(ring.directory)
    other.new("blue")
    other.new("red")
    assert ring.refresh()
    assert sorted(ring.stations) == ["blue", "red"]
    other.revoke("blue")
    assert ring.refresh()
    assert sorted(ring.stations) == ["red"]
    assert not ring.refresh()


def test_name_is_taken_until_it_is_revoked(ring: Keyring) -> None:
    first = ring.new("blue")
    with pytest.raises(ConfigError, match=r"station blue already has a key; .*rt keys revoke blue"):
        ring.new("blue")
    ring.revoke("blue")
    assert ring.new("blue").public != first.public


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a b", "x" * 33, "ü"])
def test_invalid_station_name_is_refused(ring: Keyring, name: str) -> None:
    with pytest.raises(ConfigError, match="invalid station name"):
        ring.new(name)
    with pytest.raises(KeyError):
        ring.revoke(name)


def test_accessible_directory_admits_no_station(ring: Keyring) -> None:
    ring.new("blue")
    ring.directory.chmod(0o755)
    assert ring.refresh()
    assert ring.stations == {}
    assert ring.problems == (
        (
            f"key directory {ring.directory} is accessible to other users; "
            f"run `chmod 700 {ring.directory}`"
        ),
    )
    with pytest.raises(ConfigError, match="chmod 700"):
        ring.robot()
    ring.directory.chmod(0o700)
    assert ring.refresh()
    assert list(ring.stations) == ["blue"]
    assert not ring.problems


def test_accessible_key_file_is_ignored(ring: Keyring) -> None:
    ring.new("blue")
    ring.new("red")
    path = ring.directory / "blue.station"
    path.chmod(0o640)
    ring.refresh()
    assert list(ring.stations) == ["red"]
    assert ring.problems == (f"{path} is accessible to other users; run `chmod 600 {path}`",)


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"public = 1\n", b"public = 'x'\n", b"[", b"a" * 20_000]
)
def test_invalid_key_file_is_ignored(ring: Keyring, content: bytes) -> None:
    ring.new("blue")
    path = ring.directory / "blue.station"
    path.write_bytes(content)
    ring.refresh()
    assert ring.stations == {}
    assert len(ring.problems) == 1
    assert str(path) in ring.problems[0]


@pytest.mark.parametrize("key", ["~" * 40, "#" * 40, "x" * 39, "é" * 40])
def test_key_outside_z85_is_ignored(ring: Keyring, tmp_path: Path, key: str) -> None:
    station_key = ring.new("blue")
    station_key.write(tmp_path / "x.rtkey")
    for path in (ring.directory / "blue.station", tmp_path / "x.rtkey"):
        path.write_text(path.read_text().replace(station_key.public, key))
    ring.refresh()
    assert (ring.stations, len(ring.problems)) == ({}, 1)
    with pytest.raises(ConfigError, match="a key is not 40 characters of Z85"):
        StationKey.load(tmp_path / "x.rtkey")


def test_special_files_are_reported_without_blocking(ring: Keyring) -> None:
    ring.new("blue")
    os.mkfifo(ring.directory / "pipe.station", 0o600)
    (ring.directory / "directory.station").mkdir()
    (ring.directory / "dangling.station").symlink_to("nowhere")
    ring.refresh()
    assert list(ring.stations) == ["blue"]
    assert [problem.rpartition("/")[2] for problem in ring.problems] == [
        "directory.station: Is a directory",
        "pipe.station is not a regular file; remove or rename it",
    ]


@pytest.mark.parametrize("name", [b"a b", b"a\nb", b"\xff", b"x" * 33])
def test_key_file_with_invalid_station_name_is_ignored(ring: Keyring, name: bytes) -> None:
    ring.new("blue")
    content = (ring.directory / "blue.station").read_bytes()
    path = Path(os.fsdecode(bytes(ring.directory) + b"/" + name + b".station"))
    path.write_bytes(content)
    path.chmod(0o600)
    ring.refresh()
    assert list(ring.stations) == ["blue"]
    (problem,) = ring.problems
    assert problem.isascii()
    assert "invalid station name" in problem


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[], None]]:
    """Return a function that uses up the descriptors of this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []

    def use_up() -> None:
        held.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (held[0] + 50, limits[1]))
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))

    yield use_up
    for each in held:
        os.close(each)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_revocation_works_without_free_descriptors(
    ring: Keyring, no_descriptors: Callable[[], None]
) -> None:
    for name in ("blue", "red"):
        ring.new(name)
    ring.refresh()
    no_descriptors()
    assert not ring.refresh()
    ring.revoke("red")
    assert ring.refresh()
    assert list(ring.stations) == ["blue"]
    assert not ring.problems


def test_file_unread_for_lack_of_descriptors_is_read_later(
    ring: Keyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring.new("blue")

    def no_descriptor(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(private_files, "_open_at_once", no_descriptor)
        ring.refresh()
        assert (ring.stations, len(ring.problems)) == ({}, 1)
    assert ring.refresh()
    assert (list(ring.stations), ring.problems) == (["blue"], ())


def test_station_key_is_written_without_links_and_modes(
    ring: Keyring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    station_key = ring.new("blue")
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "fchmod", refuse)
    station_key.write(tmp_path / "blue.rtkey")
    assert StationKey.load(tmp_path / "blue.rtkey") == station_key
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["blue.rtkey"]
    with pytest.raises(ConfigError, match="exists"):
        station_key.write(tmp_path / "blue.rtkey")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_directory_of_another_user_is_reported(ring: Keyring, tmp_path: Path) -> None:
    ring.new("blue")
    for path in (tmp_path, *tmp_path.parents):
        if path.parent.is_relative_to(tempfile.gettempdir()):  # private to the user under pytest
            path.chmod(path.stat().st_mode | 0o055)
    os.setresuid(65534, 65534, 0)
    try:
        ring.refresh()
        assert ring.stations == {}
        assert "belongs to another user (uid 0)" in ring.problems[0]
        with pytest.raises(ConfigError, match="another user"):
            ring.robot()
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize("content", [b"", b"\xff", b"station = 'blue'\n", b"["])
def test_invalid_station_key_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.rtkey"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"x\.rtkey is not"):
        StationKey.load(path)
    with pytest.raises(ConfigError, match="`rt keys new NAME` on the robot creates"):
        StationKey.load(tmp_path / "absent.rtkey")


def test_invalid_robot_key_is_reported(ring: Keyring) -> None:
    ring.robot()
    (ring.directory / "robot.key").write_text("public = 'x'\n")
    with pytest.raises(ConfigError, match="is not a robot key; remove it"):
        ring.robot()


def test_station_key_does_not_overwrite_a_file(ring: Keyring, tmp_path: Path) -> None:
    path = tmp_path / "blue.rtkey"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="exists"):
        ring.new("blue").write(path)
    assert path.read_text() == "precious"


def test_file_instead_of_the_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("")
    ring = Keyring(tmp_path / "keys")
    ring.refresh()
    assert "is not a directory" in ring.problems[0]
    with pytest.raises(ConfigError, match="cannot create"):
        ring.new("blue")


def test_full_disk_leaves_no_partial_file(ring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left on device"):
        ring.new("blue")
    assert not ring.directory.exists()
    monkeypatch.undo()
    ring.new("blue")
    assert (ring.directory / ".gitignore").read_text() == "*\n"
