"""The executable's first script: what `python -m rt` is from source."""

import sys

from rt.__main__ import main

# Team code may use multiprocessing. Its helpers are this executable again, with arguments that only
# freeze_support knows.
if not {"-c", "--multiprocessing-fork"}.isdisjoint(sys.argv):
    from multiprocessing import freeze_support

    from rt.startup import restore_interrupts

    restore_interrupts()
    freeze_support()

if __name__ == "__main__":
    sys.exit(main())
