"""Methods for `rt call`: finding the service, describing methods, parsing arguments."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rt.client import connection
from rt.errors import RemoteCallError
from rt.text import clip, nearest, quote

Methods = Mapping[str, Mapping[str, Any]]
"""The descriptions of methods, as returned by `describe`, by name."""


def service_name(text: str) -> str:
    """Return the name of a service that the user calls `device` or `device-service`."""
    return text if text.endswith("-service") else f"{text}-service"


def find(services: Mapping[str, Methods], method: str, service: str | None) -> str:
    """Return the only service that has a method.

    Raises:
        RemoteCallError: No service has it (the error names the nearest method), or several have it.
    """
    having = [name for name, methods in services.items() if method in methods]
    if len(having) == 1:
        return having[0]
    if having:
        choices = " or ".join(f"{name.removesuffix('-service')}.{method}" for name in having)
        raise RemoteCallError(
            f"{' and '.join(having)} have a method {method!r}; use {choices}, or --service"
        )
    known = {name for methods in services.values() for name in methods}
    if service is not None:
        raise RemoteCallError(
            f"{service} has no method {quote(method)}{nearest(method, known)};"
            f" its methods: {', '.join(sorted(known)) or 'none'}"
        )
    silent = [name for name in connection.SERVICES if name not in services]
    if silent:
        # A silent service may have the method, so another method would be a wrong suggestion.
        raise RemoteCallError(
            f"no method {quote(method)} found, but {' and '.join(silent)} did not answer;"
            " try again in a moment, or see `rt logs`"
        )
    hint = nearest(method, known) or "; see `rt call --list`"
    raise RemoteCallError(f"no service has a method {quote(method)}{hint}")


def listing(services: Mapping[str, Methods]) -> Iterable[str]:
    """Return all methods with their signatures and the first lines of their documentation."""
    for service, methods in services.items():
        yield service
        for info in methods.values():
            yield f"  {info['signature']}"
            if doc := first_line(info):
                yield f"      {doc}"


def first_line(info: Mapping[str, Any]) -> str:
    """Return the first line of a method's documentation, or an empty text."""
    return str(info["doc"]).strip().partition("\n")[0]


def explain(service: str, name: str, info: Mapping[str, Any]) -> Iterable[str]:
    """Return the help of a method: usage, documentation, arguments with types and defaults."""
    words = " ".join(metavar(argument) for argument in info["arguments"])
    yield f"Usage: rt call {name} {words}".rstrip()
    yield ""
    yield f"  {info['signature']}"
    yield f"  of {service}"
    if info["doc"]:
        yield ""
        yield from (f"  {line}".rstrip() for line in info["doc"].splitlines())
    if info["arguments"]:
        yield ""
        yield "Arguments (JSON or text):"
        width = max(len(argument["name"]) for argument in info["arguments"])
        for argument in info["arguments"]:
            default = f"  [default: {argument['default']}]" if argument["default"] else ""
            yield f"  {argument['name']:<{width}}  {argument['type'] or 'anything'}{default}"


def metavar(argument: Mapping[str, Any]) -> str:
    """Return an argument as it appears in a usage line, such as `UID` or `[PARAMS]`."""
    name = argument["name"].upper()
    if name.startswith("*"):
        return f"[{name[1:]}]..."
    return name if argument["required"] else f"[{name}]"


def values(name: str, info: Mapping[str, Any], texts: Sequence[str]) -> list[Any]:
    """Return the arguments of a call from the words of a command line.

    A word is parsed as JSON. It stays text if it is not JSON, or is a number where the method takes
    text and no number.

    Raises:
        RemoteCallError: A word is not valid for its argument.
    """
    arguments = list(info["arguments"])
    if arguments and arguments[-1]["name"].startswith("*"):
        arguments += [arguments[-1]] * len(texts)
    known = [*arguments, *[None] * len(texts)]
    return [_argument(name, argument, text) for text, argument in zip(texts, known, strict=False)]


