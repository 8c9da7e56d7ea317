"""Two devices that claim one UID: the first one keeps it for as long as it is alive."""

from collections.abc import MutableMapping
from typing import Final

import trio

from rt import log
from rt.errors import DeviceError
from rt.link.link import LinkGoneError
from rt.log.throttle import Throttle
from rt.smartdevice.client import SmartDeviceClient
from rt.smartdevice.pending_replies import NoAnswerError

PROBE_TIMEOUT: Final = 0.5
"""How long the holder of a UID may take to show that it is alive when another device claims the same, in s."""


class DuplicateUIDError(DeviceError):
    """Two devices have the same UID."""


class UIDConflict:
    """Decides who has a UID.

    Args:
        devices: The devices that have theirs; one that is dropped is taken out.
        throttle: Limits what is logged.
    """

    def __init__(
        self, devices: MutableMapping[int, SmartDeviceClient], throttle: Throttle | None = None
    ) -> None:
        self._throttle = throttle or Throttle("port", "uid", clock=trio.current_time)
        self._devices = devices
        self._probes: dict[SmartDeviceClient, _Probe] = {}
        self._log = log.get_logger()

    async def resolve(self, uid: int, client: SmartDeviceClient) -> None:
        """Make sure that nobody else has this UID: one that does not answer any more is dropped, as after a lost connection.

        Raises:
            DuplicateUIDError: Another device has it, and answers.
        """
        while (holder := self._devices.get(uid)) is not None:
            if await self._is_alive(holder):
                raise DuplicateUIDError(
                    f"{client.link.name} is refused: its UID {uid} is that of the device on {holder.link.name}; "
                    "give one of them another UID",
                    uid=str(uid),
                    port=client.link.name,
                    other=holder.link.name,
                )
            self._throttle.log(
                self._log.warning,
                "the Smart Device does not answer and another one has its UID: it is dropped",
                port=holder.link.name,
                other=client.link.name,
                uid=str(uid),
            )
            await holder.drop()
            if self._devices.get(uid) is holder:
                del self._devices[uid]

    async def _is_alive(self, client: SmartDeviceClient) -> bool:
        """Whether a device answers; one question serves all who ask at the same time."""
        if client.ended.is_set():
            return False
        probe = self._probes.get(client)
        if probe is not None:
            await probe.done.wait()
            return probe.alive
        probe = self._probes[client] = _Probe()
        try:
            await client.heartbeat(within=PROBE_TIMEOUT)
        except (NoAnswerError, LinkGoneError):
            probe.alive = False
        except DeviceError:
            pass  # it could not be asked, which says nothing of it
        finally:
            del self._probes[client]
            probe.done.set()
        return probe.alive


class _Probe:
    """One question whether a device is alive, and its answer."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.alive = True
