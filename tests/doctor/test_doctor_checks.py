"""Each check against real resources, working and broken."""

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
from rt.doctor import Environment, Finding, network

Look = Callable[..., Finding]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    def run(identifier: str, **options: object) -> Finding:
        origins = dict.fromkeys(options, "rt.toml:1")
        name = f"doctor-{os.getpid()}"
        config = Config(**{"instance": name, **options})  # type: ignore[arg-type]
        (finding,) = doctor.examine(
            Environment(config=config, origins=origins, directory=tmp_path), [identifier]
        )
        return finding

    return run


@pytest.fixture
def free_base() -> int:
    """Return the first of five free ports."""
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


class TestSystem:
    def test_this_machine_can_run_rt(self, look: Look) -> None:
        for identifier in ("python", "platform", "shm", "multicast"):
            finding = look(identifier)
            assert finding.status == "ok", finding

    def test_instance_that_is_not_running_is_reported(self, look: Look) -> None:
        assert "is not running" in look("instance").fact

    def test_bad_option_is_a_finding_with_its_place(self, tmp_path: Path) -> None:
        environment = Environment(
            config=Config(), problem="rt.toml:3: unknown option 'x'", directory=tmp_path
        )
        (finding,) = doctor.examine(environment, ["config"])
        assert (finding.status, finding.fact) == ("fail", "rt.toml:3: unknown option 'x'")

    def test_lock_is_recovered_from_a_killed_owner(self) -> None:
        # In its own process, because the check forks.
        code = (
            "from rt.cli.main import run;"
            " raise SystemExit(run(['doctor', '--json', '--only', 'mutex']))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
        )
        (finding,) = json.loads(result.stdout)
        assert (finding["status"], result.returncode) == ("ok", 0), finding


