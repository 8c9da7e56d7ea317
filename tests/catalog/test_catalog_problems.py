"""Tests of the errors of a catalog, each with a position, the value and what is expected."""

import pytest

from rt import catalog
from rt.errors import CatalogError


def errors_of(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        catalog.parse(text, "bad.toml")
    assert caught.value.context["file"] == "bad.toml"
    return str(caught.value).splitlines()


def device(*params: str, head: str = "device_id = 1") -> str:
    return f"[a]\n{head}\nparams = [\n" + "".join(f"  {{ {param} }},\n" for param in params) + "]\n"


INVALID_PARAMETERS = {
    "an unknown type": ('type = "flot"', "'x' type: unknown type 'flot'; did you mean float?"),
    "a type like no other": (
        'type = "zzz"',
        "'x' type: unknown type 'zzz'; use one of bool, int8,",
    ),
    "a type that is a number": ("type = 3", "'x' type = 3: expected text"),
    "an array without elements": ('type = "uint8[0]"', "'x' type: 'uint8[0]' has no elements"),
    "a huge array": (
        'type = "uint8[99999999999]"',
        "type: 'uint8[99999999999]' takes more than 65536 bytes",
    ),
    "a huge product of sizes": (
        'type = "uint8[500][500]"',
        "type: 'uint8[500][500]' takes more than 65536 bytes",
    ),
    "an array of too many dimensions": (f'type = "bool{"[1]" * 9}"', "has more than 8 dimensions"),
    "an array too long for a message": (
        'type = "uint8[254]"',
        "type = 'uint8[254]': 254 bytes, but a message to a Smart Device carries at most 253",
    ),
    "limits the wrong way round": (
        'type = "float", lower = 2, upper = 1',
        "'x' lower = 2.0: greater than upper = 1.0",
    ),
    "a limit that is not a number": (
        'type = "float", lower = "0"',
        "'x' lower = '0': expected a number",
    ),
    "a limit of NaN": (
        'type = "float", upper = nan',
        "upper = nan: a limit must be finite; omit it for none",
    ),
    "an infinite limit": ('type = "float", lower = -inf', "lower = -inf: a limit must be finite"),
    "a limit of a bool": (
        'type = "bool", upper = 1',
        "upper = 1: only numbers have limits, not a bool",
    ),
    "a limit of an array": (
        'type = "int8[2]", upper = 1',
        "upper = 1: only numbers have limits, not an array",
    ),
    "a limit below the type": (
        'type = "uint8", lower = -1',
        "lower = -1: the range of the type is 0 to 255",
    ),
    "a limit above the type": (
        'type = "int8", upper = 128',
        "upper = 128: the range of the type is -128 to 127",
    ),
    "a limit beyond a board's double": (
        'type = "double", upper = 1e39',
        "upper = 1e+39: the range of the type is -3.40",
    ),
    "a limit beyond every number": (
        f'type = "float", upper = {"9" * 400}',
        "...: the range of the type is -3.40",
    ),
    "a fractional limit of an integer": (
        'type = "int8", lower = 0.5',
        "lower = 0.5: the limit of an integer must be a whole number",
    ),
    "an inaccessible parameter": (
        'type = "bool", readable = false',
        "readable = false: a parameter must be readable or writeable",
    ),
    "a subscription to an unreadable parameter": (
        'type = "bool", readable = false, writeable = true, subscribed = true',
        "subscribed = true: only readable parameters can be subscribed to",
    ),
    "a flag that is text": (
        'type = "bool", writeable = "yes"',
        "writeable = 'yes': expected true or false",
    ),
    "an unknown key": (
        'type = "bool", writable = true',
        "'x' writable: unknown key; did you mean writeable?",
    ),
    "no type": ("readable = true", "'x' type: missing"),
    "an id that is a bool": ('type = "bool", id = true', "id = true: expected a whole number"),
}


@pytest.mark.parametrize(("param", "sentence"), INVALID_PARAMETERS.values(), ids=INVALID_PARAMETERS)
def test_invalid_parameter_has_its_line(param: str, sentence: str) -> None:
    (error,) = errors_of(device('name = "first", type = "bool"', f'name = "x", {param}'))
    assert error.startswith("bad.toml:5: [a] params[1] 'x' ")
    assert sentence in error


@pytest.mark.parametrize(
    "name", ["", "X", "_x", "_fields_", "x-y", "x y", "1x", "é", r"x\n", "x" * 65, r"\u0000"]
)
def test_invalid_name_of_a_parameter_is_refused(name: str) -> None:
    (error,) = errors_of(device(f'name = "{name}", type = "bool"'))
    assert "a name consists of a-z, 0-9 and _, begins with a letter, at most 64" in error


def test_keyword_is_refused_as_a_name() -> None:
    (error,) = errors_of(device('name = "class", type = "bool"'))
    assert "name = 'class': a keyword of Python; use another name" in error


@pytest.mark.parametrize(
    "name", ["A", "a_b", "a--b", "a-", "-a", "1", '""', '"a b"', r'"a\n"', "a" * 65]
)
def test_invalid_name_of_a_peripheral_is_refused(name: str) -> None:
    (error,) = errors_of(f"[{name}]\nparams = []")
    assert "a name consists of words of a-z and 0-9 joined by -, at most 64" in error


INVALID_HEADS = {
    "an id beyond 16 bits": (
        "device_id = 65536",
        "device_id = 65536: expected 0 to 65535 (16 bits)",
    ),
    "an id below zero": ("device_id = -1", "device_id = -1: expected 0 to 65535"),
    "an id that is not an integer": ("device_id = 1.0", "device_id = 1.0: expected a whole number"),
    "an interval of zero": (
        "device_id = 1\nsub_interval = 0",
        "sub_interval = 0.0: expected 0.001 to 65.535 s",
    ),
    "an interval below zero": (
        "device_id = 1\nwrite_interval = -1",
        "write_interval = -1.0: expected 0.001 to",
    ),
    "an interval too long": (
        "device_id = 1\nsub_interval = 65.536",
        "sub_interval = 65.536: expected 0.001 to 65.535 s (16 bits of milliseconds)",
    ),
    "an interval of NaN": (
        "device_id = 1\nheartbeat_interval = nan",
        "heartbeat_interval = nan: expected",
    ),
    "an interval of text": (
        "device_id = 1\nsub_interval = '1s'",
        "sub_interval = '1s': expected a number",
    ),
    "an interval without a device id": (
        "sub_interval = 0.1",
        "only Smart Devices have intervals, and this table has no",
    ),
    "an unknown key": (
        "device_id = 1\nsub_intervall = 0.1",
        "sub_intervall: unknown key; did you mean sub_in",
    ),
}


@pytest.mark.parametrize(("head", "sentence"), INVALID_HEADS.values(), ids=INVALID_HEADS)
def test_invalid_key_of_a_table_is_refused(head: str, sentence: str) -> None:
    (error,) = errors_of(device(head=head))
    assert error.startswith("bad.toml:1: [a] ")
    assert sentence in error


def test_names_and_device_ids_are_unique() -> None:
    assert errors_of(device('name = "x", type = "bool"', 'name = "x", type = "int8"')) == [
        "bad.toml:4: [a] params[1] 'x' name: duplicate name in this table"
    ]
    assert errors_of("[a]\ndevice_id = 1\nparams = []\n[b]\ndevice_id = 1\nparams = []") == [
        "bad.toml:4: [b] device_id = 1: already used by [a]; each type needs its own"
    ]
    (error,) = errors_of("[a]\nparams = []\n[a]\nparams = []")
    assert error.startswith("bad.toml:3: not TOML: cannot declare ('a',) twice")


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ((0, 0), "duplicate id 0"),
        ((0, 2), "id 1 is missing; ids are 0 to 1 without gaps"),
        ((1, 2), "id 0 is missing"),
        ((-1, 0), "id 1 is missing"),
        ((0, None), "some have an id and some have none"),
    ],
)
def test_parameter_ids_are_unique_without_gaps(ids: tuple[int | None, ...], sentence: str) -> None:
    params = [
        f'name = "p{n}", type = "bool"' + ("" if i is None else f", id = {i}")
        for n, i in enumerate(ids)
    ]
    (error,) = errors_of(device(*params))
    assert error.startswith("bad.toml:1: [a] params: ")
    assert sentence in error


