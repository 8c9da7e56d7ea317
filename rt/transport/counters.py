"""Counters of nodes, routers, clients and services. Invariant: every lost message is counted."""

import msgspec


class Counters(msgspec.Struct):
    """Counters of a node since it was opened.

    Attributes:
        sent: Messages passed to the transport.
        received: Complete messages received.
        dropped: Messages that could not be sent.
        malformed: Received messages that do not follow the protocol.
    """

    sent: int = 0
    received: int = 0
    dropped: int = 0
    malformed: int = 0


class RouterCounters(msgspec.Struct):
    """Counters of a router.

    Attributes:
        routed: Messages sent to their recipient.
        answered: Requests answered with an error, such as for an absent recipient or a full queue.
        hellos: Hellos received.
        malformed: Messages with a wrong number of frames, undeliverable messages that do not follow
            the protocol, and messages under reserved names.
        dropped: Messages that could be neither delivered nor answered.
        gone: Disconnected peers that the services were notified of.
        takeovers: Names taken over by a newer connection while the older one was open.
    """

    routed: int = 0
    answered: int = 0
    hellos: int = 0
    malformed: int = 0
    dropped: int = 0
    gone: int = 0
    takeovers: int = 0


class ClientCounters(msgspec.Struct):
    """Counters of a client.

    Attributes:
        calls: Requests and notifications.
        timeouts: Requests that timed out.
        late: Responses that match no open call.
        malformed: Payloads that are not responses.
    """

    calls: int = 0
    timeouts: int = 0
    late: int = 0
    malformed: int = 0


class ServiceCounters(msgspec.Struct):
    """Counters of a service.

    Attributes:
        calls: Requests and notifications received.
        errors: Calls that ended with an error.
        refused: Calls refused because too many were waiting, or an urgent call overtook them.
        timed_out: Calls stopped because they exceeded their time limit.
        cancelled: Calls stopped because their caller cancelled them or disconnected.
        malformed: Payloads that are neither requests nor notifications.
        unanswered: Responses that could not be sent.
    """

    calls: int = 0
    errors: int = 0
    refused: int = 0
    timed_out: int = 0
    cancelled: int = 0
    malformed: int = 0
    unanswered: int = 0
