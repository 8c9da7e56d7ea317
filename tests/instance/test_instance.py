"""An instance: one robot holds it, others can see which, and a killed one is cleaned up."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from rt.errors import ConfigError, InstanceAbsentError, InstanceBusyError
from rt.instance import MAX_DIRECTORY, Holder, Instance, directory, running, stale_files
from rt.instance.stale_files import ENV_DIRECTORY

ROOT = Path(__file__).parents[1]

HOLD = """
import sys
from pathlib import Path
from rt.instance import Instance
with Instance(sys.argv[1], Path(sys.argv[2])).acquire():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def instance(runtime: Path) -> Instance:
    return Instance.locate("default", {"XDG_RUNTIME_DIR": str(runtime)})


@pytest.fixture
def holder(instance: Instance) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-c", HOLD, instance.name, str(instance.directory)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def leave_remains(instance: Instance, **fields: object) -> None:
    """Create what a killed robot leaves: a pid file without a lock, and a socket."""
    instance.directory.mkdir(parents=True, mode=0o700)
    instance.path("pid").write_bytes(msgspec.json.encode({"pid": 1, **fields}))
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(instance.path("router.sock")))


def test_directory_is_in_the_runtime_directory_of_the_user(runtime: Path) -> None:
    assert Instance.locate("a", {"XDG_RUNTIME_DIR": str(runtime)}).directory == runtime / "rt" / "a"


def test_without_a_runtime_directory_another_place_is_used(tmp_path: Path) -> None:
    found = Instance.locate("a", {"XDG_RUNTIME_DIR": str(tmp_path / "missing")}).directory
    assert found in (Path("/run/rt/a"), Path(f"/tmp/rt-{os.geteuid()}/a"))


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "a/b", "a b", "a" * 33, "ä", "a\n"])
def test_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="invalid instance name"):
        Instance.locate(name, {})


def test_directory_too_long_for_sockets_is_refused(runtime: Path) -> None:
    deep = runtime / ("x" * MAX_DIRECTORY)
    deep.mkdir()
    with pytest.raises(ConfigError, match="choose a shorter"):
        Instance.locate("a", {"XDG_RUNTIME_DIR": str(deep)})


def test_held_instance_has_a_holder_and_leaves_nothing(instance: Instance) -> None:
    with instance.acquire() as removed:
        assert removed == []
        assert stat.S_IMODE(instance.directory.stat().st_mode) == 0o700
        holder = instance.holder()
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.argv == tuple(sys.argv)
        assert holder.frozen_dir is None
        assert instance.require() == holder
        instance.path("x.sock").touch()
        (instance.path("component") / "deep").mkdir(parents=True)
    assert not instance.directory.exists()
    assert instance.holder() is None


def test_error_of_the_robot_leaves_nothing(instance: Instance) -> None:
    with pytest.raises(ZeroDivisionError), instance.acquire():
        _ = 1 // 0
    assert not instance.directory.exists()


def test_second_robot_is_refused_with_the_holder(
    instance: Instance, holder: "subprocess.Popen[bytes]"
) -> None:
    with pytest.raises(InstanceBusyError) as caught, instance.acquire():
        pass
    assert (
        f"a robot already runs as 'default': process {holder.pid} since 20" in caught.value.message
    )
    assert caught.value.message.endswith("stop it, or use --instance NAME --port-base 6010")
    assert caught.value.context["pid"] == holder.pid
    assert caught.value.EXIT_CODE == 75
    found = instance.holder()
    assert found is not None
    assert found.pid == holder.pid


def test_robot_that_ends_frees_its_instance(
    instance: Instance, holder: "subprocess.Popen[bytes]"
) -> None:
    holder.communicate(timeout=10)
    assert holder.returncode == 0
    with instance.acquire() as removed:
        assert removed == []


@pytest.mark.parametrize("linked", [True, False])
def test_directory_that_took_the_name_is_not_emptied(
    instance: Instance, tmp_path: Path, linked: bool
) -> None:
    other = tmp_path / "other"
    (other / "home").mkdir(parents=True)
    (other / "home" / "thesis").write_text("years of work")
    with instance.acquire():
        instance.directory.rename(tmp_path / "moved")
        if linked:
            instance.directory.symlink_to(other)
        else:
            other.rename(instance.directory)
    assert (instance.directory / "home" / "thesis").read_text() == "years of work"


