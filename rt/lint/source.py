"""A file of team code as text and syntax tree, or the record that says why it cannot be parsed.

Invariant: reading a file ends soon and with one of the two, whatever bytes it contains.
"""

import ast
import io
import tokenize
import warnings
from pathlib import Path

import msgspec

from rt.lint import syntax
from rt.lint.record import Record, Type, record

MAX_BYTES = 512 * 1024
"""Maximum size of a file; a file of a thousand lines has about 40 KiB."""


class Source(msgspec.Struct, frozen=True):
    """A file that was read and parsed.

    Attributes:
        name: The name by which the module is imported.
        path: The file, as records name it.
        lines: Its lines, without line ends.
        tree: Its syntax tree.
    """

    name: str
    path: str
    lines: list[str]
    tree: ast.Module

    def record(
        self,
        type_: Type,
        symbol: str,
        message_id: str,
        message: str,
        *,
        obj: str = "",
        line: int = 1,
        offset: int = 0,
    ) -> Record:
        """Create a record about this file; the offset is in bytes, as the parser counts."""
        text = self.lines[line - 1] if 1 <= line <= len(self.lines) else ""
        if not text.isascii():
            offset = len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "ignore"))
        return record(
            type_,
            self.path,
            symbol,
            message_id,
            message,
            module=self.name,
            obj=obj,
            line=line,
            column=offset,
        )


def read(file: Path, name: str, path: str) -> Source | Record:
    """Read and parse a file.

    Args:
        file: The file.
        name: The name of its module.
        path: The path in records.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        return _unreadable(
            "unreadable-file", "RT902", f"{path} cannot be read: {error.strerror}", name, path
        )
    return parse(data, name, path)


def parse(data: bytes, name: str, path: str, limit: int = MAX_BYTES) -> Source | Record:
    """Parse the bytes of a file, without running it.

    Args:
        data: The bytes.
        name: The name of its module.
        path: The path in records.
        limit: Maximum number of bytes.
    """
    if len(data) > limit:
        message = f"the file is longer than {limit >> 10} KiB: split it into modules"
        return _unreadable("too-long", "RT903", message, name, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyflakes reports them with their position
        try:
            text = _decoded(data)
            tree = ast.parse(text, path)
            # The parser accepts, for example, `return` outside of a function; `compile` does not.
            compile(tree, path, "exec", dont_inherit=True)
        except SyntaxError as error:
            return _syntax(error, name, path)
        except (RecursionError, MemoryError):
            message = "this is nested too deeply for Python: split it into several statements"
            return _unreadable("too-deep", "RT904", message, name, path)
        except Exception as error:  # noqa: BLE001 - other versions of Python may raise other errors
            return _syntax(SyntaxError(f"{type(error).__name__}: {error}"), name, path)
    return Source(name, path, text.split("\n"), tree)


def _decoded(data: bytes) -> str:
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    except SyntaxError as error:
        if not error.msg.startswith("invalid or missing encoding declaration"):
            raise
        encoding = "utf-8"  # decoding then finds the position of the error
    try:
        text = data.decode(encoding)
        end = text.find("\0")
    except UnicodeDecodeError as error:
        text, end = data[: error.start].decode("latin-1"), error.start
    if end >= 0:
        raise SyntaxError(syntax.NOT_TEXT, (None, _plain_ends(text[:end]).count("\n") + 1, 1, None))
    return _plain_ends(text)


def _plain_ends(text: str) -> str:
    # The parser knows only these line ends; `splitlines` would also split at form feeds.
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _syntax(error: SyntaxError, name: str, path: str) -> Record:
    # The offset of a syntax error is in characters, from 1; 0 if it is unknown.
    line, column = error.lineno or 1, max((error.offset or 1) - 1, 0)
    return record(
        "error",
        path,
        "syntax-error",
        "RT901",
        syntax.explain(error.msg, error.text or ""),
        module=name,
        line=line,
        column=column,
    )


def _unreadable(symbol: str, message_id: str, message: str, name: str, path: str) -> Record:
    return record("fatal", path, symbol, message_id, message, module=name)
