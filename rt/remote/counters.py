"""What nodes and routers count. Nothing that is lost on the way is lost without a number."""

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


class RouterCounters(msgspec.Struct):
    """What a router has done.

    Attributes:
        routed: Messages that went to their recipient.
        answered: Requests that were answered with an error because their recipient is absent or does not keep up.
        hellos: Empty payloads.
        malformed: Messages of the wrong number of frames, or for nobody and no message of the call protocol.
        dropped: Messages that could be neither delivered nor answered.
        gone: Peers whose messages were delivered, and who have gone; the services were told.
        takeovers: Names that were taken by a newer connection while the older one stood.
    """

    routed: int = 0
    answered: int = 0
    hellos: int = 0
    malformed: int = 0
    dropped: int = 0
    gone: int = 0
    takeovers: int = 0
