"""The methods of the broker's service and their arguments."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from support.lint import write

from rt import catalog
from rt.broker import Broker, GamepadFeed
from rt.buffer import BufferStore
from rt.config import Config
from rt.errors import ExecutionError, RemoteProtocolError
from rt.lint import runner
from rt.lint.record import Record, record

NEUTRAL = {"lx": 0.0, "ly": 0.0, "rx": 0.0, "ry": 0.0, "btn": 0}


@pytest.fixture
def feed() -> GamepadFeed:
    return GamepadFeed(BufferStore(catalog.load(), "", shared=False))


@pytest.fixture
def broker(feed: GamepadFeed, tmp_path: Path) -> Broker:
    return Broker(Config(), feed, dict, state=tmp_path / "state", directory=tmp_path)


def test_buttons_are_the_bool_parameters_in_order(broker: Broker) -> None:
    names = [param.name for param in broker.button_params]
    assert (names[0], names[-1], len(names)) == ("button_a", "button_xbox", 17)


def test_methods_are_described_with_their_types(broker: Broker) -> None:
    described = broker.describe()
    methods = {
        "get_option",
        "set_option",
        "lint",
        "update_gamepads",
        "stations",
        "status",
        "describe",
    }
    methods |= {"take_control", "release_control", "commander"}
    assert methods == set(described)
    assert described["lint"].result is not None
    assert [each.name for each in described["update_gamepads"].arguments] == ["update", "stamp"]


@pytest.mark.parametrize(
    ("update", "message"),
    [
        ({"4": NEUTRAL}, "no gamepad '4'; expected '0' to '3'"),
        ({"-1": NEUTRAL}, "no gamepad '-1'"),
        ({"0": {**NEUTRAL, "btn": 1 << 17}}, "there are 17 buttons"),
        ({"0": {**NEUTRAL, "btn": -1}}, "btn"),
        ({"0": {**NEUTRAL, "lx": 1.5}}, "lx"),
        ({"0": {**NEUTRAL, "lx": float("nan")}}, "lx"),
        ({"0": {**NEUTRAL, "lz": 0.0}}, "lz"),
        ({"0": {"lx": 0.0}}, "missing"),
    ],
)
def test_unknown_gamepad_button_or_bad_value_is_refused(
    broker: Broker, feed: GamepadFeed, update: dict[str, Any], message: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=message.replace("(", r"\(")):
        broker.update_gamepads(update)
    assert feed.updates == 0


async def test_stamp_is_checked(broker: Broker, feed: GamepadFeed) -> None:
    call = broker.routes()["update_gamepads"]
    call.method(*call.bind([{"0": NEUTRAL}, {"station": "x", "seq": 1, "time": 5.0}]))
    with pytest.raises(RemoteProtocolError, match="sent twice"):
        call.method(*call.bind([{"0": NEUTRAL}, {"station": "x", "seq": 1, "time": 5.0}]))
    with pytest.raises(RemoteProtocolError, match="argument stamp"):
        call.bind([{"0": NEUTRAL}, {"sequence": 1}])
    call.method(*call.bind([{"0": NEUTRAL}]))
    assert (feed.updates, feed.stamps.refused) == (2, 1)


async def test_code_is_linted_with_the_options_of_the_robot(broker: Broker, tmp_path: Path) -> None:
    write(tmp_path, {"studentcode.py": "def teleop_main():\n    Robot.get('mtor', 'duty_cycle')\n"})
    found = await broker.lint()
    raw = msgspec.to_builtins(found)
    assert [(each["symbol"], each["message-id"], each["line"]) for each in raw] == [
        ("unknown-device", "RT201", 2)
    ]


async def test_third_concurrent_lint_is_refused(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, finish = trio.Event(), trio.Event()
    found = [record("warning", "x.py", "x", "RT000", "x")]

    async def slow(*_: object, **__: object) -> list[Record]:
        begun.set()
        await finish.wait()
        return found

    monkeypatch.setattr(runner, "run_lint", slow)
    answers: list[list[Record]] = []

    async def ask() -> None:
        answers.append(await broker.lint())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await begun.wait()
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ExecutionError, match="ask again later"):
            await broker.lint()
        finish.set()
    assert answers == [found, found]
