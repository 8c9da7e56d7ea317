"""Two devices that claim the same UID: the first one keeps it while it is alive."""

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
"""How long the holder of a UID may take to answer when another device claims the same, in s."""


class DuplicateUIDError(DeviceError):
    """Two devices have the same UID."""


class UIDConflict:
    """Decides which device has a UID.

    Args:
        devices: The devices by UID; one that is dropped is removed.
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
        """Make sure that no live device has this UID; a device that does not answer is dropped.

        Raises:
            DuplicateUIDError: Another device has it, and answers.
        """
        while (holder := self._devices.get(uid)) is not None:
            if await self._is_alive(holder):
                raise DuplicateUIDError(
                    f"{client.link.name}: refused because the device on {holder.link.name} "
                    f"has the same UID {uid}; give one of them another UID",
                    uid=str(uid),
                    port=client.link.name,
                    other=holder.link.name,
                )
            self._throttle.log(
                self._log.warning,
                "device dropped: it does not answer, and another one has its UID",
                port=holder.link.name,
                other=client.link.name,
                uid=str(uid),
            )
            await holder.drop()
            if self._devices.get(uid) is holder:
                del self._devices[uid]

    async def _is_alive(self, client: SmartDeviceClient) -> bool:
        """Return whether a device answers; concurrent callers share one probe."""
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
            pass  # it could not be probed, which proves nothing
        finally:
            del self._probes[client]
            probe.done.set()
        return probe.alive


class _Probe:
    """One probe of a device, and its result."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.alive = True
