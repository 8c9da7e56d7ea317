"""Conversion of messages from stdin."""

import io

import pytest

from rt.errors import RuntimeBaseException
from rt.textformat.lines import convert_all


def test_invalid_utf8_on_stdin_does_not_stop_other_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\xff\nb\n")))

    def convert(text: str) -> io.StringIO:
        if not text.isascii():
            raise RuntimeBaseException("not ASCII")
        return io.StringIO(text)

    assert convert_all((), convert) == 1
    assert capsys.readouterr() == ("b\n", "rt: line 1, not ASCII\n")
