"""The greeting with which each end of a ZMTP 3 connection begins (RFC 23), as far as rt reads it before libzmq does.

offset  length  what
0       10      signature: 0xFF, 8 bytes, 0x7F
10      2       version: major, minor
12      20      mechanism, padded with zeros: NULL, PLAIN or CURVE
32      1       whether the sender is the server of the mechanism
33      31      zeros
"""

GREETING_BYTES = 64
SIGNATURE_BYTES = 10
OPENING = b"\xff" + bytes(8) + b"\x7f\x03"
"""The first bytes of every greeting of version 3. An end that has read them sends the rest of its own greeting."""
CURVE = "CURVE"


def greeting(mechanism: str, *, as_server: bool) -> bytes:
    """A greeting of version 3.0.

    Examples:
        >>> len(greeting("NULL", as_server=False))
        64
    """
    return OPENING + b"\0" + mechanism.encode().ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def is_opening(data: bytes) -> bool:
    """Whether some first bytes may begin a greeting of version 3 or later."""
    if data[:1] not in {b"", b"\xff"} or (len(data) >= SIGNATURE_BYTES and data[9:10] != b"\x7f"):
        return False
    return len(data) <= SIGNATURE_BYTES or data[10] >= OPENING[10]


def mechanism_of(greeting: bytes) -> str:
    """The mechanism that a whole greeting names; empty where it is no text.

    Examples:
        >>> mechanism_of(greeting("CURVE", as_server=True))
        'CURVE'
    """
    try:
        return greeting[12:32].rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        return ""
