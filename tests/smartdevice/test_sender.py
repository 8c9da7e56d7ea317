"""The sender on lines that are slow or accept no data."""

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from trio.testing import MockClock

from rt.link.link import LinkGoneError, StreamLink
from rt.protocol.message import HbReq
from rt.smartdevice.sender import SEND_TIMEOUT, Sender


class ClosedGuard:
    """A write guard that allows no writes."""

    allowed = 0

    def note_dropped(self, port: str, count: int, tokens: int) -> None:
        raise AssertionError((port, count, tokens))


async def test_stuck_line_is_closed_and_logged(autojump_clock: MockClock) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()  # a send lasts until it is received
    sender = Sender(StreamLink(ours, "line"), ClosedGuard(), 0.04)
    start = trio.current_time()
    with (
        capture_logs() as events,
        pytest.raises(LinkGoneError, match="line stopped accepting data"),
    ):
        await sender.run()
    assert trio.current_time() - start == pytest.approx(SEND_TIMEOUT)
    assert [event["port"] for event in events] == ["line"]


async def test_slow_line_is_not_closed(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    sender = Sender(StreamLink(ours, "line"), ClosedGuard(), 0.04)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run)
        for number in range(5):
            await trio.sleep(SEND_TIMEOUT * 0.9)
            assert await theirs.receive_some()
            sender.request(HbReq(number))
        nursery.cancel_scope.cancel()
