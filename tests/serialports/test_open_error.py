"""The remedy for a port that cannot be opened names the group, the command and the program."""

import grp
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rt.serialports.open_error import Holder, access_remedy, held_remedy, holders

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another group")


def test_program_that_holds_a_port_is_named(tmp_path: Path) -> None:
    port, link = tmp_path / "ttyACM0", tmp_path / "board"
    port.touch()
    link.symlink_to(port)
    code = "import sys; file = open(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout
        other.stdout.readline()
        found = [holder for holder in holders(str(link)) if holder is not None]
        assert other.stdin
        other.stdin.close()
    assert [holder.pid for holder in found] == [other.pid]
    assert held_remedy(str(port), found[0]).startswith(
        f"{found[0].name} (process {other.pid}) has it open"
    )


def test_own_process_is_not_a_holder(tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    with port.open("w"):
        assert not any(holders(str(port)))


def test_without_procfs_remedy_explains_how_to_find_holder(tmp_path: Path) -> None:
    assert list(holders("/dev/ttyACM0", tmp_path / "absent")) == []
    assert "sudo fuser -v /dev/ttyACM0" in held_remedy("/dev/ttyACM0", None)
    assert "kill 7" in held_remedy("/dev/ttyACM0", Holder(7, "screen"))


@root
def test_group_of_port_is_named_with_command(tmp_path: Path) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid not in (0, *os.getgroups()))
    port = tmp_path / "ttyACM0"
    port.touch()
    os.chown(port, -1, group.gr_gid)
    port.chmod(0o660)
    remedy = access_remedy(str(port))
    assert f"group {group.gr_name}" in remedy
    assert f"`sudo usermod -aG {group.gr_name} root`" in remedy


def test_port_of_one_user_needs_group_first(tmp_path: Path) -> None:
    port = tmp_path / "ttyACM0"
    port.touch(mode=0o600)
    remedy = access_remedy(str(port))
    assert "only user" in remedy
    assert f"sudo chgrp dialout {port}" in remedy
    assert "sudo usermod -aG dialout " in remedy


def test_missing_port_is_reported() -> None:
    assert "No such file" in access_remedy("/nonexistent/ttyACM0")
