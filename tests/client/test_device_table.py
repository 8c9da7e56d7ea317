"""The table of devices at various terminal widths."""

from typing import Any

import pytest
from rich.console import Console

from rt.client import device_table


def drawn(width: int, rows: list[dict[str, Any]], **more: Any) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(device_table.device_table(rows, width=width, **more))
    return capture.get()


def row(**changes: Any) -> dict[str, Any]:
    counters = dict.fromkeys(device_table.COUNTERS.values(), 12)
    values = {"duty_cycle": -0.5, "enc_position": 12.25, "switch0": True}
    return {
        "uid": "56668397794435742564353",
        "name": "",
        "type": "polar-bear",
        "connected": True,
        "values": values,
    } | {**counters, **changes}


@pytest.mark.parametrize("width", [120, 80, 50, 40])
def test_table_keeps_values_with_names_and_uid_whole(width: int) -> None:
    text = drawn(width, [row()])
    for part in (
        "duty_cycle  -0.500",
        "enc_position  12.250",
        "switch0 on",
        "56668397794435742564353",
    ):
        assert part in text
    assert max(map(len, text.splitlines())) <= width
    assert ("received" in text) == (width > 80)
    assert "1 device has no name" in text


@pytest.mark.parametrize("width", [120, 80, 50])
def test_problem_counters_are_shown_at_every_width(width: int) -> None:
    troubled = drawn(width, [row(bad_frames=345, writes_dropped=678)])
    assert "345" in troubled
    assert "678" in troubled
    sound = drawn(80, [row(bad_frames=0, writes_dropped=0)])
    assert "bad" not in sound
    assert "dropped" not in sound


def test_unnamed_devices_get_lines_for_rt_toml() -> None:
    motors = [row(uid=str(number), type="polar-bear") for number in range(20)]
    text = drawn(120, [row(uid="77", type="rfid", name="my_polar_bear_2"), *motors])
    assert "20 devices have no name; name them in rt.toml under [dev_name]" in text
    assert 'my_polar_bear = "0"\nmy_polar_bear_3 = "1"\n' in "\n".join(
        map(str.rstrip, text.splitlines())
    )
    assert text.count("my_polar_bear_") <= 10


def test_named_device_never_seen_has_row() -> None:
    text = drawn(80, [row(name="left [b]")], names={5: "arm", 56668397794435742564353: "left [b]"})
    assert "never seen" in text
    assert "left [b]" in text
    assert "no name" not in text


def test_device_named_by_uid_shows_uid_once() -> None:
    assert drawn(80, [], names={77: "77"}).count("77") == 1


def test_empty_table_says_what_to_do() -> None:
    assert drawn(80, []).strip() == device_table.EMPTY
