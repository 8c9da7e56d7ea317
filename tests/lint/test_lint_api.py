"""The linter's tables come from rt.team.api, and the executor gives team code those names."""

from types import SimpleNamespace
from typing import Any

import pytest

from rt import catalog
from rt.buffer import BufferStore
from rt.config import Config
from rt.executor.actions import AsyncExecutor
from rt.executor.report import Reporter
from rt.executor.runner import ModeRunner
from rt.executor.time_limit import SyncExecutor
from rt.lint.api import METHODS, NAMES, VALUES, Method, method_of
from rt.team import api
from rt.team.api import Mode


@pytest.fixture
async def given(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the executor gives to team code."""
    monkeypatch.setattr("threading.excepthook", None)
    reporter = Reporter()
    keeper: Any = SimpleNamespace(restart=None)
    runner = ModeRunner(
        sync=SyncExecutor(reporter.report, str(tmp_path)),
        actions=AsyncExecutor(reporter.report),
        keeper=keeper,
        store=BufferStore(catalog.load(), "", shared=False),
        device_names={},
        config=Config(),
        directory=tmp_path,
        reporter=reporter,
    )
    return dict(runner.names)


def test_methods_are_derived_from_signatures() -> None:
    class Arm:
        def lift(self, height: float, speed: float = 1.0) -> None: ...

        def move(self, *angles: float) -> None: ...

        async def rest(self) -> None: ...

    assert method_of(Arm.lift) == Method(("height", "speed"), 1)
    assert method_of(Arm.move) == Method((), 0, rest=True)
    assert method_of(Arm.rest) == Method((), 0, is_async=True)


def test_tables_contain_the_whole_team_api() -> None:
    assert tuple(api.NAMES) == NAMES
    assert METHODS["Robot"] == {
        "get": Method(("device", "param"), 2),
        "write": Method(("device", "param", "value"), 3),
    }
    assert METHODS["Gamepad"] == {"get": Method(("param", "gamepad"), 1)}
    assert METHODS["Actions"] == {
        "run": Method(("action",), 1, rest=True),
        "is_running": Method(("action",), 1),
        "sleep": Method(("seconds",), 1, is_async=True),
    }
    assert METHODS["Field"] == {"clock": Method()}
    assert VALUES == {
        "Gamepad": ("enabled",),
        "Field": ("mode", "alliance"),
        "Alliance": ("UNKNOWN", "BLUE", "GOLD"),
    }


async def test_executor_gives_these_names_and_no_others(given: dict[str, Any]) -> None:
    assert list(given) == [*NAMES, "print", "input"]


@pytest.mark.parametrize("name", NAMES)
async def test_executor_implements_each_method_as_declared(
    given: dict[str, Any], name: str
) -> None:
    implementation = given[name] if name == "Alliance" else type(given[name])
    assert api.NAMES[name] in implementation.__mro__
    for method, description in METHODS.get(name, {}).items():
        assert method in vars(implementation)
        assert method_of(getattr(implementation, method)) == description
    for value in VALUES.get(name, ()):
        assert isinstance(getattr(given[name], value), bool | Mode | api.Alliance)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Alliance"])
async def test_executor_adds_no_public_name(given: dict[str, Any], name: str) -> None:
    public = {each for each in dir(given[name]) if not each.startswith("_")}
    assert public == {*METHODS[name], *VALUES.get(name, ())}


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_documented(name: str) -> None:
    owner = api.NAMES[name]
    assert owner.__doc__
    for method in METHODS.get(name, {}):
        assert getattr(owner, method).__doc__
