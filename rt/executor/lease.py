"""Keeps the executor's lease on the devices: fresh only while the event loop is alive and the team's code keeps within its limits.

The main thread, which runs the team's code, permits the lease until a moment that it states before each step. The event loop
renews it, again and again, while that moment has not come. If the main thread hangs, the permission runs out; if the event loop
hangs, so that nobody could ask the robot to stop, nobody renews; if the process dies, neither happens. Each way the device process
disables every device when the last stamp is older than the lease's time-out.
"""

import math
import os
import threading
import time

import trio

from rt import log
from rt.buffer import Doorbell, Lease
from rt.buffer.lease import TIMEOUT
from rt.executor.fork import is_forked

RENEW_INTERVAL = 0.02
"""Time between two renewals (s): four may be missed before the lease lapses."""


class LeaseKeeper:
    """The executor's lease, and until when it may be renewed.

    Args:
        lease: The executor's slot of the lease table.
        doorbell: Rung when the lease begins and ends, so that the device process looks at once.
    """

    def __init__(self, lease: Lease, doorbell: Doorbell) -> None:
        self._lease = lease
        self._doorbell = doorbell
        self._until = -math.inf
        self._beaten = -math.inf
        self._closed = False
        self._lock = threading.Lock()
        self._log = log.get_logger()

    def grant(self, until: float = math.inf) -> None:
        """Permit the lease until a moment (s of the monotonic clock), and hold it if the event loop is alive. Any thread."""
        if is_forked():
            return
        with self._lock:
            if self._closed:
                return
            self._until = until
            if time.monotonic() - self._beaten < TIMEOUT:
                self._renew()

    def withdraw(self) -> None:
        """Give the lease up now: the device process disables every device. Any thread; again is nothing."""
        if is_forked():
            return
        with self._lock:
            self._until = -math.inf
            self._release()

    def close(self) -> None:
        """Give the lease up for good: it cannot be granted again. Any thread."""
        self._closed = True
        self.withdraw()

    def beat(self) -> None:
        """The event loop is alive: renew if that is permitted, and give the lease up if the permission has run out."""
        if is_forked():
            return
        with self._lock:
            self._beaten = time.monotonic()
            if self.permitted:
                self._renew()
            elif self._until > -math.inf:
                self._until = -math.inf
                self._release()
                self._log.error("the team's code does not return: every device is disabled until it does")

    @property
    def permitted(self) -> bool:
        """Whether the lease may be held at this moment."""
        return time.monotonic() < self._until

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Renew while it is permitted, until cancelled; then the lease is given up."""
        try:
            self.beat()
            task_status.started()
            while True:
                await trio.sleep(RENEW_INTERVAL)
                if is_forked():
                    os._exit(0)  # a copy of the event loop, forked by an action
                self.beat()
        finally:
            self.withdraw()

    def _release(self) -> None:
        if self._lease.release():
            self._doorbell.ring()

    def _renew(self) -> None:
        if self._lease.keep():
            self._doorbell.ring()
