"""AsyncExecutor, on the event loop of the test."""

import sys

import structlog
import trio
import trio.lowlevel
import trio.testing

from rt.executor.actions import AsyncExecutor


async def test_action_that_exits_ends_only_itself(nursery: trio.Nursery) -> None:
    errors: list[tuple[str, type[BaseException]]] = []
    reported = trio.Event()

    def report(error: BaseException, name: str) -> None:
        errors.append((name, type(error)))
        reported.set()

    executor = AsyncExecutor(report)
    await nursery.start(executor.run)

    async def exit_process() -> None:
        sys.exit(3)

    async def wait() -> None:
        await trio.sleep_forever()

    executor.start(wait)
    executor.start(exit_process)
    with trio.fail_after(30):
        await reported.wait()
    assert errors == [("exit_process", SystemExit)]
    assert executor.is_running(wait)
    nursery.cancel_scope.cancel()


async def test_second_start_is_logged_once_per_run(nursery: trio.Nursery) -> None:
    executor = AsyncExecutor(lambda _error, _name: None)
    await nursery.start(executor.run)
    go = [trio.Event() for _ in range(3)]
    runs = 0

    async def wave() -> None:
        nonlocal runs
        runs += 1
        await go[runs - 1].wait()

    async def other() -> None:
        await trio.sleep_forever()

    with structlog.testing.capture_logs() as logs, trio.fail_after(30):
        executor._log = structlog.get_logger()
        for event in go:
            for _ in range(50):
                executor.start(wave)
                executor.start(other)
            await trio.testing.wait_all_tasks_blocked()
            event.set()
            while executor.is_running(wave):
                await trio.lowlevel.checkpoint()
    assert runs == 3
    assert [entry["action"] for entry in logs] == ["wave", "other", "wave", "wave"]
    nursery.cancel_scope.cancel()
