"""Tests of Python functions as processes: import path, typed arguments and exit code."""

import functools
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from support import called
from support.lines import Lines
from support.supervised import assert_no_children, wait_until_exited

from rt.errors import ConfigError, ProcessStateError
from rt.process.call import CallableProcess, CallSettings, import_path
from rt.process.callable_child import bind, load
from rt.process.spawn import child_command
from rt.protocol import structs

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.fixture(autouse=True)
def no_child_remains() -> Iterator[None]:
    yield
    assert_no_children()


async def run(target: Callable[..., Any] | str, *args: Any, **kwargs: Any) -> tuple[int, list[str]]:
    lines = Lines()
    process = CallableProcess(target, args, kwargs, on_line=lines)
    with trio.fail_after(30):
        await process.start()
        return await process.wait(), lines.all


def events(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines if line.startswith("{")]


async def test_function_runs_in_another_process_with_typed_arguments() -> None:
    code, lines = await run(called.tell, called.Point(1.5, 2.5), count=2)
    assert code == 0
    kind, x, y, pid, cwd = lines[0].split()
    assert (kind, x, y, cwd) == ("Point", "1.5", "2.5", str(Path.cwd()))
    assert int(pid) != os.getpid()
    assert len(lines) == 2


async def test_import_path_is_accepted() -> None:
    assert await run("support.called:Robot.beep") == (0, ["beep"])
    assert await run("support.called:say", "a", "b", end="!") == (0, ["a b!"])


async def test_decorated_async_function_runs() -> None:
    assert await run(called.speak, 3) == (0, ["spoken 3"])


@pytest.mark.parametrize(
    ("target", "args", "code"),
    [
        (called.leave, (7,), 7),
        (called.leave, (0,), 0),
        (called.leave, (-1,), 1),
        (called.fail, (), 1),
        (called.misconfigured, (), ConfigError.EXIT_CODE),
        (called.stop_everything, (), 255),
        (called.stop_everything_in_a_task, (), 255),
    ],
)
async def test_exit_code_depends_on_how_the_function_ends(
    target: Callable[..., Any], args: tuple[Any, ...], code: int
) -> None:
    assert (await run(target, *args))[0] == code


async def test_exception_is_logged_with_its_traceback() -> None:
    _, lines = await run(called.fail)
    (event,) = events(lines)
    assert event["app"] == "fail"
    assert event["level"] == "critical"
    assert "on purpose" in event["exception"]["message"]


@pytest.mark.parametrize(
    ("target", "args", "sentence"),
    [
        (called.tell, ({"x": "wide"},), "tell: argument point: Expected `float`, got `str`"),
        (called.tell, (), "missing a required argument: 'point'"),
        (called.tell, ({"x": 1}, 2, 3), "too many positional arguments"),
        (called.say, (1,), "say: argument words: Expected `str`, got `int`"),
        ("support.called:nothing", (), "module support.called has no attribute nothing"),
        ("support.nowhere:x", (), "no module named support.nowhere"),
        ("support.called", (), "expected package.module:function"),
        ("..called:say", (), "expected package.module:function"),
        ("support.called:EMERGENCY_AT_SIGTERM", (), "expected a callable, got str"),
    ],
)
async def test_call_that_is_impossible_is_logged_as_one_message(
    target: Callable[..., Any] | str, args: tuple[Any, ...], sentence: str
) -> None:
    code, lines = await run(target, *args)
    assert code == 1
    (event,) = events(lines)
    assert sentence in event["event"]
    assert "exception" not in event


@pytest.mark.parametrize(
    "function",
    [lambda: None, functools.partial(called.fail), called.Robot().walk],
    ids=["lambda", "partial", "bound"],
)
def test_function_without_an_import_path_is_rejected(function: Callable[..., Any]) -> None:
    with pytest.raises(ProcessStateError):
        CallableProcess(function)


def test_nested_function_and_function_of_the_main_script_are_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def local() -> None: ...

    with pytest.raises(ProcessStateError, match="at the top of a module"):
        CallableProcess(local)
    monkeypatch.setattr(called.fail, "__module__", "__main__")
    with pytest.raises(ProcessStateError, match="other than the main script"):
        CallableProcess(called.fail)


