"""The entry script of the executable, equivalent to `python -m rt`."""

import sys

from rt.__main__ import main

# Team code may use multiprocessing, whose helper processes run this executable with arguments for
# freeze_support.
if not {"-c", "--multiprocessing-fork"}.isdisjoint(sys.argv):
    from multiprocessing import freeze_support

    from rt.startup import restore_interrupts

    restore_interrupts()
    freeze_support()

if __name__ == "__main__":
    sys.exit(main())
