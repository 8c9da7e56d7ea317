"""The greeting of a ZMTP 3 connection (RFC 23), as far as rt parses it before libzmq does.

offset  length  field
0       10      signature: 0xFF, 8 bytes, 0x7F
10      2       version: major, minor
12      20      mechanism, padded with zeros: NULL, PLAIN or CURVE
32      1       whether the sender is the server of the mechanism
33      31      zeros
"""

GREETING_BYTES = 64
SIGNATURE_BYTES = 10
OPENING = b"\xff" + bytes(8) + b"\x7f\x03"
"""The first bytes of a greeting of version 3; a peer that has read them sends its own rest."""
CURVE = "CURVE"


def greeting(mechanism: str, *, as_server: bool) -> bytes:
    """Return a greeting of version 3.0.

    Examples:
        >>> len(greeting("NULL", as_server=False))
        64
    """
    return OPENING + b"\0" + mechanism.encode().ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def is_opening(data: bytes) -> bool:
    """Return whether bytes can be the beginning of a greeting of version 3 or later."""
    if data[:1] not in {b"", b"\xff"} or (len(data) >= SIGNATURE_BYTES and data[9:10] != b"\x7f"):
        return False
    return len(data) <= SIGNATURE_BYTES or data[10] >= OPENING[10]


def mechanism_of(greeting: bytes) -> str:
    """Return the mechanism in a complete greeting, or an empty text if it is not ASCII.

    Examples:
        >>> mechanism_of(greeting("CURVE", as_server=True))
        'CURVE'
    """
    try:
        return greeting[12:32].rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        return ""
