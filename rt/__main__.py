"""`python -m rt`, the command `rt` and the executable all begin here.

A child of the supervisor is dispatched before the command line's own library is imported, and so is
the question for the version: both have to be quick.
"""

import sys

import rt
from rt.startup import (
    close_descriptors_on_exec,
    exit_quietly_on_interrupt,
    importing,
    restore_interrupts,
)


def main() -> int:
    """Run what the process's arguments ask for and return its exit status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["_child"]:
        restore_interrupts()
        # What a CallableProcess passes to its function is for the programs of that function too.
        if arguments[1:2] != ["call"]:
            close_descriptors_on_exec()
        if arguments[1:2] == ["brake"]:  # which imports nothing that the others do
            from rt.brake import process as brake

            return brake.main(arguments[2:])
        with importing():
            from rt.root import entry

        return entry.main(arguments[1:])
    if arguments == ["--version"]:
        try:
            print(f"rt {rt.__version__}", flush=True)  # noqa: T201 - the answer of a command
        except OSError as error:
            from rt.terminal import failure

            return failure.report(error, debug=False)
        return 0
    exit_quietly_on_interrupt()
    from rt.cli.main import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
