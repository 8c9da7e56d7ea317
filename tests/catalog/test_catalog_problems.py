"""A catalog that is wrong is refused whole, and each sentence names the place, the value and what is allowed."""

import pytest

from rt import catalog
from rt.errors import CatalogError


def sentences_of(text: str) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        catalog.parse(text, "bad.toml")
    assert caught.value.context["file"] == "bad.toml"
    return str(caught.value).splitlines()


def device(*params: str, head: str = "device_id = 1") -> str:
    return f"[a]\n{head}\nparams = [\n" + "".join(f"  {{ {param} }},\n" for param in params) + "]\n"


WRONG_PARAMETERS = {
    "an unknown type": ('type = "flot"', "'x' type: 'flot' is not a type: did you mean 'float'?"),
    "a type like no other": (
        'type = "zzz"',
        "'x' type: 'zzz' is not a type: use one of bool, int8,",
    ),
    "a type of the wrong kind": ("type = 3", "'x' type = 3: it has to be text"),
    "an array without elements": (
        'type = "uint8[0]"',
        "'x' type: 'uint8[0]' is an array without elements",
    ),
    "an absurd array": (
        'type = "uint8[99999999999]"',
        "type: 'uint8[99999999999]' takes more than 65536 bytes",
    ),
    "a product that is absurd": (
        'type = "uint8[500][500]"',
        "type: 'uint8[500][500]' takes more than 65536 bytes",
    ),
    "an array of too many dimensions": (f'type = "bool{"[1]" * 9}"', "has more than 8 dimensions"),
    "what no message carries": (
        'type = "uint8[254]"',
        "type = 'uint8[254]': it takes 254 bytes, and a message to a Smart Device carries 253",
    ),
    "limits the wrong way round": (
        'type = "float", lower = 2, upper = 1',
        "'x' lower = 2.0: it is greater than upper = 1.0",
    ),
    "a limit that is no number": (
        'type = "float", lower = "0"',
        "'x' lower = '0': it has to be a number",
    ),
    "a limit of NaN": (
        'type = "float", upper = nan',
        "upper = nan: a limit is a finite number: leave it out for none",
    ),
    "an infinite limit": (
        'type = "float", lower = -inf',
        "lower = -inf: a limit is a finite number",
    ),
    "a limit of a bool": (
        'type = "bool", upper = 1',
        "upper = 1: only numbers have limits, and the type is bool",
    ),
    "a limit of an array": (
        'type = "int8[2]", upper = 1',
        "upper = 1: only numbers have limits, and the type is an array",
    ),
    "a limit below the type": ('type = "uint8", lower = -1', "lower = -1: the type holds 0 to 255"),
    "a limit above the type": (
        'type = "int8", upper = 128',
        "upper = 128: the type holds -128 to 127",
    ),
    "a limit beyond a board's double": (
        'type = "double", upper = 1e39',
        "upper = 1e+39: the type holds -3.40",
    ),
    "a limit beyond every number": (
        f'type = "float", upper = {"9" * 400}',
        "…: the type holds -3.40",
    ),
    "a part of an integer": (
        'type = "int8", lower = 0.5',
        "lower = 0.5: the limit of an integer is a whole number",
    ),
    "nobody's parameter": (
        'type = "bool", readable = false',
        "readable = false: it is not writeable either",
    ),
    "reports of what cannot be read": (
        'type = "bool", readable = false, writeable = true, subscribed = true',
        "subscribed = true: a parameter that is not readable cannot be subscribed to",
    ),
    "a flag that is text": (
        'type = "bool", writeable = "yes"',
        "writeable = 'yes': it has to be true or false",
    ),
    "an unknown key": (
        'type = "bool", writable = true',
        "'x' writable: there is no such key: did you mean 'writeable'?",
    ),
    "no type": ("readable = true", "'x' type: it is missing"),
    "an id of the wrong kind": (
        'type = "bool", id = true',
        "id = true: it has to be a whole number",
    ),
}


@pytest.mark.parametrize(("param", "sentence"), WRONG_PARAMETERS.values(), ids=WRONG_PARAMETERS)
def test_a_wrong_parameter_is_refused_with_its_line(param: str, sentence: str) -> None:
    (said,) = sentences_of(device('name = "first", type = "bool"', f'name = "x", {param}'))
    assert said.startswith("bad.toml:5: [a] params[1] 'x' ")
    assert sentence in said