def test_processes_of_a_robot_that_took_the_name_survive(
    instance: Instance, tmp_path: Path
) -> None:
    other = Instance(instance.name, instance.directory)
    with contextlib.ExitStack() as stack, instance.acquire():
        instance.directory.rename(tmp_path / "moved")
        stack.enter_context(other.acquire())
        command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
        environment = os.environ | {ENV_DIRECTORY: str(instance.directory)}
        process = stack.enter_context(
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)
        )
        stack.callback(process.kill)
        ours = stack.pop_all()
    with ours:
        assert process.poll() is None
        assert other.is_in_place()


def test_files_of_a_killed_robot_are_removed(
    instance: Instance, holder: "subprocess.Popen[bytes]"
) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(instance.path("router.sock")))
    holder.send_signal(signal.SIGKILL)
    holder.wait(timeout=10)
    assert instance.holder() is None
    with instance.acquire() as removed:
        assert not instance.path("router.sock").exists()
        assert removed[0].startswith("the last robot, process ")
        assert "was killed" in removed[0]
        assert len(removed) == 2
        assert "router.sock" in removed[1]


@pytest.mark.parametrize("patience", [0.0, 1.0])
def test_processes_of_a_killed_robot_are_ended(instance: Instance, patience: float) -> None:
    body = f"import time; print(flush=True); time.sleep(0.1 if {patience > 0} else 1000)"
    env = {**os.environ, ENV_DIRECTORY: str(instance.directory)}
    command = [sys.executable, "-I", "-S", "-c", body]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with instance.acquire(patience or 0.2) as removed:
            assert removed == [f"ended processes of a killed robot: {process.pid}"]
            assert process.wait(timeout=10) == (0 if patience else -signal.SIGKILL)


def test_processes_of_another_robot_are_not_ended(instance: Instance) -> None:
    env = {**os.environ, ENV_DIRECTORY: f"{instance.directory}2"}
    with subprocess.Popen(["sleep", "1000"], env=env) as process:
        with instance.acquire() as removed:
            assert removed == []
        assert process.poll() is None
        process.kill()


def test_robot_started_by_another_one_does_not_kill_itself(instance: Instance) -> None:
    # The inner Python is a child of the outer one; both have the instance in their environment.
    outer = (
        "import subprocess, sys; inner = [sys.executable, '-c', *sys.argv[1:]];"
        " sys.exit(subprocess.run(inner, input=b'').returncode)"
    )
    env = {**os.environ, ENV_DIRECTORY: str(instance.directory)}
    command = [sys.executable, "-c", outer, HOLD, instance.name, str(instance.directory)]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (0, b"held\n")


def test_unpacked_files_of_a_killed_robot_are_removed(instance: Instance) -> None:
    unpacked = Path(tempfile.mkdtemp(prefix="_MEI"))
    stale = unpacked.with_name("_MEI" + "".join(filter(str.isalnum, unpacked.name[4:])) + "x")
    unpacked.rename(stale)
    (stale / "lib").mkdir()
    leave_remains(instance, frozen_dir=str(stale))
    with instance.acquire() as removed:
        assert not stale.exists()
        assert str(stale) in removed[-1]


def test_pid_file_cannot_name_other_directories_to_remove(
    instance: Instance, tmp_path: Path
) -> None:
    precious = tmp_path / "_MEIabc"
    precious.mkdir()
    for claim in (
        str(precious),
        tempfile.gettempdir(),
        f"{tempfile.gettempdir()}/_MEIx/../..",
        "relative",
    ):
        assert not stale_files.is_stale_unpacked(Path(claim))
    leave_remains(instance, frozen_dir=str(precious))
    with instance.acquire():
        assert precious.is_dir()


@pytest.mark.parametrize("content", [b"", b"4711", b"{", b"\xff", b'{"pid": "x"}'])
def test_invalid_pid_file_is_ignored(instance: Instance, content: bytes) -> None:
    instance.directory.mkdir(parents=True)
    instance.path("pid").write_bytes(content)
    assert instance.holder() is None
    with instance.acquire():
        assert instance.require().pid == os.getpid()


