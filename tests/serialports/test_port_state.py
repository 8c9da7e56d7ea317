"""The book of ports: nothing appears twice, and nothing vanishes that was not there."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from rt.serialports.filter import Seen
from rt.serialports.port_state import PortChange, PortEvents, PortState

DEVICES = ["/dev/ttyACM0", "/dev/ttyACM1", "/dev/pts/3"]

# A link leads to one device at a time, as on a file system.
links = st.dictionaries(st.sampled_from(["/tmp/a", "/tmp/b"]), st.sampled_from(DEVICES))
plugged = st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 2))
news = st.lists(
    st.builds(
        PortEvents,
        st.sampled_from(["add", "remove", "change"]),
        st.sampled_from(DEVICES),
        st.integers(0, 9),
    )
)
looks = st.lists(
    st.tuples(plugged, links, st.booleans(), news, st.integers(0, 9), st.booleans()), max_size=12
)


def board(device: str = DEVICES[0], identity: int = 1, *names: str) -> dict[str, Seen]:
    return {device: Seen(dict.fromkeys(names or (device,), (identity,)))}


def change(
    *,
    appeared: Iterable[str] = (),
    vanished: Iterable[str] = (),
    announced: Iterable[str] = (),
) -> PortChange:
    return PortChange(frozenset(appeared), frozenset(vanished), frozenset(announced))


NAME = DEVICES[0]


@given(looks)
def test_whatever_happens_ports_appear_once_and_vanish_once(
    steps: list[tuple[dict[str, int], dict[str, str], bool, list[PortEvents], int, bool]],
) -> None:
    book = PortState()
    there: set[str] = set()
    for devices, linked, own, told, number, lost in steps:
        found = {}
        for device, identity in devices.items():
            names = (
                *([device] if own else []),
                *sorted(link for link, target in linked.items() if target == device),
            )
            if names:
                found[device] = Seen(dict.fromkeys(names, (identity,)))
        change = book.look(found, told, number=number, lost=lost)
        assert change.vanished <= there
        there -= change.vanished
        assert not change.appeared & there
        assert change.announced <= there
        there |= change.appeared
        assert there == book.ports
        assert len(there) == len(found), "each device has one name"


@given(st.lists(news))
def test_news_alone_never_change_which_ports_there_are(batches: list[list[PortEvents]]) -> None:
    book = PortState()
    book.look(board())
    for batch in batches:
        book.look(board(), batch)
        assert book.ports == {NAME}


def test_what_was_plugged_in_again_vanished_and_appeared() -> None:
    book = PortState()
    assert book.look(board()) == change(appeared={NAME})
    assert book.look(board()) == change()
    assert book.look(board(identity=2)) == change(appeared={NAME}, vanished={NAME})
    told = [PortEvents("remove", NAME, 5), PortEvents("add", NAME, 6)]
    assert book.look(board(identity=2), told, number=6) == change(appeared={NAME}, vanished={NAME})


def test_what_was_said_before_the_last_look_changes_nothing() -> None:
    book = PortState()
    book.look(board(), number=6)
    told = [PortEvents("remove", NAME, 5), PortEvents("add", NAME, 6)]
    assert book.look(board(), told, number=6) == change(announced={NAME})


def test_a_known_port_is_announced_and_an_unknown_one_is_not() -> None:
    book = PortState()
    book.look(board())
    assert book.look(
        board(), [PortEvents("change", NAME, 1), PortEvents("add", "/dev/ttyS0", 2)]
    ) == change(announced={NAME})


def test_when_news_are_lost_they_may_have_been_of_every_port() -> None:
    book = PortState()
    book.look(board())
    assert book.look(board(), lost=True) == change(announced={NAME})


def test_a_port_keeps_its_name_while_it_has_it() -> None:
    book = PortState()
    book.look(board(NAME, 1, "/tmp/b"))
    assert book.look(board(NAME, 1, "/tmp/a", "/tmp/b")) == change()
    assert book.look(board(NAME, 1, "/tmp/a")) == change(appeared={"/tmp/a"}, vanished={"/tmp/b"})
