import resource

import pytest

from rt.limits import allow_descriptors


@pytest.mark.parametrize(
    ("soft", "hard", "most", "allowed"),
    [
        (1024, 5000, 4096, 4096),
        (1024, 2000, 4096, 2000),
        (3000, 5000, 2000, 3000),
        (1024, resource.RLIM_INFINITY, 4096, 4096),
    ],
)
def test_a_process_has_as_many_descriptors_as_it_needs_and_the_system_allows(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most: int, allowed: int
) -> None:
    limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert allow_descriptors(most) == allowed
    assert limits[-1] == (allowed, hard)


def test_a_limit_that_is_none_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it was lowered"))
    assert allow_descriptors(4096) == 4096
