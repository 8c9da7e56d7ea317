"""A port counts by its name or by its USB device, and a denial goes before both."""

from pathlib import Path

import pytest

from rt.serialports.filter import PortFilter

BOARD, OTHER = "2341:8037", "1a86:7523"


class Machine:
    """A tree like sysfs, and one like /dev."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.dev = root / "sys", root / "dev"
        (self.sysfs / "class/tty").mkdir(parents=True)
        self.dev.mkdir()

    def plug(self, name: str, usb_id: str | None, *, steps: int = 1, hub: str = "1d6b:0002") -> str:
        """Plug in a tty: of a USB device so many steps below it, behind a hub; or of none."""
        port = self.dev / name
        port.touch()
        tty = self.sysfs / "class/tty" / name
        tty.mkdir()
        if usb_id is None:
            device = self.sysfs / "devices/platform" / name
            device.mkdir(parents=True)
        else:
            root = self.sysfs / "devices/pci0/usb1"
            board = root / f"1-{name}"
            device = board.joinpath(*[f"step{number}" for number in range(steps)])
            device.mkdir(parents=True)
            for place, its_id in ((root, hub), (board, usb_id)):
                for file, value in zip(("idVendor", "idProduct"), its_id.split(":"), strict=True):
                    (place / file).write_text(f"{value}\n")
        (tty / "device").symlink_to(device)
        return str(port)

    def filter(
        self, *patterns: str, usb_ids: tuple[str, ...] = (), denied: tuple[str, ...] = ()
    ) -> PortFilter:
        return PortFilter(
            [str(self.dev / each) for each in patterns],
            usb_ids,
            [str(self.dev / each) for each in denied],
            sysfs=str(self.sysfs),
            dev=str(self.dev),
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_name_counts_and_others_do_not(machine: Machine) -> None:
    board = machine.plug("ttyACM0", None)
    machine.plug("ttyS0", None)
    assert list(machine.filter("ttyACM*").find()) == [board]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_usb_device_counts_whatever_its_name(machine: Machine, steps: int) -> None:
    board = machine.plug("ttyUSB3", BOARD, steps=steps)
    machine.plug("ttyUSB4", OTHER, steps=steps)
    machine.plug("ttyS0", None)
    (machine.sysfs / "class/tty/tty7").mkdir()
    assert list(machine.filter(usb_ids=(BOARD.upper(),)).find()) == [board]


def test_a_link_is_another_name_of_the_same_port(machine: Machine) -> None:
    board = machine.plug("ttyACM0", BOARD)
    (machine.dev / "a-board").symlink_to(board)
    found = machine.filter("tty*", "a-*", usb_ids=(BOARD,)).find()
    assert {device: list(seen.names) for device, seen in found.items()} == {
        board: [board, str(machine.dev / "a-board")]
    }


def test_a_port_counts_by_the_name_of_a_link_alone(machine: Machine) -> None:
    board = machine.plug("ttyS5", None)
    (machine.dev / "a-board").symlink_to(board)
    assert machine.filter("a-*").find()[board].name == str(machine.dev / "a-board")


def test_a_link_to_nothing_is_no_port(machine: Machine) -> None:
    (machine.dev / "ttyACM0").symlink_to(machine.dev / "absent")
    assert machine.filter("ttyACM*").find() == {}


@pytest.mark.parametrize("denied", ["ttyACM0", "tty*0", "by-name"])
def test_a_denial_goes_before_name_and_usb_id(machine: Machine, denied: str) -> None:
    board = machine.plug("ttyACM0", BOARD)
    (machine.dev / "by-name").symlink_to(board)
    assert machine.filter("tty*", usb_ids=(BOARD,), denied=(denied,)).find() == {}


def test_who_is_plugged_in_again_has_another_identity(machine: Machine) -> None:
    board = Path(machine.plug("ttyACM0", None))
    ports = machine.filter("ttyACM*")
    before = ports.find()
    assert ports.find() == before
    board.rename(machine.dev / "unplugged")
    board.touch()
    assert ports.find()[str(board)] != before[str(board)]


def test_a_link_that_was_made_again_has_another_identity(machine: Machine) -> None:
    board, link = machine.plug("ttyS5", None), machine.dev / "a-board"
    ports = machine.filter("a-*")
    link.symlink_to(board)
    before = ports.find()
    link.unlink()
    link.symlink_to(board)
    assert ports.find()[board] != before[board]


def test_what_does_not_count_is_told_with_the_reason(machine: Machine) -> None:
    machine.plug("ttyACM0", BOARD)
    denied = machine.plug("ttyACM1", BOARD)
    other = machine.plug("ttyUSB0", OTHER)
    machine.plug("ttyS0", None)
    ports = machine.filter("ttyACM*", usb_ids=(BOARD,), denied=("ttyACM1",))
    reasons = dict(ports.ignored_ports(ports.find()))
    assert list(reasons) == [denied, other]
    assert "dev_ports_denied" in reasons[denied]
    assert f"USB id {OTHER} is not in dev_usb_ids" in reasons[other]


def test_without_sysfs_names_still_count(tmp_path: Path) -> None:
    (tmp_path / "ttyACM0").touch()
    ports = PortFilter([f"{tmp_path}/tty*"], [BOARD], sysfs="/nonexistent")
    assert list(ports.find()) == [f"{tmp_path}/ttyACM0"]


def test_only_what_is_never_announced_has_to_be_looked_at_often() -> None:
    often = ["/tmp/x/ttyA*", "/dev/pts/*", "/dev/board", "/dev/*", "/dev/tty*/x"]
    seldom = ["/dev/ttyACM*", "/dev/ttyUSB[01]", "/dev/serial/by-id/usb-*", "/dev/tty*"]
    assert PortFilter([*often, *seldom]).polled_patterns == tuple(often)


def test_the_system_is_looked_at_without_harm() -> None:
    ports = PortFilter(["/dev/ttyACM*"], [BOARD])
    assert set(ports.find()).isdisjoint(dict(ports.ignored_ports(ports.find())))
