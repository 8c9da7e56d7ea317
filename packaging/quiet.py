"""The executable's first step: who presses Ctrl-C while it is still unpacking its libraries sees no traceback."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # `rt.startup.restore_interrupts` takes it back