def _argument(method: str, argument: Mapping[str, Any] | None, text: str) -> Any:
    schema = argument["schema"] if argument else None
    if schema and _allows(schema, "string"):
        takes_number = _allows(schema, "integer") or _allows(schema, "number")
        return text if _is_number(text) and not takes_number else _value(text)
    value = _value(text)
    if schema and isinstance(value, str):
        assert argument is not None
        about = {"method": method, "argument": argument["name"]}
        if text[:1] in {"[", "{", '"'} and not _is_json(text):
            raise RemoteCallError(
                f"{method}: argument {argument['name']} is not valid JSON: {clip(text)};"
                f" expected {argument['type']}{_quoted_hint(text)}",
                **about,
            )
        for kind, (noun, example) in _CONTAINERS.items():
            if _allows(schema, kind):
                shown = (
                    _OBJECTS_EXAMPLE if kind == "array" and not _holds_texts(schema) else example
                )
                raise RemoteCallError(
                    f"{method}: argument {argument['name']} must be {noun}, not {clip(text)};"
                    f" write JSON, such as {shown}, and see `rt call {method} --help`",
                    **about,
                )
    return value


_OBJECTS_EXAMPLE = '\'[{"func": "wave"}]\''
_CONTAINERS = {"array": ("a list", "'[\"duty_cycle\"]'"), "object": ("a map", "'{\"name\": 1}'")}


def _quoted_hint(text: str) -> str:
    """Return a hint with quotes around the words of a text, if that makes it valid JSON."""
    quoted = re.sub(
        r"(?<![\w\"])(?!true\b|false\b|null\b)[A-Za-z_]\w*(?![\w\"])",
        lambda match: f'"{match[0]}"',
        text[:_QUOTED_MAX],
    )
    return (
        f"; quote the strings: '{quoted}'" if len(text) <= _QUOTED_MAX and _is_json(quoted) else ""
    )


_QUOTED_MAX = 200


def require_count(name: str, info: Mapping[str, Any], count: int) -> None:
    """Check that a call has no more arguments than the method takes.

    Raises:
        RemoteCallError: The call has too many arguments.
    """
    words = [metavar(argument) for argument in info["arguments"]]
    if count > len(words) and not any(word.endswith("...") for word in words):
        takes = f"takes only {' '.join(words)}" if words else "takes no arguments"
        raise RemoteCallError(f"{name} {takes}", method=name)


def simplify_type_error(message: str) -> str:
    """Return a service's message about a value of a wrong type without msgspec's vocabulary.

    >>> simplify_type_error("argument uid came as 5: Expected `str | null`, got `int` - at `$[0]`")
    'argument uid came as 5: expected text or nothing, not a whole number, at [0]'
    """
    return _EXPECTED.sub(_plain, message)


_EXPECTED = re.compile(
    r"Expected `([^`]+)`((?: of length)? [<>=]+ [\w.]+)?(?:, got `([^`]+)`)?(?: - at `([^`]+)`)?"
)
_WORDS = {
    "array": "a list",
    "object": "a map",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "nothing",
}


def _plain(match: re.Match[str]) -> str:
    kinds, bound, got, place = match.groups()
    wanted, came = (
        " or ".join(_WORDS.get(each, each) for each in (text or "").split(" | "))
        for text in (kinds, got)
    )
    at = (place or "").removeprefix("$").removeprefix(".")
    not_came = f", not {came}" if came else ""
    return f"expected {wanted}{bound or ''}{not_came}{f', at {at}' if at else ''}"


def _allows(schema: Mapping[str, Any], kind: str) -> bool:
    named = schema.get("type")
    if named == kind or (isinstance(named, list) and kind in named):
        return True
    return any(_allows(each, kind) for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())))


def _holds_texts(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema allows arrays of texts. A schema without items allows them."""
    choices = (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ()))
    items = [each["items"] for each in choices if isinstance(each.get("items"), Mapping)]
    return not items or any(_allows(each, "string") for each in items)


def _is_number(text: str) -> bool:
    return type(_value(text)) in {int, float} or text.lstrip("-").isdecimal()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _value(text: str) -> Any:
    # Integers beyond 64 bits, such as UIDs, stay text, because MessagePack cannot carry them.
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64 else value
