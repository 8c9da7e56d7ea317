"""Which connection without a proved key ends when there is no room for another one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.access.handshakes import Handshakes, Origin, origin

MOST, OF_HOST, GREETED = 8, 4, 3

HOSTS = [origin(f"10.0.{net}.{host}", None) for net in range(4) for host in range(1, 4)] + [
    origin("127.0.0.1", 5)
]


def begin(table: Handshakes[int], key: int, where: Origin, most: int = MOST) -> list[int]:
    return table.begin(key, where, most=most, most_of_host=OF_HOST)


@pytest.mark.parametrize(
    ("flood", "station"),
    [
        ([("127.0.0.1", 65534), ("127.44.0.9", 65534)], ("127.0.0.1", 1000)),
        ([("127.0.0.1", 65534), ("127.44.0.9", 65534)], ("192.168.1.5", None)),
        ([(f"10.1.2.{host}", None) for host in range(200)], ("10.1.3.4", None)),
        ([(f"2001:db8::{host:x}", None) for host in range(200)], ("2001:db8:0:1::7", None)),
        ([("10.1.2.7", None)], ("10.1.2.8", None)),
        ([("127.0.0.1", None)], ("127.0.0.1", 1000)),
    ],
    ids=["user at loopback", "user and network", "network", "IPv6", "neighbor", "unknown user"],
)
def test_flood_displaces_itself_and_no_station(
    flood: list[tuple[str, int | None]], station: tuple[str, int | None]
) -> None:
    table = Handshakes[int]()
    for key in range(1000):
        begin(table, key, origin(*flood[key % len(flood)]))
        if key == 500:
            begin(table, -1, origin(*station))
    assert -1 in table
    assert table.greeted(-1, most=GREETED) == []
    for key in range(1000, 2000):
        begin(table, key, origin(*flood[key % len(flood)]))
        table.greeted(key, most=GREETED)
    assert -1 in table


steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), st.sampled_from(HOSTS)),
        st.tuples(st.just("greeted"), st.integers(0, 60)),
        st.tuples(st.just("end"), st.integers(0, 60)),
    ),
    max_size=60,
)


@given(steps)
def test_newcomer_always_enters_and_the_table_stays_bounded(
    story: list[tuple[str, Origin | int]],
) -> None:
    table = Handshakes[int]()
    here: dict[int, Origin] = {}
    greeted: set[int] = set()
    count = 0
    for what, which in story:
        ended: list[int] = []
        if isinstance(which, Origin):
            full = len(here) >= MOST
            ended = begin(table, count, which)
            if full and len(ended) == 1 and Counter(here.values())[which] < OF_HOST:
                silent = {key for key in here if key not in greeted} or set(here)
                networks = Counter(here[key].network for key in silent)
                assert networks[here[ended[0]].network] == max(networks.values())
            assert count in table
            here[count] = which
            count += 1
        elif what == "greeted":
            ended = table.greeted(which, most=GREETED)
            if which in here:
                assert which in table
                greeted.add(which)
        else:
            table.end(which)
            here.pop(which, None)
        assert len(set(ended)) == len(ended)
        for each in ended:
            del here[each]
        greeted &= here.keys()
        assert {key for key in range(count) if key in table} == here.keys()
        assert len(table) == len(here) <= MOST
        assert len(greeted) <= GREETED
        assert max(Counter(here.values()).values(), default=0) <= OF_HOST


def test_silent_connection_ends_before_one_that_has_greeted() -> None:
    table = Handshakes[int]()
    for key in range(GREETED):
        begin(table, key, HOSTS[0])
        table.greeted(key, most=GREETED)
    for key in range(GREETED, MOST):
        begin(table, key, HOSTS[key])
    assert begin(table, 100, HOSTS[11]) == [GREETED]