def test_missing_robot_is_an_error_with_how_to_start_it(
    instance: Instance, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_RUN", tmp_path)  # where a robot of this machine may run
    with pytest.raises(
        InstanceAbsentError, match="no robot runs as 'default'; start one with `rt run`"
    ):
        instance.require()
    other = Instance.locate("b", {"XDG_RUNTIME_DIR": str(runtime)})
    with pytest.raises(InstanceAbsentError, match="`rt run --instance b`"):
        other.require()


def test_wrong_name_is_an_error_with_the_running_robots(holder: object, runtime: Path) -> None:
    with pytest.raises(
        InstanceAbsentError, match="as 'other', but as 'default'; use --instance default"
    ):
        Instance.locate("other", {"XDG_RUNTIME_DIR": str(runtime)}).require()
    assert running(runtime / "rt") == ["default"]


def test_missing_robot_of_a_user_hints_at_the_service(
    instance: Instance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_RUN", tmp_path)
    (tmp_path / "default").mkdir()
    with pytest.raises(
        InstanceAbsentError, match=f"but one may in {tmp_path}; use `sudo env -u XDG_RUNTIME_DIR rt"
    ):
        instance.require()


def test_link_in_place_of_the_directory_is_refused(instance: Instance, tmp_path: Path) -> None:
    instance.directory.parent.mkdir()
    instance.directory.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="link or a file"), instance.acquire():
        pass


def test_file_in_place_of_the_directory_is_refused(instance: Instance) -> None:
    instance.directory.parent.mkdir()
    instance.directory.touch()
    with pytest.raises(ConfigError, match="remove it"), instance.acquire():
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(instance: Instance) -> None:
    instance.directory.mkdir(parents=True)
    os.chown(instance.directory, 12345, 12345)
    with pytest.raises(ConfigError, match="belongs to user 12345"), instance.acquire():
        pass


def test_directory_is_closed_to_other_users(instance: Instance) -> None:
    instance.directory.mkdir(parents=True, mode=0o755)
    with instance.acquire():
        assert stat.S_IMODE(instance.directory.stat().st_mode) == 0o700


def test_child_of_a_robot_does_not_hold_its_instance(instance: Instance) -> None:
    with instance.acquire():
        child = subprocess.Popen(["sleep", "1000"], close_fds=False)
    try:
        with instance.acquire():
            pass
    finally:
        child.kill()
        child.wait()


def test_clients_do_not_prevent_a_robot_from_starting(instance: Instance) -> None:
    leave_remains(instance)
    # A client holds the shared lock for a moment.
    client = (
        "import fcntl, sys, time; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_SH);"
        " print(flush=True); time.sleep(0.05)"
    )
    command = [sys.executable, "-I", "-S", "-c", client, str(instance.path("pid"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with instance.acquire():
            pass


def test_pid_file_of_a_newer_version_is_accepted() -> None:
    assert msgspec.json.decode(b'{"pid": 5, "colour": "blue"}', type=Holder) == Holder(pid=5)
    assert directory.MAX_DIRECTORY + 1 + 32 <= 107


def remove_directory(directory: Path) -> None:
    shutil.rmtree(directory)


def remove_lock(directory: Path) -> None:
    (directory / "pid").unlink()


def replace_lock(directory: Path) -> None:
    (directory / "pid").unlink()
    (directory / "pid").touch()


@pytest.mark.parametrize("act", [remove_directory, remove_lock, replace_lock])
def test_removed_directory_is_restored_with_its_lock(
    instance: Instance, act: Callable[[Path], None]
) -> None:
    with instance.acquire():
        before = instance.holder()
        assert not instance.restore()
        act(instance.directory)
        assert instance.holder() is None
        assert instance.restore()
        assert not instance.restore()
        assert instance.holder() == before
        with pytest.raises(InstanceBusyError), Instance("default", instance.directory).acquire():
            pass
    assert not instance.directory.exists()


def test_directory_taken_by_another_robot_is_not_restored(instance: Instance) -> None:
    other = Instance("default", instance.directory)
    with instance.acquire():
        shutil.rmtree(instance.directory)
        with other.acquire():
            with pytest.raises(InstanceBusyError, match="already runs as 'default'"):
                instance.restore()
            assert other.holder() is not None
            assert not other.restore()
    assert not instance.directory.exists()


def test_directory_that_cannot_be_restored_is_an_error(instance: Instance) -> None:
    with instance.acquire():
        shutil.rmtree(instance.directory)
        instance.directory.symlink_to("/tmp")
        with pytest.raises(ConfigError, match="remove it"):
            instance.restore()
        instance.directory.unlink()
        assert instance.restore()
