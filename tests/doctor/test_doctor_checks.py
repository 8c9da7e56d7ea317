"""Each check against the real thing, sound and broken."""

import json
import os
import pty
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rt import doctor
from rt.access.keyring import Keyring
from rt.config import Config
from rt.doctor import Environment, Finding, sockets

Look = Callable[..., Finding]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    def run(identifier: str, **options: object) -> Finding:
        origins = dict.fromkeys(options, "rt.toml:1")
        config = Config(**{"instance": f"doctor-{os.getpid()}", **options})  # type: ignore[arg-type]
        (finding,) = doctor.examine(
            Environment(config=config, origins=origins, directory=tmp_path), [identifier]
        )
        return finding

    return run


@pytest.fixture
def free_base() -> int:
    """Five ports that nobody holds."""
    for base in range(21000, 60000, 7):
        with socket.socket() as first, socket.socket() as last:
            try:
                first.bind(("127.0.0.1", base))
                last.bind(("127.0.0.1", base + 4))
            except OSError:
                continue
            return base
    raise AssertionError("no free ports")


@pytest.fixture
def terminal() -> Iterator[str]:
    leader, follower = pty.openpty()
    yield os.ttyname(follower)
    os.close(leader)
    os.close(follower)


class TestGround:
    def test_this_machine_runs_rt(self, look: Look) -> None:
        for identifier in ("python", "platform", "shm", "multicast"):
            finding = look(identifier)
            assert finding.status == "ok", finding

    def test_an_instance_that_does_not_run_is_said(self, look: Look) -> None:
        assert "does not run" in look("instance").fact

    def test_a_problem_of_the_options_is_a_finding_with_its_place(self, tmp_path: Path) -> None:
        environment = Environment(
            config=Config(), problem="rt.toml:3: unknown option 'x'", directory=tmp_path
        )
        (finding,) = doctor.examine(environment, ["config"])
        assert (finding.status, finding.fact) == ("fail", "rt.toml:3: unknown option 'x'")

    def test_a_lock_is_taken_over_from_a_killed_owner(self) -> None:
        # In a process of its own: the check forks.
        code = "from rt.cli.main import run; raise SystemExit(run(['doctor', '--json', '--only', 'mutex']))"
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
        (finding,) = json.loads(result.stdout)
        assert (finding["status"], result.returncode) == ("ok", 0), finding


class TestAddresses:
    def test_free_ones_are_fine(self, look: Look, free_base: int) -> None:
        finding = look("addresses", port_base=free_base)
        assert finding.status == "ok"
        assert f"ports {free_base} to {free_base + 4}" in finding.fact

    @pytest.mark.parametrize(
        ("kind", "offset", "option"), [("tcp", 4, "dev_vsd_addr"), ("udp", 2, "control_addr")]
    )
    def test_a_held_one_names_its_holder(
        self, look: Look, free_base: int, kind: str, offset: int, option: str
    ) -> None:
        with socket.socket(
            type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
        ) as holder:
            holder.bind(("127.0.0.1", free_base + offset))
            if kind == "tcp":
                holder.listen()
            finding = look("addresses", port_base=free_base)
        assert finding.status == "fail"
        assert (
            f"{option} {kind}://127.0.0.1:{free_base + offset}: held by process {os.getpid()} ("
            in finding.fact
        )
        assert "port_base" in finding.remedy

    def test_an_address_that_is_not_ours_is_said(self, look: Look, free_base: int) -> None:
        finding = look("addresses", port_base=free_base, bind="192.0.2.1")
        assert finding.status == "fail"
        assert "Cannot assign requested address" in finding.fact

    def test_a_left_over_socket_file_is_no_hindrance_but_a_live_one_is(
        self, look: Look, free_base: int, tmp_path: Path
    ) -> None:
        path = tmp_path / "backend.sock"
        with socket.socket(socket.AF_UNIX) as holder:
            holder.bind(str(path))
            holder.listen()
            finding = look("addresses", port_base=free_base, router_backend=(f"ipc://{path}",))
            assert (finding.status, "router_backend ipc://" in finding.fact) == ("fail", True)
        assert (
            look("addresses", port_base=free_base, router_backend=(f"ipc://{path}",)).status == "ok"
        )

    def test_a_port_that_nobody_holds_has_no_visible_owner(self, free_base: int) -> None:
        assert sockets.owner_of("tcp", free_base) == "a process of another user"


