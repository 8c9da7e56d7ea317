"""What a node counts. Nothing that is lost on the way is lost without a number."""

import msgspec


class Counters(msgspec.Struct):
    """What passed a node since it was opened.

    Attributes:
        sent: Messages that were handed to the transport.
        received: Whole messages that came in.
        dropped: Messages that could not be sent and were given up.
        malformed: Messages that came in and were no message of the protocol.
    """

    sent: int = 0
    received: int = 0
    dropped: int = 0
    malformed: int = 0
