"""Who stands at the end of a line: asked until it answers, and given the buffer of its UID.

The rule of this module: what a device says of itself opens a buffer and changes nothing in it.
Whether the UID is this device's, and not also that of another one which is there already, is
decided later (`rt.smartdevice.uid_conflict`).
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from rt.buffer import BufferStore, DeviceBuffer
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError
from rt.link.link import LinkGoneError
from rt.protocol.message import SubRes
from rt.smartdevice.pending_replies import NoAnswerError

PING_INTERVAL: Final = 0.2
DISCOVERY_TIMEOUT: Final = 10.0
"""How long a device may take to say who it is, in s; a board needs up to 2 s after its port was opened."""

_BUSY_PAUSE: Final = 0.001
"""Time until a buffer that could not be made is made again, in s; doubled each time."""

MAX_BUFFERS: Final = 1024
"""How many different devices one run of the device process remembers, each with its part of the arena. Twice as many as may be
connected, so that each of them may be exchanged once while the robot runs.
"""


async def identify(
    ping: Callable[[float], Awaitable[SubRes]], port: str, *, interval: float, within: float
) -> SubRes:
    """Ask a device who it is until it answers.

    A line that takes no more questions is no answer either.

    Args:
        ping: Asks once and waits for the answer so many seconds.
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
                return await ping(interval)
            except NoAnswerError:
                continue
            except LinkGoneError:
                raise
            except DeviceError:
                await trio.sleep(interval)
    raise NoAnswerError(
        f"{port} did not answer a ping within {within:g} s: is it a Smart Device, and does its firmware run?",
        port=port,
    )


async def open_buffer(
    store: BufferStore, identification: SubRes, port: str, *, within: float
) -> DeviceBuffer:
    """The buffer of the device that has said who it is; tried again while another process makes one.

    Args:
        store: Where it is opened.
        identification: What the device has said.
        port: The name of the line, for errors.
        within: How long to try in s.

    Raises:
        DeviceError: The catalog does not know it (the context has ``device_id``), or there is no
            room for its buffer.
    """
    uid, device_id = identification.uid, identification.device_id
    known = store.catalog.by_device_id(device_id) is not None
    pause, end = _BUSY_PAUSE, trio.current_time() + within
    try:
        while True:
            if known and uid not in store and len(store) >= MAX_BUFFERS:
                raise DeviceError(
                    f"{port} is refused: {MAX_BUFFERS} devices have been seen already; restart the robot to forget them",
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
            f"{port}: the catalog has no device id {device_id} (UID {uid}); add it to the catalog to use this device",
            port=port,
            device_id=device_id,
            uid=str(uid),
        ) from None
    except (DeviceBufferError, OSError) as error:
        raise DeviceError(
            f"{port}: the device {uid} gets no buffer: {error}", port=port, uid=str(uid)
        ) from error