def test_parameter_ids_determine_the_order() -> None:
    text = device('name = "last", type = "bool", id = 1', 'name = "first", type = "bool", id = 0')
    assert [(param.name, param.id) for param in catalog.parse(text)["a"].params] == [
        ("first", 0),
        ("last", 1),
    ]


def test_number_of_parameters_is_limited_by_the_bitmap() -> None:
    params = [f'name = "p{number}", type = "bool"' for number in range(65)]
    assert errors_of(device(*params[:17])) == [
        "bad.toml:1: [a] params: too many parameters: 17, and a Smart Device has at most 16"
    ]
    assert errors_of(device(*params, head="")) == [
        "bad.toml:1: [a] params: too many parameters: 65, and a peripheral has at most 64"
    ]
    assert len(catalog.parse(device(*params[:64], head=""))["a"].params) == 64


def test_total_size_of_values_is_limited() -> None:
    params = [f'name = "p{number}", type = "uint8[40000]"' for number in range(2)]
    assert errors_of(device(*params, head="")) == [
        "bad.toml:1: [a] params: the values take more than 65536 bytes in total"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "[x] 1: expected a table such as [limit-switch]"),
        ("[a]", "[a] params: missing"),
        ("[a]\nparams = 1", "[a] params = 1: expected an array of tables"),
        ("[a]\nparams = [1]", "[a] params = [1]: expected a table for element 0"),
        ("[a]\nparams = []\n[a.b]\nx = 1", "[a] b: unknown key; use one of params, device_id,"),
        ("[[a]]\nparams = []", "[a] [{'params': []}]: expected a table"),
    ],
)
def test_invalid_table_is_refused(text: str, sentence: str) -> None:
    (error,) = errors_of(text)
    assert sentence in error