class TestKeys:
    def test_a_robot_of_this_machine_needs_none(self, look: Look) -> None:
        assert (look("keys").status, look("keys").fact) == (
            "ok",
            "the robot listens to this machine only",
        )

    def test_an_open_robot_needs_one(self, look: Look, tmp_path: Path) -> None:
        finding = look("keys", bind="0.0.0.0")
        assert finding.status == "fail"
        assert "`rt keys new NAME`" in finding.fact
        Keyring(tmp_path / "secret").new("blue")
        finding = look("keys", bind="0.0.0.0", keys_dir="secret")
        assert (finding.status, finding.fact.endswith("open to blue")) == ("ok", True)

    def test_keys_in_the_project_are_a_warning(self, look: Look, tmp_path: Path) -> None:
        Keyring(tmp_path / "keys").new("blue")
        finding = look("keys", bind="0.0.0.0")
        assert (finding.status, "lies in the project's folder" in finding.fact) == ("warn", True)

    def test_keys_that_others_may_read_fail(self, look: Look, tmp_path: Path) -> None:
        Keyring(tmp_path / "keys").new("blue")
        (tmp_path / "keys").chmod(0o755)
        finding = look("keys", bind="0.0.0.0")
        assert (finding.status, "chmod 700" in finding.fact) == ("fail", True)

    def test_a_robot_that_is_open_to_everybody_is_a_warning(self, look: Look) -> None:
        finding = look("keys", bind="0.0.0.0", insecure=True)
        assert finding.status == "warn"
        assert "insecure" in finding.fact


class TestSerial:
    def test_no_port_is_a_warning(self, look: Look, tmp_path: Path) -> None:
        finding = look("serial", dev_ports=(str(tmp_path / "ttyACM*"),))
        assert finding.status == "warn"
        assert "plug in" in finding.remedy

    def test_a_port_that_may_be_used_is_listed(self, look: Look, terminal: str) -> None:
        finding = look("serial", dev_ports=(terminal,))
        assert finding.status == "ok"
        assert finding.fact.startswith(f"1 may be used: {terminal}")

    def test_a_port_that_another_program_holds_is_told_with_its_name(
        self, look: Look, terminal: str
    ) -> None:
        code = "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print(flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, terminal], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout
            other.stdout.readline()
            finding = look("serial", dev_ports=(terminal,))
            assert other.stdin
            other.stdin.close()
        assert finding.status == "warn"
        assert f"(process {other.pid})" in finding.fact
        assert "close that program" in finding.remedy

    def test_a_port_that_does_not_count_is_told_with_the_reason(
        self, look: Look, terminal: str
    ) -> None:
        finding = look("serial", dev_ports=(terminal,), dev_ports_denied=(terminal,))
        assert finding.status == "warn"
        assert f"{terminal} does not count: dev_ports_denied denies it" in finding.fact

    def test_no_permission_tells_the_command(self) -> None:
        # Root may use every port, so this one is looked at as another user, who has no way into
        # pytest's own directories.
        with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name:
            Path(name).chmod(0o755)
            port = Path(name, "ttyACM0")
            port.touch(mode=0o600)
            result = self._examined_by_nobody(port)
        status, fact, remedy = result.stdout.strip().split("|")
        assert (status, fact) == ("fail", f"no permission to use {port}"), result.stderr
        assert "sudo usermod -aG dialout " in remedy

    def _examined_by_nobody(self, port: Path) -> subprocess.CompletedProcess[str]:
        code = (
            "import os, sys; from pathlib import Path; from rt import doctor; from rt.config import Config\n"
            "doctor.checks()\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "else: os.chmod(sys.argv[1], 0)\n"
            "config = Config(dev_ports=(sys.argv[1],))\n"
            "(finding,) = doctor.examine(doctor.Environment(config=config, directory=Path('/')), ['serial'])\n"
            "print(finding.status, finding.fact, finding.remedy, sep='|')"
        )
        return subprocess.run(
            [sys.executable, "-c", code, str(port)],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )


