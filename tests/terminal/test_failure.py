"""Error messages and exit statuses of commands."""

import errno
import os

import pytest

from rt.cli import main
from rt.terminal import failure

WRONG = {
    ("read",): "UID is missing",
    ("write", "motor"): "PARAM=VALUE is missing",
    ("read", "motor", "--timeout", "soon"): "--timeout: 'soon' is not a number above 0",
    ("call", "mode", "--timeout", "-1"): "--timeout: '-1' is not a number above 0",
    ("call", "mode", "--timeout", "nan"): "--timeout: 'nan' is not a number above 0",
    ("ping", "--timeout", "nan"): "--timeout: 'nan' is not a number above 0 and at most 10",
    ("ping", "--count", "1.5"): "--count: '1.5' is not a whole number of at least 1",
    ("write", "motor", "x=1", "--seconds", "nan"): "--seconds: 'nan' is not a number above 0",
    ("demo", "--seconds", "0"): "--seconds: '0' is not a number of at least 0.5",
    ("logs", "--level", "warn"): (
        "--level: 'warn' is not one of debug, info, warning, error, critical; did you mean warning?"
    ),
    ("completion", "tcsh"): "SHELL: 'tcsh' is not one of bash, zsh, fish; did you mean zsh?",
    ("init", "here", "there"): "got unexpected extra argument (there)",
    ("keys", "revok"): "rt keys: unknown verb 'revok'; did you mean revoke?",
    ("keys", "zzz"): "rt keys: unknown verb 'zzz'; its verbs: list, new, revoke",
}


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
def test_invalid_arguments_print_message_and_help_hint(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == 2
    verb = " ".join(arguments[:1])
    assert capsys.readouterr().err == f"rt: {WRONG[arguments]}\nrt: see `rt {verb} --help`\n"


def test_flag_with_missing_or_extra_value_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["read", "motor", "--timeout"]) == main.run(["read", "motor", "--json=1"]) == 2
    assert (
        capsys.readouterr().err
        == "rt: --timeout requires an argument\nrt: --json does not take a value\n"
    )


def test_group_without_verb_prints_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["keys"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: rt keys ")
    assert not err


def test_full_disk_elsewhere_is_not_output_error(capsys: pytest.CaptureFixture[str]) -> None:
    def status(*where: str) -> int:
        return failure.report(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *where), debug=False)

    assert status() == 70  # such as the limit of inotify
    assert "internal error: OSError" in capsys.readouterr().err
    assert status("/dev/shm/rt") == 74
    assert capsys.readouterr().err == "rt: cannot write /dev/shm/rt: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
    ],
)
def test_exhausted_resources_are_no_internal_error(
    capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    assert failure.report(error, debug=False) == 71
    message = capsys.readouterr().err
    assert words in message
    assert "internal" not in message
