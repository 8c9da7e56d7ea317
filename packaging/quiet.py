"""A runtime hook of the executable: Ctrl-C during start-up causes no traceback."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # `rt.startup.restore_interrupts` undoes this
