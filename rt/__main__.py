"""The entry point of `python -m rt`, of the command `rt` and of the executable.

Children and `--version` are handled before the command-line library is imported, to start fast.
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
    """Run the command or the child that `sys.argv` names, and return the exit code."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["_child"]:
        restore_interrupts()
        # A function in a CallableProcess may pass its descriptors to its own programs.
        if arguments[1:2] != ["call"]:
            close_descriptors_on_exec()
        if arguments[1:2] == ["brake"]:  # it imports only the standard library
            from rt.brake import process as brake

            return brake.main(arguments[2:])
        with importing():
            from rt.root import entry

        return entry.main(arguments[1:])
    if arguments == ["--version"]:
        try:
            print(f"rt {rt.__version__}", flush=True)  # noqa: T201 - the output of a command
        except OSError as error:
            from rt.terminal import failure

            return failure.report(error, debug=False)
        return 0
    exit_quietly_on_interrupt()
    from rt.cli.main import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