@pytest.mark.parametrize(
    "name", ["", "X", "_x", "_fields_", "x-y", "x y", "1x", "é", r"x\n", "x" * 65, r"\u0000"]
)
def test_a_parameter_has_a_name_that_can_be_a_field(name: str) -> None:
    (said,) = sentences_of(device(f'name = "{name}", type = "bool"'))
    assert "it has to be a-z, 0-9 and _, beginning with a letter, at most 64" in said


def test_a_word_of_python_is_no_name() -> None:
    (said,) = sentences_of(device('name = "class", type = "bool"'))
    assert "name = 'class': it is a word of Python's: choose another" in said


@pytest.mark.parametrize(
    "name", ["A", "a_b", "a--b", "a-", "-a", "1", '""', '"a b"', r'"a\n"', "a" * 65]
)
def test_a_peripheral_has_a_name_that_can_be_part_of_a_path(name: str) -> None:
    (said,) = sentences_of(f"[{name}]\nparams = []")
    assert "the name of a peripheral is made of a-z, 0-9 and - between them, at most 64" in said


WRONG_HEADS = {
    "an id beyond 16 bits": (
        "device_id = 65536",
        "device_id = 65536: it has to be 0 to 65535 (16 bits)",
    ),
    "an id below zero": ("device_id = -1", "device_id = -1: it has to be 0 to 65535"),
    "an id that is no integer": ("device_id = 1.0", "device_id = 1.0: it has to be a whole number"),
    "an interval of nothing": (
        "device_id = 1\nsub_interval = 0",
        "sub_interval = 0.0: it has to be 0.001 to 65.535 s",
    ),
    "an interval below zero": (
        "device_id = 1\nwrite_interval = -1",
        "write_interval = -1.0: it has to be 0.001 to",
    ),
    "an interval too long": (
        "device_id = 1\nsub_interval = 65.536",
        "sub_interval = 65.536: it has to be 0.001 to 65.535 s (16 bits of milliseconds)",
    ),
    "an interval that is no number": (
        "device_id = 1\nheartbeat_interval = nan",
        "heartbeat_interval = nan: it has to",
    ),
    "an interval of text": (
        "device_id = 1\nsub_interval = '1s'",
        "sub_interval = '1s': it has to be a number",
    ),
    "an interval of what is no device": (
        "sub_interval = 0.1",
        "only a Smart Device has intervals, and this table has no",
    ),
    "an unknown key": (
        "device_id = 1\nsub_intervall = 0.1",
        "sub_intervall: there is no such key: did you mean 'sub_in",
    ),
}


@pytest.mark.parametrize(("head", "sentence"), WRONG_HEADS.values(), ids=WRONG_HEADS)
def test_a_wrong_head_of_a_table_is_refused(head: str, sentence: str) -> None:
    (said,) = sentences_of(device(head=head))
    assert said.startswith("bad.toml:1: [a] ")
    assert sentence in said


def test_names_and_ids_stand_once() -> None:
    assert sentences_of(device('name = "x", type = "bool"', 'name = "x", type = "int8"')) == [
        "bad.toml:4: [a] params[1] 'x' name: the name stands twice in this table"
    ]
    assert sentences_of("[a]\ndevice_id = 1\nparams = []\n[b]\ndevice_id = 1\nparams = []") == [
        "bad.toml:4: [b] device_id = 1: it is taken by [a], and each type has its own"
    ]
    (said,) = sentences_of("[a]\nparams = []\n[a]\nparams = []")
    assert said.startswith("bad.toml:3: not TOML: cannot declare ('a',) twice")


@pytest.mark.parametrize(
    ("ids", "sentence"),
    [
        ((0, 0), "id 0 stands twice, and each parameter has its own"),
        ((0, 2), "id 1 is missing: ids go from 0 to 1 without gaps"),
        ((1, 2), "id 0 is missing"),
        ((-1, 0), "id 1 is missing"),
        ((0, None), "some have an id and some have none"),
    ],
)
def test_ids_that_are_given_are_all_there_once(ids: tuple[int | None, ...], sentence: str) -> None:
    params = [
        f'name = "p{n}", type = "bool"' + ("" if i is None else f", id = {i}")
        for n, i in enumerate(ids)
    ]
    (said,) = sentences_of(device(*params))
    assert said.startswith("bad.toml:1: [a] params: ")
    assert sentence in said


