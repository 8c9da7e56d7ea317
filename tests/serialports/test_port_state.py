"""The known ports: none appears twice, and only known ports vanish."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from rt.serialports.filter import FoundPort
from rt.serialports.port_state import PortChange, PortEvent, PortState

DEVICES = ["/dev/ttyACM0", "/dev/ttyACM1", "/dev/pts/3"]

# A link leads to one device at a time, as on a file system.
links = st.dictionaries(st.sampled_from(["/tmp/a", "/tmp/b"]), st.sampled_from(DEVICES))
plugged = st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 2))
events = st.lists(
    st.builds(
        PortEvent,
        st.sampled_from(["add", "remove", "change"]),
        st.sampled_from(DEVICES),
        st.integers(0, 9),
    )
)
scans = st.lists(
    st.tuples(plugged, links, st.booleans(), events, st.integers(0, 9), st.booleans()), max_size=12
)


def board(device: str = DEVICES[0], identity: int = 1, *names: str) -> dict[str, FoundPort]:
    return {device: FoundPort(dict.fromkeys(names or (device,), (identity,)))}


def change(
    *, appeared: Iterable[str] = (), vanished: Iterable[str] = (), announced: Iterable[str] = ()
) -> PortChange:
    return PortChange(frozenset(appeared), frozenset(vanished), frozenset(announced))


NAME = DEVICES[0]


@given(scans)
def test_ports_appear_and_vanish_alternately(
    steps: list[tuple[dict[str, int], dict[str, str], bool, list[PortEvent], int, bool]],
) -> None:
    state = PortState()
    existing: set[str] = set()
    for devices, linked, own, received, number, lost in steps:
        found = {}
        for device, identity in devices.items():
            names = (
                *([device] if own else []),
                *sorted(link for link, target in linked.items() if target == device),
            )
            if names:
                found[device] = FoundPort(dict.fromkeys(names, (identity,)))
        change = state.update(found, received, number=number, lost=lost)
        assert change.vanished <= existing
        existing -= change.vanished
        assert not change.appeared & existing
        assert change.announced <= existing
        existing |= change.appeared
        assert existing == state.ports
        assert len(existing) == len(found), "each device has one name"


@given(st.lists(events))
def test_events_alone_never_change_the_ports(batches: list[list[PortEvent]]) -> None:
    state = PortState()
    state.update(board())
    for batch in batches:
        state.update(board(), batch)
        assert state.ports == {NAME}


def test_replugged_port_vanished_and_appeared() -> None:
    state = PortState()
    assert state.update(board()) == change(appeared={NAME})
    assert state.update(board()) == change()
    assert state.update(board(identity=2)) == change(appeared={NAME}, vanished={NAME})
    received = [PortEvent("remove", NAME, 5), PortEvent("add", NAME, 6)]
    assert state.update(board(identity=2), received, number=6) == change(
        appeared={NAME}, vanished={NAME}
    )


def test_events_before_last_scan_are_ignored() -> None:
    state = PortState()
    state.update(board(), number=6)
    received = [PortEvent("remove", NAME, 5), PortEvent("add", NAME, 6)]
    assert state.update(board(), received, number=6) == change(announced={NAME})


def test_only_known_ports_are_announced() -> None:
    state = PortState()
    state.update(board())
    assert state.update(
        board(), [PortEvent("change", NAME, 1), PortEvent("add", "/dev/ttyS0", 2)]
    ) == change(announced={NAME})


def test_lost_events_announce_every_port() -> None:
    state = PortState()
    state.update(board())
    assert state.update(board(), lost=True) == change(announced={NAME})


def test_port_keeps_its_name_while_it_exists() -> None:
    state = PortState()
    state.update(board(NAME, 1, "/tmp/b"))
    assert state.update(board(NAME, 1, "/tmp/a", "/tmp/b")) == change()
    assert state.update(board(NAME, 1, "/tmp/a")) == change(
        appeared={"/tmp/a"}, vanished={"/tmp/b"}
    )
