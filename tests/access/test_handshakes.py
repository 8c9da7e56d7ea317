"""Handshakes: which connection without a proved key is displaced by a new one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rt.access.handshakes import Handshakes, Origin, origin

LIMIT, HOST_LIMIT, GREETED = 8, 4, 3

HOSTS = [origin(f"10.0.{net}.{host}", None) for net in range(4) for host in range(1, 4)] + [
    origin("127.0.0.1", 5)
]


def begin(table: Handshakes[int], key: int, where: Origin, limit: int = LIMIT) -> list[int]:
    return table.begin(key, where, limit=limit, host_limit=HOST_LIMIT)


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
    assert table.greeted(-1, limit=GREETED) == []
    for key in range(1000, 2000):
        begin(table, key, origin(*flood[key % len(flood)]))
        table.greeted(key, limit=GREETED)
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
def test_new_connection_is_always_accepted_within_the_limits(
    story: list[tuple[str, Origin | int]],
) -> None:
    table = Handshakes[int]()
    present: dict[int, Origin] = {}
    greeted: set[int] = set()
    count = 0
    for what, which in story:
        ended: list[int] = []
        if isinstance(which, Origin):
            full = len(present) >= LIMIT
            ended = begin(table, count, which)
            if full and len(ended) == 1 and Counter(present.values())[which] < HOST_LIMIT:
                silent = {key for key in present if key not in greeted} or set(present)
                networks = Counter(present[key].network for key in silent)
                assert networks[present[ended[0]].network] == max(networks.values())
            assert count in table
            present[count] = which
            count += 1
        elif what == "greeted":
            ended = table.greeted(which, limit=GREETED)
            if which in present:
                assert which in table
                greeted.add(which)
        else:
            table.end(which)
            present.pop(which, None)
        assert len(set(ended)) == len(ended)
        for each in ended:
            del present[each]
        greeted &= present.keys()
        assert {key for key in range(count) if key in table} == present.keys()
        assert len(table) == len(present) <= LIMIT
        assert len(greeted) <= GREETED
        assert max(Counter(present.values()).values(), default=0) <= HOST_LIMIT


def test_silent_connection_is_displaced_before_a_greeted_one() -> None:
    table = Handshakes[int]()
    for key in range(GREETED):
        begin(table, key, HOSTS[0])
        table.greeted(key, limit=GREETED)
    for key in range(GREETED, LIMIT):
        begin(table, key, HOSTS[key])
    assert begin(table, 100, HOSTS[11]) == [GREETED]
