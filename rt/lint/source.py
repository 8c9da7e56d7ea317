"""A file of the team's code as text and tree, or the record that says why there is none.

The rule of this module: whatever bytes a file holds, reading it ends soon and with one of the two.
"""

import ast
import io
import tokenize
import warnings
from pathlib import Path

import msgspec

from rt.lint import syntax
from rt.lint.record import Record, record

MAX_BYTES = 512 * 1024
"""The largest file that is looked at: at a thousand lines a team's file has 40 KiB."""


class Source(msgspec.Struct, frozen=True):
    """A file that was read and parsed.

    Attributes:
        name: The module's name, as it is imported.
        path: The file, as records name it.
        lines: Its lines, without their ends.
        tree: Its syntax.
    """

    name: str
    path: str
    lines: list[str]
    tree: ast.Module

    def column(self, line: int, offset: int) -> int:
        """The column in characters of an offset in bytes, which is how the parser counts."""
        if not 1 <= line <= len(self.lines) or self.lines[line - 1].isascii():
            return offset
        return len(
            self.lines[line - 1].encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore")
        )


def read(file: Path, name: str, path: str) -> Source | Record:
    """Read and parse a file.

    Args:
        file: Where it is.
        name: Its module's name.
        path: How records name it.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        return _unreadable(
            "unreadable-file", "RT902", f"{path} cannot be read: {error.strerror}", name, path
        )
    return parse(data, name, path)


def parse(data: bytes, name: str, path: str) -> Source | Record:
    """Parse the bytes of a file; what they say is not run."""
    if len(data) > MAX_BYTES:
        sentence = f"the file is longer than {MAX_BYTES >> 10} KiB: split it into modules"
        return _unreadable("too-long", "RT903", sentence, name, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the compiler warns of, pyflakes tells with its place
        try:
            text = _decoded(data)
            tree = ast.parse(text, path)
            # What the parser lets pass, say `return` outside of a function, the executor's
            # `compile` does not.
            compile(tree, path, "exec", dont_inherit=True)
        except SyntaxError as error:
            return _syntax(error, name, path)
        except (RecursionError, MemoryError):
            sentence = (
                "this is nested too deeply for Python to read: write it as several statements"
            )
            return _unreadable("too-deep", "RT904", sentence, name, path)
        except Exception as error:  # noqa: BLE001 - the compiler of another Python may know more of them
            return _syntax(SyntaxError(f"{type(error).__name__}: {error}"), name, path)
    return Source(name, path, text.split("\n"), tree)


def _decoded(data: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        if not error.msg.startswith("invalid or missing encoding declaration"):
            raise
        encoding = "utf-8"  # which it is not: decoding tells where
    try:
        text = data.decode(encoding)
        end = text.find("\0")
    except UnicodeDecodeError as error:
        text, end = data[: error.start].decode("latin-1"), error.start
    if end >= 0:
        raise SyntaxError(syntax.NOT_TEXT, (None, _plain_ends(text[:end]).count("\n") + 1, 1, None))
    return _plain_ends(text)


def _plain_ends(text: str) -> str:
    # Lines end as they do for the parser, which knows no others: `splitlines` would count form
    # feeds too.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _syntax(error: SyntaxError, name: str, path: str) -> Record:
    # The offset of a syntax error is in characters, from 1; 0 where it is not known.
    line, column = error.lineno or 1, max((error.offset or 1) - 1, 0)
    return record(
        "error",
        path,
        "syntax-error",
        "RT901",
        syntax.sentence(error.msg, error.text or ""),
        module=name,
        line=line,
        column=column,
    )


def _unreadable(symbol: str, message_id: str, message: str, name: str, path: str) -> Record:
    return record("fatal", path, symbol, message_id, message, module=name)