class TestAddresses:
    def test_free_addresses_are_ok(self, look: Look, free_base: int) -> None:
        finding = look("addresses", port_base=free_base)
        assert finding.status == "ok"
        assert f"ports {free_base} to {free_base + 4}" in finding.fact

    @pytest.mark.parametrize(
        ("kind", "offset", "option"), [("tcp", 4, "dev_vsd_addr"), ("udp", 2, "control_addr")]
    )
    def test_held_address_names_its_holder(
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
        assert "--port-base" in finding.remedy

    def test_address_of_another_machine_fails(self, look: Look, free_base: int) -> None:
        finding = look("addresses", port_base=free_base, bind="192.0.2.1")
        assert finding.status == "fail"
        assert "Cannot assign requested address" in finding.fact

    def test_socket_file_fails_only_with_a_listener(
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

    def test_free_port_has_no_visible_owner(self, free_base: int) -> None:
        assert network.owner_of("tcp", free_base) == "a process of another user"


class TestKeys:
    def test_local_robot_needs_no_key(self, look: Look) -> None:
        assert (look("keys").status, look("keys").fact) == (
            "ok",
            "the robot is open to this machine only",
        )

    def test_open_robot_needs_a_key(self, look: Look, tmp_path: Path) -> None:
        finding = look("keys", bind="0.0.0.0")
        assert finding.status == "fail"
        assert "`rt keys new NAME`" in finding.fact
        Keyring(tmp_path / "secret").new("blue")
        finding = look("keys", bind="0.0.0.0", keys_dir="secret")
        assert (finding.status, finding.fact.endswith("open to blue")) == ("ok", True)

    def test_keys_in_the_project_are_a_warning(self, look: Look, tmp_path: Path) -> None:
        Keyring(tmp_path / "keys").new("blue")
        finding = look("keys", bind="0.0.0.0")
        assert (finding.status, "is in the project folder" in finding.fact) == ("warn", True)

    def test_keys_readable_by_others_fail(self, look: Look, tmp_path: Path) -> None:
        Keyring(tmp_path / "keys").new("blue")
        (tmp_path / "keys").chmod(0o755)
        finding = look("keys", bind="0.0.0.0")
        assert (finding.status, "chmod 700" in finding.fact) == ("fail", True)

    def test_insecure_robot_is_a_warning(self, look: Look) -> None:
        finding = look("keys", bind="0.0.0.0", insecure=True)
        assert finding.status == "warn"
        assert "insecure" in finding.fact


class TestSerial:
    def test_missing_port_is_a_warning(self, look: Look, tmp_path: Path) -> None:
        finding = look("serial", dev_ports=(str(tmp_path / "ttyACM*"),))
        assert finding.status == "warn"
        assert "plug in" in finding.remedy

    def test_accessible_port_is_listed(self, look: Look, terminal: str) -> None:
        finding = look("serial", dev_ports=(terminal,))
        assert finding.status == "ok"
        assert finding.fact.startswith(f"1 accessible: {terminal}")

    def test_port_held_by_another_program_names_it(self, look: Look, terminal: str) -> None:
        code = (
            "import os, sys; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print(flush=True);"
            " sys.stdin.read()"
        )
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

    def test_ignored_port_is_listed_with_the_reason(self, look: Look, terminal: str) -> None:
        finding = look("serial", dev_ports=(terminal,), dev_ports_denied=(terminal,))
        assert finding.status == "warn"
        assert f"{terminal} is ignored: it matches dev_ports_denied" in finding.fact

    def test_missing_permission_names_the_command(self) -> None:
        # Root may use every port, so another user runs the check, who cannot enter pytest's own
        # directories.
        with tempfile.TemporaryDirectory(prefix="rt-", dir="/tmp") as name:
            Path(name).chmod(0o755)
            port = Path(name, "ttyACM0")
            port.touch(mode=0o600)
            result = self._examined_without_privileges(port)
        status, fact, remedy = result.stdout.strip().split("|")
        assert (status, fact) == ("fail", f"no permission to use {port}"), result.stderr
        assert "sudo usermod -aG dialout " in remedy

    def _examined_without_privileges(self, port: Path) -> subprocess.CompletedProcess[str]:
        code = (
            "import os, sys; from pathlib import Path\n"
            "from rt import doctor; from rt.config import Config\n"
            "doctor.checks()\n"
            "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "else: os.chmod(sys.argv[1], 0)\n"
            "config = Config(dev_ports=(sys.argv[1],))\n"
            "environment = doctor.Environment(config=config, directory=Path('/'))\n"
            "(finding,) = doctor.examine(environment, ['serial'])\n"
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
    def test_built_in_catalog_is_valid(self, look: Look) -> None:
        finding = look("catalog")
        assert finding.status == "ok"
        assert "11 types of Smart Devices" in finding.fact

    def test_bad_catalog_is_reported_with_its_place(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").write_text("[[\n")
        finding = look("catalog", dev_catalog="mine.toml")
        assert finding.status == "fail"
        assert "mine.toml" in finding.fact

    def test_missing_catalog_fails(self, look: Look) -> None:
        assert look("catalog", dev_catalog="absent.toml").status == "fail"


class TestCode:
    def test_code_that_compiles_is_ok(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "studentcode.py").write_text(
            "from x import teleop_main\ndef autonomous_main(): ...\n"
        )
        finding = look("code")
        assert (finding.status, finding.fact) == (
            "ok",
            f"{tmp_path / 'studentcode.py'} compiles, 2 lines; `rt lint` checks more",
        )

    def test_package_and_path_are_found_too(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "robot").mkdir()
        (tmp_path / "robot" / "__init__.py").touch()
        (tmp_path / "robot" / "drive.py").touch()
        for name in ("robot", "robot.drive", "robot/drive.py"):
            finding = look("code", exec_module=name)
            assert (finding.status, "has no teleop_main" in finding.fact) == ("warn", True), name
        assert look("code", exec_module=str(tmp_path / "robot")).status == "fail"

    def test_syntax_error_names_file_and_line(self, look: Look, tmp_path: Path) -> None:
        (tmp_path / "studentcode.py").write_text("x = 1\ndef f(:\n")
        finding = look("code")
        assert finding.status == "fail"
        assert finding.fact.startswith(f"{tmp_path / 'studentcode.py'}:2: ")

    @pytest.mark.parametrize("content", [b"x = '\xff'\n", b"x = '\0'\n", b"# coding: klingon\n"])
    def test_file_that_is_not_python_text_fails(
        self, look: Look, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "studentcode.py").write_bytes(content)
        finding = look("code")
        assert finding.status == "fail"
        assert "studentcode.py" in finding.fact

    def test_missing_code_is_a_warning_unless_exec_module_is_given(self, look: Look) -> None:
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

    def test_bad_option_does_not_prevent_other_checks(self, tmp_path: Path) -> None:
        (tmp_path / "rt.toml").write_text("port_bsae = 1\n")
        result = self.run(tmp_path, "--json", "--only", "config", "--only", "shm")
        assert [(each["id"], each["status"]) for each in json.loads(result.stdout)] == [
            ("config", "fail"),
            ("shm", "ok"),
        ]
        assert result.returncode == 1

    def test_unknown_check_is_a_usage_error(self, tmp_path: Path) -> None:
        result = self.run(tmp_path, "--only", "mutx")
        assert result.returncode == 2
        assert result.stderr.startswith(
            "rt: unknown check 'mutx'; did you mean mutex?; see `rt doctor --list`\n"
        )

    def test_all_checks_run_together(self, tmp_path: Path, free_base: int) -> None:
        result = self.run(
            tmp_path, "--instance", f"doctor-{os.getpid()}", "--port-base", str(free_base)
        )
        assert result.returncode == 0, result.stdout
        for identifier, check in doctor.checks().items():
            assert check.on_request or f" {identifier} " in result.stdout