def test_ids_that_are_given_decide_on_the_order() -> None:
    text = device('name = "last", type = "bool", id = 1', 'name = "first", type = "bool", id = 0')
    assert [(param.name, param.id) for param in catalog.parse(text)["a"].params] == [
        ("first", 0),
        ("last", 1),
    ]


def test_there_are_as_many_parameters_as_a_bitmap_has_bits() -> None:
    params = [f'name = "p{number}", type = "bool"' for number in range(65)]
    assert sentences_of(device(*params[:17])) == [
        "bad.toml:1: [a] params: it has 17 parameters, and a Smart Device has at most 16"
    ]
    assert sentences_of(device(*params, head="")) == [
        "bad.toml:1: [a] params: it has 65 parameters, and a peripheral has at most 64"
    ]
    assert len(catalog.parse(device(*params[:64], head=""))["a"].params) == 64


def test_the_values_of_a_peripheral_take_a_bounded_part_of_shared_memory() -> None:
    params = [f'name = "p{number}", type = "uint8[40000]"' for number in range(2)]
    assert sentences_of(device(*params, head="")) == [
        "bad.toml:1: [a] params: their values take more than 65536 bytes together"
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1", "[x] 1: it is no table, and a catalog consists of tables like [limit-switch]"),
        ("[a]", "[a] params: it is missing"),
        ("[a]\nparams = 1", "[a] params = 1: it has to be an array of tables"),
        ("[a]\nparams = [1]", "[a] params = [1]: its element 0 has to be a table"),
        (
            "[a]\nparams = []\n[a.b]\nx = 1",
            "[a] b: there is no such key: use one of params, device_id,",
        ),
        ("[[a]]\nparams = []", "[a] [{'params': []}]: it is no table"),
    ],
)
def test_what_is_no_table_of_a_peripheral_is_refused(text: str, sentence: str) -> None:
    (said,) = sentences_of(text)
    assert sentence in said


def test_everything_that_is_wrong_is_told_at_once() -> None:
    text = (
        device('name = "x", type = "flot"', 'name = "Y", type = "int8", lower = 300')
        + "[B]\nparams = []\n"
    )
    assert [said.partition(": ")[0] for said in sentences_of(text)] == [
        "bad.toml:4",
        "bad.toml:5",
        "bad.toml:5",
        "bad.toml:7",
    ]


def test_an_endless_list_of_faults_is_cut_short() -> None:
    said = sentences_of("\n".join(f"[A{number}]\nparams = []" for number in range(100)))
    assert len(said) == 21
    assert said[-1] == "bad.toml: and 80 more"


def test_the_error_is_as_clear_to_a_program() -> None:
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


def test_a_mistake_of_another_table_with_the_same_parameters_has_its_own_line() -> None:
    text = device('name = "x", type = "bool"') + device(
        'name = "x", type = "flot"', head=""
    ).replace("[a]", "[b]")
    assert sentences_of(text)[0].startswith("bad.toml:9: [b] params[0] 'x' type")


def test_a_catalog_made_to_be_slow_is_refused_all_the_same() -> None:
    many = "[a]\nparams = [" + '{name = "x", type = "bool", id = 1}, ' * 20_000 + "]\n"
    assert sentences_of(many) == [
        "bad.toml:1: [a] params: it has 20000 parameters, and a peripheral has at most 64"
    ]
    for text in (f"[a]\n{'x' * 100_000} = 1\nparams = []\n", f"[{'a' * 100_000}]\nparams = []\n"):
        assert len("\n".join(sentences_of(text))) < 1000


def test_what_can_be_read_is_subscribed_to_unless_it_says_otherwise() -> None:
    text = device(
        'name = "a", type = "bool"',
        'name = "b", type = "bool", subscribed = false',
        'name = "c", type = "bool", readable = false, writeable = true',
    )
    assert [param.subscribed for param in catalog.parse(text)["a"].params] == [True, False, False]
