"""The clock of the time stamps in shared memory.

CLOCK_BOOTTIME continues while the machine is suspended. CLOCK_MONOTONIC, which Python and trio use,
does not. So a lease or stick position from before a suspend is old after it, and moves nothing.
Source: clock_gettime(2).
"""

import functools
import time

boottime_ns = functools.partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME)
"""Return the time (ns) since the machine booted, the same in all processes."""
