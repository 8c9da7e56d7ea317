"""Tests of loading: any path yields a catalog or one clear error."""

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


def test_built_in_peripherals_are_added_to_a_catalog(path: Path) -> None:
    path.write_text(LAMP)
    loaded = catalog.load(path)
    assert sorted(loaded) == ["field", "gamepad", "lamp"]
    assert loaded["gamepad"] == catalog.load()["gamepad"]
    assert loaded.source == str(path)


def test_built_in_catalog_can_be_copied_and_extended(path: Path) -> None:
    path.write_text(builtin_path().read_text("utf-8") + LAMP)
    assert dict(catalog.load(path)) == {**catalog.load(), "lamp": catalog.parse(LAMP)["lamp"]}


def test_built_in_peripheral_cannot_be_changed(path: Path) -> None:
    path.write_text("[gamepad]\ndevice_id = 77\nparams = []\n")
    assert refused(path) == (
        f"{path}:1: [gamepad] device_id = 77: "
        "gamepad is built in and not a Smart Device; use another name"
    )
    path.write_text(
        '\n[field]\nparams = [{ name = "mode", type = "int8" },'
        ' { name = "alliance", type = "uint8" },'
        ' { name = "send_buf", type = "uint8[4096]" }, { name = "x", type = "bool" }]\n'
    )
    sentence = "differs from the built-in field; remove the table to use that one"
    assert refused(path).splitlines() == [
        f"{path}:2: [field] params: {param!r} {sentence}" for param in ("mode", "recv_buf", "x")
    ]


def test_built_in_peripheral_may_be_reordered(path: Path) -> None:
    types = {
        "mode": "uint8",
        "alliance": "uint8",
        "send_buf": "uint8[4096]",
        "recv_buf": "uint8[4096]",
    }
    params = [f'{{ name = "{name}", type = "{types[name]}" }}' for name in reversed(types)]
    path.write_text(f"[field]\nparams = [{', '.join(params)}]\n")
    assert [param.name for param in catalog.load(path)["field"].params] == list(reversed(types))


def test_invalid_toml_has_its_line(path: Path) -> None:
    path.write_text("[a]\nparams = []\n[b\n")
    assert refused(path) == f"{path}:3: not TOML: expected ']' at the end of a table declaration"
    path.write_text("[a]\nparams = [\n")
    assert refused(path).startswith(f"{path}:2: not TOML: ")
    path.write_text("x = " + "[" * 5000)
    assert refused(path) == f"{path}: cannot parse this TOML: brackets are nested too deeply"
    path.write_text("x = " + "9" * 5000)
    assert refused(path) == f"{path}: cannot parse this TOML: a number has too many digits"


def test_invalid_utf8_has_its_line(path: Path) -> None:
    path.write_bytes(b"[a]\n# caf\xe9\nparams = []\n")
    assert refused(path) == f"{path}:2: not UTF-8 text"


def test_byte_order_mark_and_crlf_are_accepted(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + LAMP.replace("\n", "\r\n").encode())
    assert "lamp" in catalog.load(path)


def test_only_regular_files_are_read(path: Path) -> None:
    assert refused(path) == f"{path}: cannot read the catalog: No such file or directory"
    path.mkdir()
    assert refused(path) == f"{path}: cannot read the catalog: a directory"
    path.rmdir()
    os.mkfifo(path)
    assert refused(path) == f"{path}: cannot read the catalog: not a regular file"
    assert refused(Path("/dev/zero")) == "/dev/zero: cannot read the catalog: not a regular file"
    assert "cannot read" in refused(Path("a\0b"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_an_error(path: Path) -> None:
    path.write_text(LAMP)
    path.chmod(0)
    assert refused(path) == f"{path}: cannot read the catalog: Permission denied"


def test_too_large_file_is_refused(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    assert refused(path) == f"{path}: too large for a catalog: more than {MAX_FILE_SIZE} bytes"
