"""What `rt call` knows of methods: which service has one, how it is told to a person, and its arguments from words."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rt.client import connection
from rt.config import nearest
from rt.errors import RemoteCallError
from rt.text import clip, quote

Methods = Mapping[str, Mapping[str, Any]]
"""Name -> what `describe` tells of a method."""


def service_name(text: str) -> str:
    """The identity of a service that a person calls `device` or `device-service`."""
    return text if text.endswith("-service") else f"{text}-service"


def find(services: Mapping[str, Methods], method: str, service: str | None) -> str:
    """The one service that has a method.

    Raises:
        RemoteCallError: None has it, with the nearest that there is, or several have it.
    """
    having = [name for name, methods in services.items() if method in methods]
    if len(having) == 1:
        return having[0]
    if having:
        choices = " or ".join(f"{name.removesuffix('-service')}.{method}" for name in having)
        raise RemoteCallError(
            f"{' and '.join(having)} have a method {method!r}: write {choices}, or use --service"
        )
    known = {name for methods in services.values() for name in methods}
    if service is not None:
        raise RemoteCallError(
            f"{service} has no method {quote(method)}{nearest(method, known)}; it has {_names(known)}"
        )
    silent = [name for name in connection.SERVICES if name not in services]
    if silent:
        # It may be a method of a service that is absent: another method is no correction of it.
        raise RemoteCallError(
            f"no service that answers has a method {quote(method)}; {' and '.join(silent)} did not answer: "
            "try again in a moment, `rt logs` says why"
        )
    hint = nearest(method, known) or "; `rt call --list` tells them"
    raise RemoteCallError(f"no service has a method {quote(method)}{hint}")


def listing(services: Mapping[str, Methods]) -> Iterable[str]:
    """All methods with signature and first line of their documentation."""
    for service, methods in services.items():
        yield service
        for info in methods.values():
            yield f"  {info['signature']}"
            doc = _first_line(info)
            if doc:
                yield f"      {doc}"


def explain(service: str, name: str, info: Mapping[str, Any]) -> Iterable[str]:
    """One method as a person reads it: how it is called, its arguments with types and defaults, its documentation."""
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
        yield "Arguments, as JSON or as plain words:"
        width = max(len(argument["name"]) for argument in info["arguments"])
        for argument in info["arguments"]:
            default = f"  [default: {argument['default']}]" if argument["default"] else ""
            yield f"  {argument['name']:<{width}}  {argument['type'] or 'anything'}{default}"


def metavar(argument: Mapping[str, Any]) -> str:
    """An argument in a usage line, e.g. `UID` or `[PARAMS]`."""
    name = argument["name"].upper()
    if name.startswith("*"):
        return f"[{name[1:]}]..."
    return name if argument["required"] else f"[{name}]"


def values(name: str, info: Mapping[str, Any], texts: Sequence[str]) -> list[Any]:
    """Arguments as a method takes them: JSON, but what may be a text and no number stays text.

    Raises:
        RemoteCallError: One looks like JSON and is none where no text is allowed; names the
            argument, and what is allowed.
    """
    arguments = list(info["arguments"])
    if arguments and arguments[-1]["name"].startswith("*"):
        arguments += [arguments[-1]] * len(texts)
    known = [*arguments, *[None] * len(texts)]
    return [_argument(name, argument, text) for text, argument in zip(texts, known, strict=False)]


def _argument(method: str, argument: Mapping[str, Any] | None, text: str) -> Any:
    schema = argument["schema"] if argument else None
    if schema and _allows(schema, "string"):
        return text if _is_number(text) and not _takes_number(schema) else _value(text)
    value = _value(text)
    if schema and isinstance(value, str):
        assert argument is not None
        about = {"method": method, "argument": argument["name"]}
        if text[:1] in {"[", "{", '"'} and not _is_json(text):
            raise RemoteCallError(
                f"{method}: argument {argument['name']} came as {clip(text)}, which is no JSON; allowed is {argument['type']}"
                f"{_quoted_hint(text)}",
                **about,
            )
        for kind, (noun, example) in _CONTAINERS.items():
            if _allows(schema, kind):
                shown = (
                    _OBJECTS_EXAMPLE if kind == "array" and not _holds_texts(schema) else example
                )
                raise RemoteCallError(
                    f"{method}: argument {argument['name']} is {noun}, not {clip(text)}: write it as JSON, as {shown};"
                    f" `rt call {method} --help` tells more",
                    **about,
                )
    return value


_OBJECTS_EXAMPLE = '\'[{"func": "wave"}]\''
_CONTAINERS = {"array": ("a list", "'[\"duty_cycle\"]'"), "object": ("a map", "'{\"name\": 1}'")}


def _quoted_hint(text: str) -> str:
    """What a text is with quotes around its words, if that is JSON, as the rest of a sentence."""
    quoted = re.sub(
        r"(?<![\w\"])(?!true\b|false\b|null\b)[A-Za-z_]\w*(?![\w\"])",
        lambda match: f'"{match[0]}"',
        text[:_QUOTED_MAX],
    )
    return (
        f"; texts in it need quotes: write '{quoted}'"
        if len(text) <= _QUOTED_MAX and _is_json(quoted)
        else ""
    )


_QUOTED_MAX = 200


def require_count(name: str, info: Mapping[str, Any], count: int) -> None:
    """Refuse more arguments than a method takes.

    Raises:
        RemoteCallError: There are more.
    """
    words = [metavar(argument) for argument in info["arguments"]]
    if count > len(words) and not any(word.endswith("...") for word in words):
        takes = f"takes {' '.join(words)}, and no more" if words else "takes no arguments"
        raise RemoteCallError(f"{name} {takes}", method=name)


def simplify_type_error(message: str) -> str:
    """What a service says of a value of a wrong type, without the words of the library that found it.

    >>> in_plain_words("argument uid came as 5: Expected `str | null`, got `int` - at `$[0]`")
    'argument uid came as 5: text or nothing is needed, not a whole number, at [0]'
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
    return f"{wanted}{bound or ''} is needed{f', not {came}' if came else ''}{f', at {at}' if at else ''}"


def _takes_number(schema: Mapping[str, Any]) -> bool:
    return _allows(schema, "integer") or _allows(schema, "number")


def _allows(schema: Mapping[str, Any], kind: str) -> bool:
    named = schema.get("type")
    if named == kind or (isinstance(named, list) and kind in named):
        return True
    return any(_allows(each, kind) for each in (*schema.get("anyOf", ()), *schema.get("oneOf", ())))


def _holds_texts(schema: Mapping[str, Any]) -> bool:
    """Whether the arrays that a schema allows may hold texts; so it is if it does not say what they hold."""
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
    # A UID is a text of digits on the wire: numbers beyond what MessagePack carries stay text.
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64 else value


def _first_line(info: Mapping[str, Any]) -> str:
    return str(info["doc"]).strip().partition("\n")[0]


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
