"""Discovery: pings a new device until it answers, and opens the buffer of its UID.

Invariant: what a device reports about itself opens a buffer and changes nothing in it. Whether
    another device already has the UID is decided later (`rt.smartdevice.uid_conflict`).
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError
from rt.link.link import LinkGoneError
from rt.protocol.message import SubRes
from rt.smartdevice.pending_replies import NoAnswerError
from rt.smartdevice.sender import BUSY_PAUSE

PING_INTERVAL: Final = 0.2
"""Time between two pings of a device that has not answered yet, in s."""
DISCOVERY_TIMEOUT: Final = 10.0
"""How long a device may take to identify itself, in s. A board needs up to 2 s after its port was
opened.
"""

MAX_BUFFERS: Final = 1024
"""How many different devices one run of the device process remembers.

Each has its part of the arena. This is twice as many as may be connected, so each of them can be
replaced once while the robot runs.
"""


async def identify(
    ping: Callable[[], Awaitable[SubRes]], port: str, *, interval: float, within: float
) -> SubRes:
    """Ping a device until it answers.

    A line that accepts no more requests counts as no answer.

    Args:
        ping: Pings once and waits for the answer for ``interval``.
        port: The name of the line, for errors.
        interval: Time between two pings in s.
        within: How long to try in s.

    Raises:
        NoAnswerError: No answer in time.
        LinkGoneError: The device is gone.
    """
    with trio.move_on_after(within):
        while True:
            try:
                return await ping()
            except NoAnswerError:
                continue
            except LinkGoneError:
                raise
            except DeviceError:
                await trio.sleep(interval)
    raise NoAnswerError(
        f"{port}: no answer to a ping within {within:g} s; "
        "check that it is a Smart Device and runs its firmware",
        port=port,
    )


async def open_buffer(
    store: BufferStore, identification: SubRes, port: str, *, within: float
) -> DeviceBuffer:
    """Open the buffer of an identified device, waiting while another process opens one.

    Args:
        store: Where the buffer is opened.
        identification: The device's answer to a ping.
        port: The name of the line, for errors.
        within: How long to try in s.

    Raises:
        DeviceError: The catalog does not contain the device (the context has ``device_id``), or
            there is no room for its buffer.
    """
    uid, device_id = identification.uid, identification.device_id
    known = store.catalog.by_device_id(device_id) is not None
    pause, end = BUSY_PAUSE, trio.current_time() + within
    try:
        while True:
            if known and uid not in store and len(store) >= MAX_BUFFERS:
                raise DeviceError(
                    f"{port}: refused after {MAX_BUFFERS} different devices; "
                    "restart the robot to forget them",
                    port=port,
                )
            try:
                return store.get_or_open(uid)
            except BufferBusyError:
                if trio.current_time() >= end:
                    raise
            await trio.sleep(pause)
            pause = min(2 * pause, PING_INTERVAL)
    except KeyError:
        raise DeviceError(
            f"{port}: device id {device_id} (UID {uid}) is not in the catalog; "
            "add it to use this device",
            port=port,
            device_id=device_id,
            uid=str(uid),
        ) from None
    except (DeviceBufferError, OSError) as error:
        raise DeviceError(
            f"{port}: cannot open a buffer for device {uid}: {error}", port=port, uid=str(uid)
        ) from error