def test_all_problems_are_reported_together() -> None:
    text = (
        device('name = "x", type = "flot"', 'name = "Y", type = "int8", lower = 300')
        + "[B]\nparams = []\n"
    )
    assert [line.partition(": ")[0] for line in errors_of(text)] == [
        "bad.toml:4",
        "bad.toml:5",
        "bad.toml:5",
        "bad.toml:7",
    ]


def test_long_list_of_problems_is_truncated() -> None:
    errors = errors_of("\n".join(f"[A{number}]\nparams = []" for number in range(100)))
    assert len(errors) == 21
    assert errors[-1] == "bad.toml: and 80 more"


def test_context_names_the_first_problem() -> None:
    with pytest.raises(CatalogError) as caught:
        catalog.parse(device('name = "x", type = "flot"'), "bad.toml")
    context = caught.value.context
    assert {key: context[key] for key in ("file", "table", "param", "field")} == {
        "file": "bad.toml",
        "table": "a",
        "param": "x",
        "field": "type",
    }
    assert context["faults"] == [str(caught.value)]


def test_line_is_found_among_equal_parameters() -> None:
    text = device('name = "x", type = "bool"') + device(
        'name = "x", type = "flot"', head=""
    ).replace("[a]", "[b]")
    assert errors_of(text)[0].startswith("bad.toml:9: [b] params[0] 'x' type")


def test_huge_catalog_is_refused_quickly() -> None:
    many = "[a]\nparams = [" + '{name = "x", type = "bool", id = 1}, ' * 20_000 + "]\n"
    assert errors_of(many) == [
        "bad.toml:1: [a] params: too many parameters: 20000, and a peripheral has at most 64"
    ]
    for text in (f"[a]\n{'x' * 100_000} = 1\nparams = []\n", f"[{'a' * 100_000}]\nparams = []\n"):
        assert len("\n".join(errors_of(text))) < 1000


def test_readable_parameters_are_subscribed_by_default() -> None:
    text = device(
        'name = "a", type = "bool"',
        'name = "b", type = "bool", subscribed = false',
        'name = "c", type = "bool", readable = false, writeable = true',
    )
    assert [param.subscribed for param in catalog.parse(text)["a"].params] == [True, False, False]
