"""Tests of resource limits: what a robot raises, and its errors where it may not."""

import errno
import os
import resource

import pytest

from rt import process_limits
from rt.errors import ConfigError
from rt.process_limits import allow_descriptors

LIMITS = [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_DATA]


@pytest.mark.parametrize(
    ("soft", "hard", "most", "allowed"),
    [
        (1024, 5000, 4096, 4096),
        (1024, 2000, 4096, 2000),
        (3000, 5000, 2000, 3000),
        (1024, resource.RLIM_INFINITY, 4096, 4096),
    ],
)
def test_descriptor_limit_is_raised_as_far_as_permitted(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, most: int, allowed: int
) -> None:
    process_limits = [(soft, hard)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: process_limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: process_limits.append(wanted))
    assert allow_descriptors(most) == allowed
    assert process_limits[-1] == (allowed, hard)


def test_unlimited_descriptors_stay_unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("the limit was lowered"))
    assert allow_descriptors(4096) == 4096


def test_limits_are_raised_to_what_a_robot_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    low = dict.fromkeys((*LIMITS, resource.RLIMIT_NPROC), (10, 1 << 40))
    monkeypatch.setattr(resource, "getrlimit", lambda number: low[number])
    monkeypatch.setattr(resource, "setrlimit", low.__setitem__)
    process_limits.raise_limits()
    assert low[resource.RLIMIT_NOFILE] == (process_limits.DESCRIPTORS, 1 << 40)
    assert {low[number][0] for number in low} == {process_limits.DESCRIPTORS, 1 << 40}


def test_sufficient_limits_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("a limit was changed"))
    process_limits.raise_limits()


@pytest.mark.parametrize("number", LIMITS)
def test_limit_that_is_too_low_is_an_error_with_the_need(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(
        resource, "getrlimit", lambda asked: (4096, 4096) if asked == number else unlimited
    )
    monkeypatch.setattr(
        process_limits,
        "_LIMITS",
        [each._replace(needed=max(each.needed, 8192)) for each in process_limits._LIMITS],
    )
    with pytest.raises(
        ConfigError,
        match=r"the limit of .* is 4.*, and a robot needs [0-9]+.*; raise it with `ulimit",
    ) as caught:
        process_limits.raise_limits()
    assert caught.value.EXIT_CODE == 78


def test_process_limit_includes_the_processes_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(process_limits, "_tasks", lambda uid: 70 if uid == 1000 else 0)
    monkeypatch.setattr(
        resource,
        "getrlimit",
        lambda asked: (100, 100) if asked == resource.RLIMIT_NPROC else unlimited,
    )
    with pytest.raises(ConfigError, match="the limit of processes is 100, and a robot needs 110"):
        process_limits.raise_limits()
    monkeypatch.setattr(process_limits, "_tasks", lambda _: 50)
    process_limits.raise_limits()


def test_own_processes_are_counted() -> None:
    assert process_limits._tasks(os.getuid()) >= 1
    assert process_limits._tasks(4_000_000_000) == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.EAGAIN, "ulimit -u"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENFILE, "sysctl"),
        (errno.ENOENT, "No such file"),
    ],
)
def test_failed_system_call_names_the_limit(code: int, words: str) -> None:
    assert words in process_limits.explain(OSError(code, os.strerror(code)))