def test_replaced_function_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    original = called.fail
    monkeypatch.setattr(called, "fail", called.sleep)
    with pytest.raises(ProcessStateError, match="is another object"):
        import_path(original)


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        (object(), "pass plain values"),
        (2**80, "pass plain values"),
        (b"x" * 70_000, "more than 65536"),
    ],
)
def test_arguments_that_cannot_be_sent_are_rejected(argument: object, sentence: str) -> None:
    with pytest.raises(ProcessStateError, match=sentence):
        CallableProcess(called.say, (argument,))


async def test_sigterm_cancels_an_async_function_once() -> None:
    lines = Lines()
    process = CallableProcess(called.end_in_order, on_line=lines)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await process.start()
            nursery.start_soon(process.wait)
            await lines.said("begun")
            process.terminate()
            process.terminate()
    assert process.returncode == 0
    assert lines.all == ["begun", "ended in order"]


async def test_sigterm_kills_a_plain_function() -> None:
    lines = Lines()
    process = CallableProcess(called.sleep, on_line=lines)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await process.start()
            nursery.start_soon(process.wait)
            await lines.said("asleep")
            process.terminate()
    assert process.returncode == -signal.SIGTERM


async def test_printed_line_arrives_at_once() -> None:
    lines = Lines()
    process = CallableProcess(called.print_and_sleep, on_line=lines)
    with trio.fail_after(30):
        async with process, trio.open_nursery() as nursery:
            nursery.start_soon(process.wait)
            await lines.said("printed")
            process.kill()


PARENT = """
import sys, trio
from support import called
from rt.process.call import CallableProcess
from rt.process.run import run_process
process = CallableProcess(called.{function}, on_line=lambda *line: print(line[2], flush=True))
trio.run(run_process, process)
"""


@pytest.mark.parametrize("function", ["start_another_and_stay", "fork_and_stay"])
async def test_process_is_killed_when_its_parent_is_killed(function: str) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-c", PARENT.format(function=function)],
        stdout=-1,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    output = b""
    with trio.fail_after(30):
        while not (b"grandchild" in output and output.endswith(b"\n")):
            output += await process.stdout.receive_some()
        pid = int(output.split(b"grandchild")[1].split()[0])
        child = os.getpgid(pid)
        process.kill()
        await process.wait()
        await wait_until_exited(child)
        await wait_until_exited(pid)
    await process.stdout.aclose()


@given(VALUES)
def test_settings_round_trip(value: object) -> None:
    settings = CallSettings(name="x", target="a:b", args=[value], kwargs={"key": value})
    assert structs.decode(settings.encode(), CallSettings) == settings


@given(st.lists(VALUES, max_size=4), st.dictionaries(st.text(), VALUES, max_size=3))
def test_bind_returns_annotated_types_or_raises(
    args: list[object], kwargs: dict[str, object]
) -> None:
    try:
        bound, _ = bind(called.tell, args, kwargs)
    except ProcessStateError:
        return
    assert isinstance(bound[0], called.Point)


def test_arguments_of_classes_and_callable_objects_are_checked() -> None:
    assert bind(called.Counter, [1], {}) == ((1,), {})
    with pytest.raises(
        ProcessStateError, match="Counter: argument count: Expected `int`, got `str`"
    ):
        bind(called.Counter, ["many"], {})
    with pytest.raises(ProcessStateError, match="argument word: Expected `str`, got `int`"):
        bind(called.Counter(0), [1], {})


def test_annotation_without_a_plain_form_is_an_error() -> None:
    def wait(event: trio.Event) -> None: ...

    with pytest.raises(
        ProcessStateError, match="argument event has an annotation without a plain form"
    ):
        bind(wait, [1], {})


def test_builtin_without_a_signature_takes_any_arguments() -> None:
    assert bind(print, ["a"], {"sep": ""}) == (("a",), {"sep": ""})
    assert load("builtins:print") is print


def test_missing_import_within_the_module_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_more.py").write_text("import not_there_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        load("needs_more:main")


def test_child_command_runs_this_executable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert child_command("call")[-3:] == ("_child", "call", "{lifeline}")
    assert "-P" in child_command("call")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert child_command("call") == (sys.executable, "_child", "call", "{lifeline}")
