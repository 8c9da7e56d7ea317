"""What nodes, routers, services and clients count. Nothing that is lost on the way is lost without a number."""

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
        answered: Requests that were answered with an error because their recipient is absent or
            does not keep up.
        hellos: Empty payloads.
        malformed: Messages of the wrong number of frames, or for nobody and no message of the call
            protocol.
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


class ClientCounters(msgspec.Struct):
    """What a client has seen.

    Attributes:
        calls: Requests and notifications that were made.
        timeouts: Requests that nobody answered in time.
        late: Answers that belonged to no open call.
        malformed: Payloads that were no answer.
    """

    calls: int = 0
    timeouts: int = 0
    late: int = 0
    malformed: int = 0


class ServiceCounters(msgspec.Struct):
    """What a service has done.

    Attributes:
        calls: Requests and notifications that named a method.
        errors: Calls that ended in an error, whoever's fault it was.
        refused: Calls that found `BACKLOG` others waiting.
        overdue: Calls that were stopped because they ran longer than their limit.
        cancelled: Calls that were stopped because their caller does not wait any more, or has gone.
        malformed: Payloads that were no request or notification.
        unanswered: Answers that could not be sent.
    """

    calls: int = 0
    errors: int = 0
    refused: int = 0
    timed_out: int = 0
    cancelled: int = 0
    malformed: int = 0
    unanswered: int = 0
