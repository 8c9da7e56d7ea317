"""A port is selected by its name or its USB device, and a denial overrides both."""

from pathlib import Path

import pytest

from rt.serialports.filter import PortFilter

BOARD, OTHER = "2341:8037", "1a86:7523"


class Machine:
    """A directory tree like sysfs, and one like /dev."""

    def __init__(self, root: Path) -> None:
        self.sysfs, self.dev = root / "sys", root / "dev"
        (self.sysfs / "class/tty").mkdir(parents=True)
        self.dev.mkdir()

    def plug(self, name: str, usb_id: str | None, *, steps: int = 1, hub: str = "1d6b:0002") -> str:
        """Plug in a tty, of a USB device ``steps`` levels above it and behind a hub, or of none."""
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
            for directory, its_id in ((root, hub), (board, usb_id)):
                for file, value in zip(("idVendor", "idProduct"), its_id.split(":"), strict=True):
                    (directory / file).write_text(f"{value}\n")
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


def test_port_is_selected_by_name(machine: Machine) -> None:
    board = machine.plug("ttyACM0", None)
    machine.plug("ttyS0", None)
    assert list(machine.filter("ttyACM*").find()) == [board]


@pytest.mark.parametrize("steps", [1, 2])
def test_usb_device_is_selected_whatever_its_name(machine: Machine, steps: int) -> None:
    board = machine.plug("ttyUSB3", BOARD, steps=steps)
    machine.plug("ttyUSB4", OTHER, steps=steps)
    machine.plug("ttyS0", None)
    (machine.sysfs / "class/tty/tty7").mkdir()
    assert list(machine.filter(usb_ids=(BOARD.upper(),)).find()) == [board]


def test_link_is_another_name_of_same_port(machine: Machine) -> None:
    board = machine.plug("ttyACM0", BOARD)
    (machine.dev / "a-board").symlink_to(board)
    found = machine.filter("tty*", "a-*", usb_ids=(BOARD,)).find()
    assert {device: list(seen.names) for device, seen in found.items()} == {
        board: [board, str(machine.dev / "a-board")]
    }


def test_port_is_selected_by_link_alone(machine: Machine) -> None:
    board = machine.plug("ttyS5", None)
    (machine.dev / "a-board").symlink_to(board)
    assert machine.filter("a-*").find()[board].name == str(machine.dev / "a-board")


def test_broken_link_is_ignored(machine: Machine) -> None:
    (machine.dev / "ttyACM0").symlink_to(machine.dev / "absent")
    assert machine.filter("ttyACM*").find() == {}


@pytest.mark.parametrize("denied", ["ttyACM0", "tty*0", "by-name"])
def test_denial_overrides_name_and_usb_id(machine: Machine, denied: str) -> None:
    board = machine.plug("ttyACM0", BOARD)
    (machine.dev / "by-name").symlink_to(board)
    assert machine.filter("tty*", usb_ids=(BOARD,), denied=(denied,)).find() == {}


def test_replugged_port_has_another_identity(machine: Machine) -> None:
    board = Path(machine.plug("ttyACM0", None))
    ports = machine.filter("ttyACM*")
    before = ports.find()
    assert ports.find() == before
    board.rename(machine.dev / "unplugged")
    board.touch()
    assert ports.find()[str(board)] != before[str(board)]


def test_recreated_link_has_another_identity(machine: Machine) -> None:
    board, link = machine.plug("ttyS5", None), machine.dev / "a-board"
    ports = machine.filter("a-*")
    link.symlink_to(board)
    before = ports.find()
    link.unlink()
    link.symlink_to(board)
    assert ports.find()[board] != before[board]


def test_ignored_port_is_reported_with_reason(machine: Machine) -> None:
    machine.plug("ttyACM0", BOARD)
    denied = machine.plug("ttyACM1", BOARD)
    other = machine.plug("ttyUSB0", OTHER)
    machine.plug("ttyS0", None)
    ports = machine.filter("ttyACM*", usb_ids=(BOARD,), denied=("ttyACM1",))
    reasons = dict(ports.ignored_ports(ports.find()))
    assert list(reasons) == [denied, other]
    assert "dev_ports_denied" in reasons[denied]
    assert f"USB id {OTHER} is not in dev_usb_ids" in reasons[other]


def test_names_are_matched_without_sysfs(tmp_path: Path) -> None:
    (tmp_path / "ttyACM0").touch()
    ports = PortFilter([f"{tmp_path}/tty*"], [BOARD], sysfs="/nonexistent")
    assert list(ports.find()) == [f"{tmp_path}/ttyACM0"]


def test_only_unannounced_patterns_are_polled() -> None:
    polled = ["/tmp/x/ttyA*", "/dev/pts/*", "/dev/board", "/dev/*", "/dev/tty*/x"]
    announced = ["/dev/ttyACM*", "/dev/ttyUSB[01]", "/dev/serial/by-id/usb-*", "/dev/tty*"]
    assert PortFilter([*polled, *announced]).polled_patterns == tuple(polled)


def test_real_system_is_scanned_without_error() -> None:
    ports = PortFilter(["/dev/ttyACM*"], [BOARD])
    assert set(ports.find()).isdisjoint(dict(ports.ignored_ports(ports.find())))
