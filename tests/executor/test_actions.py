"""Actions, on the event loop of the test."""

import sys

import trio

from rt.executor.actions import AsyncExecutor


async def test_an_action_that_exits_ends_alone(nursery: trio.Nursery) -> None:
    errors: list[tuple[str, type[BaseException]]] = []
    reported = trio.Event()

    def report(error: BaseException, name: str) -> None:
        errors.append((name, type(error)))
        reported.set()

    executor = AsyncExecutor(trio.lowlevel.current_trio_token(), report)
    await nursery.start(executor.run)

    async def leave() -> None:
        sys.exit(3)

    async def wait() -> None:
        await trio.sleep_forever()

    executor.start(wait)
    executor.start(leave)
    with trio.fail_after(30):
        await reported.wait()
    assert errors == [("leave", SystemExit)]
    assert executor.is_running(wait)
    nursery.cancel_scope.cancel()
