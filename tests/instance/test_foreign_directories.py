"""Directories, links and files that another user has put in the place of ours: none is used."""

import fcntl
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.stranger import UID, require_another_user

from rt import ownership
from rt.access.keyring import Keyring
from rt.buffer import session
from rt.cli.emulate_dev import _paths
from rt.config import overrides
from rt.errors import ConfigError, DeviceBufferError, DeviceError
from rt.instance import Instance, running
from rt.logs.file import LogFile
from rt.logs.place import linked_log
from rt.serialports.filter import PortFilter

OWNER = rf"belongs to user {UID}\b"


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory like /tmp."""
    require_another_user()
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def give(path: Path) -> Path:
    """Give a file, or a directory with its contents, to another user."""
    for each in (path, *path.rglob("*")):
        os.chown(each, UID, UID, follow_symlinks=False)
    return path


@pytest.fixture(params=["base", "directory", "link of the base", "link"])
def false_robot(request: pytest.FixtureRequest, shared: Path) -> Iterator[Instance]:
    """An instance whose directory another user has created, with a held lock."""
    instance = Instance.locate("default", {"XDG_RUNTIME_DIR": str(shared)})
    base, real = instance.directory.parent, shared / "elsewhere"
    real.mkdir()
    if request.param == "link of the base":
        (real / "default").mkdir()
        base.symlink_to(real)
    elif request.param == "link":
        base.mkdir(mode=0o700)
        instance.directory.symlink_to(real)
    else:
        instance.directory.mkdir(parents=True)
    instance.path("pid").write_text('{"pid": 1}')
    instance.path("log").symlink_to("/etc/hostname")
    give(real)
    if request.param == "directory":
        give(instance.directory)
    elif request.param == "link":
        os.chown(instance.directory, UID, UID, follow_symlinks=False)
    else:
        give(base)
    with instance.path("pid").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield instance


@pytest.mark.parametrize(
    "ask",
    [
        Instance.holder,
        Instance.require,
        Instance.verify,
        lambda instance: linked_log(instance.directory),
    ],
    ids=["holder", "require", "verify", "marked"],
)
def test_false_robot_of_another_user_is_refused(
    false_robot: Instance, ask: Callable[[Instance], object]
) -> None:
    with pytest.raises(ConfigError, match=rf"user {UID}\b"):
        ask(false_robot)


def test_false_robot_of_another_user_is_not_listed(false_robot: Instance) -> None:
    assert running(false_robot.directory.parent) == []


def test_robot_does_not_start_in_a_directory_of_another_user(false_robot: Instance) -> None:
    with pytest.raises(ConfigError, match=rf"user {UID}\b"), false_robot.acquire():
        pass


def test_root_reaches_the_robot_of_a_service(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = shared / "run" / "rt"
    monkeypatch.setattr("rt.instance.directory._RUN", place)
    instance = Instance("default", place / "default")
    instance.directory.mkdir(parents=True)
    instance.path("pid").write_text('{"pid": 1}')
    give(place)
    with instance.path("pid").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert instance.require().pid == 1


def test_robot_of_this_user_in_a_shared_directory_is_found(shared: Path) -> None:
    instance = Instance.locate("default", {"XDG_RUNTIME_DIR": str(shared)})
    assert instance.holder() is None
    with instance.acquire():
        assert instance.require().pid == os.getpid()
        assert running(instance.directory.parent) == ["default"]


@pytest.mark.parametrize(
    ("owner", "mode", "reason"), [(UID, 0o700, OWNER), (0, 0o777, "every user may write")]
)
def test_runtime_directory_of_others_is_refused(
    shared: Path, owner: int, mode: int, reason: str
) -> None:
    place = shared / "run"
    place.mkdir()
    place.chmod(mode)
    os.chown(place, owner, owner)
    with pytest.raises(ConfigError, match=f"XDG_RUNTIME_DIR is .*{reason}"):
        Instance.locate("default", {"XDG_RUNTIME_DIR": str(place)})


def plant(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_log_is_not_written_to_a_file_of_another_user(shared: Path) -> None:
    target = plant(shared / "target", "kept")
    for path in (
        plant(shared / "robot.log"),
        shared / "link.log",
        plant(shared / "made" / "robot.log").parent / "x.log",
    ):
        if path.name == "link.log":
            path.symlink_to(target)
        give(path if path.parent == shared else path.parent)
        file = LogFile(path, 1000, 2)
        assert file.write([b"a line"]) == 0
        assert file.error is not None
        assert f"it belongs to user {UID}" in str(file.error.strerror)
        file.close()
    assert target.read_text() == "kept"
    assert LogFile(shared / "own.log", 1000, 2).write([b"a line"]) == 1


@pytest.mark.parametrize("given", [".", "options.json"])
def test_overrides_of_another_user_are_refused(shared: Path, given: str) -> None:
    directory = shared if given == "options.json" else shared / "state" / "default"
    plant(directory / "options.json", '{"bind": "0.0.0.0"}')
    give(directory / given if directory == shared else shared / "state")
    with pytest.raises(ConfigError, match=OWNER):
        overrides.read(directory)
    with pytest.raises(ConfigError, match=OWNER):
        overrides.write(directory, {"bind": "127.0.0.1"})


def test_keys_of_another_user_are_refused(shared: Path) -> None:
    Keyring(shared / "keys").new("blue")
    assert Keyring(shared / "keys").refresh()
    give(shared / "keys")
    ring = Keyring(shared / "keys")
    ring.refresh()
    assert ring.stations == {}
    assert f"(uid {UID})" in ring.problems[0]
    with pytest.raises(ConfigError, match=rf"\(uid {UID}\)"):
        ring.new("red")


def test_ports_in_a_directory_of_another_user_do_not_count(shared: Path) -> None:
    ports = PortFilter([f"{shared}/ports/*", f"{shared}/own/*"])
    for name in ("ports", "own"):
        (shared / name).mkdir()
        (shared / name / "motor").symlink_to("/dev/null" if name == "own" else "/dev/zero")
    assert sorted(ports.find()) == ["/dev/null", "/dev/zero"]
    give(shared / "ports")
    found = ports.find()
    assert sorted(found) == ["/dev/null"]
    assert any(f"user {UID}" in reason for _, reason in ports.ignored_ports(found))


def test_emulated_ports_are_not_created_in_a_directory_of_another_user(shared: Path) -> None:
    (shared / "ports").mkdir()
    give(shared / "ports")
    with pytest.raises(DeviceError, match=OWNER):
        _paths(shared / "ports", [], {})


async def test_registrar_of_another_user_is_refused(shared: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(shared / session.SOCKET_NAME))
        # The kernel records the user of `listen`.
        os.seteuid(UID)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        with pytest.raises(DeviceBufferError, match=OWNER):
            async with session.read(shared):
                pass


def test_home_of_another_user_is_accepted(tmp_path: Path) -> None:
    # Root with the HOME of a user: files of that user are not planted.
    require_another_user()
    home = tmp_path / "home"
    plant(home / "rt" / "options.json", "{}")
    give(home)
    assert ownership.planted_by(home / "rt" / "options.json") is None
    assert ownership.foreign_owner(home) == UID
    assert overrides.read(home / "rt") == {}