class TestCatalog:
    def test_the_built_in_one_is_right(self, look: Look) -> None:
        finding = look("catalog")
        assert finding.status == "ok"
        assert "11 kinds of Smart Devices" in finding.fact

    def test_a_wrong_one_is_told_with_its_place(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("[[\n")
        finding = look("catalog", dev_catalog="mine.toml")
        assert finding.status == "fail"
        assert "mine.toml" in finding.fact

    def test_an_absent_one_is_told(self, look: Look) -> None:
        assert look("catalog", dev_catalog="absent.toml").status == "fail"


class TestCode:
    def test_code_that_compiles_is_fine(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "studentcode.py").write_text(
            "from x import teleop_main\ndef autonomous_main(): ...\n"
        )
        finding = look("code")
        assert (finding.status, finding.fact) == (
            "ok",
            f"{tmp_path / 'studentcode.py'} compiles, 2 lines; `rt lint` checks more",
        )

    def test_a_package_and_a_path_are_found_too(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "robot").mkdir()
        (tmp_path / "robot" / "__init__.py").touch()
        (tmp_path / "robot" / "drive.py").touch()
        for name in ("robot", "robot.drive", "robot/drive.py"):
            finding = look("code", exec_module=name)
            assert (finding.status, "has no teleop_main" in finding.fact) == ("warn", True), name
        assert look("code", exec_module=str(tmp_path / "robot")).status == "fail"

    def test_a_syntax_error_has_file_and_line(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "studentcode.py").write_text("x = 1\ndef f(:\n")
        finding = look("code")
        assert finding.status == "fail"
        assert finding.fact.startswith(f"{tmp_path / 'studentcode.py'}:2: ")

    @pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = '\0'\n", b"# coding: klingon\n"])
    def test_what_is_no_text_of_python_fails(
        self, look: Look, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "studentcode.py").write_bytes(content)
        finding = look("code")
        assert finding.status == "fail"
        assert "studentcode.py" in finding.fact

    def test_absent_code_is_a_warning_unless_it_was_asked_for(self, look: Look) -> None:
        assert look("code").status == "warn"
        assert look("code", exec_module="elsewhere").status == "fail"


class TestCommand:
    def run(self, directory: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        code = "import sys; from rt.cli.main import run; raise SystemExit(run(sys.argv[1:]))"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RT_")}
        root = str(Path(doctor.__file__).parents[2])
        return subprocess.run(
            [sys.executable, "-c", code, "doctor", *arguments],
            cwd=directory,
            env={**clean, "PYTHONPATH": root, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_a_bad_option_is_one_failed_check_among_the_others(self, tmp_path: Path) -> None:
        (tmp_path / "rt.toml").write_text("port_bsae = 1\n")
        result = self.run(tmp_path, "--json", "--only", "config", "--only", "shm")
        assert [(each["id"], each["status"]) for each in json.loads(result.stdout)] == [
            ("config", "fail"),
            ("shm", "ok"),
        ]
        assert result.returncode == 1

    def test_an_unknown_check_means_it_could_not_run(self, tmp_path: Path) -> None:
        result = self.run(tmp_path, "--only", "mutx")
        assert result.returncode == 2
        assert result.stderr.startswith(
            "rt: there is no check 'mutx'; did you mean mutex?; --list shows them all\n"
        )

    def test_all_checks_together(self, tmp_path: Path, free_base: int) -> None:
        result = self.run(
            tmp_path, "--instance", f"doctor-{os.getpid()}", "--port-base", str(free_base)
        )
        assert result.returncode == 0, result.stdout
        for identifier, check in doctor.checks().items():
            assert check.on_request or f" {identifier} " in result.stdout
