"""Error messages and exit statuses of the `rt` command.

Errors of rt have their own exit statuses. Errors that click finds in the arguments are reworded to
say where, what was given and what is allowed. Anything else is an internal error, status 70.
"""

import errno
import sys
import traceback
from pathlib import Path

import click

from rt.errors import ConfigError, RuntimeBaseException, leaves

_NO_INPUT = 66  # sysexits EX_NOINPUT
_INTERNAL_ERROR = 70  # sysexits EX_SOFTWARE
_OS_ERROR = 71  # sysexits EX_OSERR
_OUTPUT_ERROR = 74  # sysexits EX_IOERR
_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_NO_THREAD = "can't start new thread"
_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO})
_QUOTE = "'"
_QUOTES = "'\""


def report(error: BaseException, *, debug: bool) -> int:
    """Print an error on stderr and return the exit status.

    Args:
        error: The error of the command; groups are flattened.
        debug: Whether to print the traceback too.
    """
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.ClickException):
        return _report_usage(error)
    causes = list(leaves(error))
    if all(isinstance(each, KeyboardInterrupt | click.Abort) for each in causes):
        return _INTERRUPTED
    if all(isinstance(each, BrokenPipeError) for each in causes):
        # The reader of our output has exited. Without this, Python reports an error at exit.
        sys.stdout = None
        return 0
    if debug:
        traceback.print_exception(error)
    ours = [each for each in causes if isinstance(each, RuntimeBaseException)]
    if ours and all(isinstance(each, RuntimeBaseException | KeyboardInterrupt) for each in causes):
        for message in dict.fromkeys(map(str, ours)):
            _print_error(message)
        return ours[0].EXIT_CODE
    return _report_environment(causes) or _report_internal(causes, debug=debug)


def _report_usage(error: click.ClickException) -> int:
    match error:
        case click.exceptions.NoArgsIsHelpError(ctx=context):
            click.echo(context.get_help())
            return 0
        case click.NoSuchOption():
            unknown = _unknown_flag(error)
            _print_error(str(unknown))
            return unknown.EXIT_CODE
    _print_error(_sentence(error))
    if isinstance(error, click.UsageError) and error.ctx:
        _print_error(f"see `{error.ctx.command_path} --help`")
    return error.exit_code


def _report_environment(causes: list[BaseException]) -> int | None:
    """Print an error of the environment, such as a full disk. Return None if there is none."""
    for each in causes:
        if (
            isinstance(each, OSError)
            and each.errno in _WRITE_ERRORS
            and (each.filename or _is_output_lost())
        ):
            _print_error(f"cannot write {each.filename or 'output'}: {each.strerror}")
            return _OUTPUT_ERROR
        if isinstance(each, OSError) and each.errno in _OUT_OF_RESOURCES:
            from rt.process_limits import explain

            _print_error(explain(each))
            return _OS_ERROR
        if isinstance(each, RuntimeError) and str(each) == _NO_THREAD:
            _print_error(
                f"{each}; raise the limits of processes (`ulimit -u`)"
                " and address space (`ulimit -v`)"
            )
            return _OS_ERROR
        if isinstance(each, FileNotFoundError) and not _has_directory():
            _print_error("the current directory was removed; change to another one")
            return _NO_INPUT
    return None


def _report_internal(causes: list[BaseException], *, debug: bool) -> int:
    for each in causes:
        _print_error(f"internal error: {type(each).__name__}: {each}")
    if not debug:
        _print_error("run `rt --debug` with the same arguments for a traceback")
    return _INTERNAL_ERROR


def _is_output_lost() -> bool:
    """Return whether stdout cannot be written. If so, discard it, or Python fails again at exit."""
    stdout = sys.stdout
    if stdout is None:
        return False
    try:
        stdout.flush()
    except OSError:
        lost = True
    else:
        # Without buffering (PYTHONUNBUFFERED) the error occurred when the text was printed.
        lost = stdout is sys.__stdout__ and getattr(stdout, "write_through", False)
    if lost:
        sys.stdout = None
    return lost


def _has_directory() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return False
    return True


def _print_error(message: str) -> None:
    # Messages such as "rt config set: ..." already begin with the command.
    text = message if message.startswith("rt config") else f"rt: {message}"
    print(text, file=sys.stderr)  # noqa: T201 - errors of commands are not log events


def _sentence(error: click.ClickException) -> str:
    """Return the message for an error that click found."""
    match error:
        case click.MissingParameter():
            return f"{_place(error)} is missing"
        case click.BadParameter(param=click.Parameter(type=click.Choice() as choice)):
            from rt.text import nearest

            given = error.message.partition(" is not ")[0]
            words = [str(each) for each in choice.choices]
            hint = nearest(given.strip(_QUOTES), words)
            return f"{_place(error)}: {given} is not one of {', '.join(words)}{hint}"
        case click.BadParameter():
            return f"{_place(error)}: {_plain(error.message)}"
        case click.BadOptionUsage():
            name = error.option_name
            return f"{name} {_plain(error.message).rpartition(f'{name}{_QUOTE} ')[2]}"
        case click.NoSuchCommand(ctx=click.Context(command=click.Group() as group) as context):
            from rt.text import nearest

            known = group.list_commands(context)
            hint = nearest(error.command_name, known) or f"; its verbs: {', '.join(known)}"
            return f"{context.command_path}: unknown verb {error.command_name!r}{hint}"
    return _plain(error.format_message())


def _place(error: click.BadParameter) -> str:
    match error.param:
        case click.Option(opts=names):
            return max(names, key=len)
        case click.Parameter() as argument:
            name = argument.human_readable_name.removesuffix("...")
            return name[1:-1] if name.startswith("[") and name.endswith("]") else name
    return "an argument"


def _plain(message: str) -> str:
    """Return a sentence of click in lower case and without its full stop."""
    return f"{message[:1].lower()}{message[1:]}".removesuffix(".")


def _unknown_flag(error: click.NoSuchOption) -> ConfigError:
    """Return a `ConfigError` for an unknown flag."""
    similar = [each for each in error.possibilities or [] if each.startswith("--")]
    hint = f"; did you mean {similar[0]}?" if similar else "; see --help"
    if error.option_name in {"-v", "-V"}:
        hint = "; use `rt --version` for the version, --log-level debug for more logs"
    return ConfigError(f"{error.option_name}: unknown flag{hint}", flag=error.option_name)
