"""The health of a process as events of its log."""

from typing import NoReturn

import msgspec
import trio

from rt import log
from rt.diagnostics.health import LoopDelay, health
from rt.diagnostics.slow_tasks import SlowTasks


async def report_health(process: str, interval: float, steps: SlowTasks | None = None) -> NoReturn:
    """Say at an interval (s) how this process is and how late its event loop has been, until a cancel.

    Args:
        process: What it is called.
        interval: Seconds from one event to the next.
        steps: Who counts the steps that were too long, if anybody does.
    """
    logger = log.get_logger()
    delay = LoopDelay()
    while True:
        await delay.sample(until=trio.current_time() + interval)
        mean, most = delay.take()
        logger.debug(
            "health",
            process=process,
            **msgspec.structs.asdict(health()),
            delay_mean=round(mean, 6),
            delay_max=round(most, 6),
            **(
                {"slow_steps": steps.count, "slowest_step": round(steps.longest, 3)}
                if steps
                else {}
            ),
        )
