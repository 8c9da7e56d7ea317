"""Whatever a catalog's path leads to, the answer is a catalog or one clear sentence."""

import os
from pathlib import Path

import pytest

from rt import catalog
from rt.catalog.load import MAX_FILE_SIZE, builtin_path
from rt.errors import CatalogError

LAMP = '[lamp]\ndevice_id = 77\nparams = [{ name = "lit", type = "bool", writeable = true }]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "my.toml"


def refused(path: Path) -> str:
    with pytest.raises(CatalogError) as caught:
        catalog.load(path)
    return str(caught.value)


def test_a_catalog_of_ones_own_is_completed_with_what_is_rts_own(path: Path) -> None:
    path.write_text(LAMP)
    known = catalog.load(path)
    assert sorted(known) == ["field", "gamepad", "lamp"]
    assert known["gamepad"] == catalog.load()["gamepad"]
    assert known.source == str(path)


def test_the_built_in_catalog_can_be_copied_and_added_to(path: Path) -> None:
    path.write_text(builtin_path().read_text("utf-8") + LAMP)
    assert dict(catalog.load(path)) == {**catalog.load(), "lamp": catalog.parse(LAMP)["lamp"]}


def test_a_device_does_not_hide_a_peripheral_of_rts_own(path: Path) -> None:
    path.write_text("[gamepad]\ndevice_id = 77\nparams = []\n")
    assert refused(path) == (
        f"{path}:1: [gamepad] device_id = 77: gamepad is rt's own and no Smart Device: give yours another name"
    )
    path.write_text(
        '\n[field]\nparams = [{ name = "mode", type = "int8" }, { name = "alliance", type = "uint8" },'
        ' { name = "send_buf", type = "uint8[4096]" }, { name = "x", type = "bool" }]\n'
    )
    sentence = "is not as rt needs it: leave the table out, and rt's own field is used"
    assert refused(path).splitlines() == [
        f"{path}:2: [field] params: {param!r} {sentence}" for param in ("mode", "recv_buf", "x")
    ]


def test_a_peripheral_of_rts_own_may_have_another_order(path: Path) -> None:
    kinds = {
        "mode": "uint8",
        "alliance": "uint8",
        "send_buf": "uint8[4096]",
        "recv_buf": "uint8[4096]",
    }
    params = [f'{{ name = "{name}", type = "{kinds[name]}" }}' for name in reversed(kinds)]
    path.write_text(f"[field]\nparams = [{', '.join(params)}]\n")
    assert [param.name for param in catalog.load(path)["field"].params] == list(reversed(kinds))


def test_what_is_not_toml_is_told_with_its_line(path: Path) -> None:
    path.write_text("[a]\nparams = []\n[b\n")
    assert refused(path) == f"{path}:3: not TOML: expected ']' at the end of a table declaration"
    path.write_text("[a]\nparams = [\n")
    assert refused(path).startswith(f"{path}:2: not TOML: ")
    path.write_text("x = " + "[" * 5000)
    assert refused(path) == f"{path}: not TOML that rt can read: brackets are nested too deep"
    path.write_text("x = " + "9" * 5000)
    assert refused(path) == f"{path}: not TOML that rt can read: a number has too many digits"


def test_what_is_not_utf8_is_told_with_its_line(path: Path) -> None:
    path.write_bytes(b"[a]\n# caf\xe9\nparams = []\n")
    assert refused(path) == f"{path}:2: not UTF-8 text"


def test_an_editor_of_another_system_does_no_harm(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + LAMP.replace("\n", "\r\n").encode())
    assert "lamp" in catalog.load(path)


def test_what_is_no_file_is_not_read(path: Path) -> None:
    assert refused(path) == f"{path}: the catalog cannot be read: No such file or directory"
    path.mkdir()
    assert refused(path) == f"{path}: the catalog cannot be read: it is a directory"
    path.rmdir()
    os.mkfifo(path)
    assert refused(path) == f"{path}: the catalog cannot be read: it is no regular file"
    assert (
        refused(Path("/dev/zero")) == "/dev/zero: the catalog cannot be read: it is no regular file"
    )
    assert "cannot be read" in refused(Path("a\0b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_says_so(path: Path) -> None:
    path.write_text(LAMP)
    path.chmod(0)
    assert refused(path) == f"{path}: the catalog cannot be read: Permission denied"


def test_a_huge_file_is_no_catalog(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    assert refused(path) == f"{path}: it has more than {MAX_FILE_SIZE} bytes and is no catalog"
