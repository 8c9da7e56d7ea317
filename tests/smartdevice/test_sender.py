"""What goes out to a device, and what happens when the line takes nothing."""

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs
from trio.testing import MockClock

from rt.link.link import LinkGoneError, StreamLink
from rt.protocol.message import HbReq
from rt.smartdevice.sender import SEND_TIMEOUT, Sender


class Shut:
    """A gate through which nobody's writes pass."""

    allowed = 0

    def note_dropped(self, port: str, count: int, tokens: int) -> None:
        raise AssertionError((port, count, tokens))


async def test_a_line_that_takes_nothing_is_given_up_and_that_is_said(
    autojump_clock: MockClock,
) -> None:
    ours, _theirs = trio.testing.lockstep_stream_pair()  # a send lasts until it is received
    sender = Sender(StreamLink(ours, "line"), Shut(), 0.04)
    began = trio.current_time()
    with (
        capture_logs() as events,
        pytest.raises(LinkGoneError, match="line takes nothing any more"),
    ):
        await sender.run()
    assert trio.current_time() - began == pytest.approx(SEND_TIMEOUT)
    assert [event["port"] for event in events] == ["line"]


async def test_a_line_that_is_slow_is_not_given_up(autojump_clock: MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    sender = Sender(StreamLink(ours, "line"), Shut(), 0.04)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run)
        for number in range(5):
            await trio.sleep(SEND_TIMEOUT * 0.9)
            assert await theirs.receive_some()
            sender.request(HbReq(number))
        nursery.cancel_scope.cancel()
