"""The clock of the time stamps in shared memory.

CLOCK_BOOTTIME: it goes on while the machine is suspended, where CLOCK_MONOTONIC, which Python and
trio go by, stands still. A lease or a stick position from before the lid was closed is old when it
is opened again, and nothing drives on by it. Source: clock_gettime(2).
"""

import functools
import time

boottime_ns = functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""The time (ns) since the machine was started, as all its processes have it."""
