"""The manager of all Smart Devices: opens, admits, watches and disables them.

Its base class `DeviceHandler` has the remote methods.

Invariant: every client, discovered or not, is disabled when the guard requires it, and no two
    clients share a buffer.
"""

import contextlib
import functools
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

import trio

from rt import log
from rt.access.peer import CROWDED, PeerTable
from rt.access.refusals import Refusals
from rt.buffer import BufferStore, LeaseTable
from rt.buffer.lease import ALL_TOKENS
from rt.buffer.write_event import WriteEvent
from rt.config.network import is_open
from rt.errors import BufferBusyError, DeviceBufferError, DeviceError, InstanceBusyError
from rt.link.link import Link, LinkGoneError
from rt.link.serial import DEFAULT_BAUD_RATE
from rt.link.tcp import SocketLink
from rt.log.throttle import Throttle, Write
from rt.process_limits import allow_descriptors
from rt.serialports.observer import PollingObserver
from rt.serialports.ports import keep_ports_open
from rt.smartdevice import liveness
from rt.smartdevice.brake_client import BrakeClient
from rt.smartdevice.client import (
    ANSWER_TIMEOUT,
    MAX_TIMEOUT_FACTOR,
    WRITE_INTERVAL,
    SmartDeviceClient,
)
from rt.smartdevice.discovery import DISCOVERY_TIMEOUT
from rt.smartdevice.handler import DeviceHandler, for_each
from rt.smartdevice.pending_replies import NoAnswerError
from rt.smartdevice.receive_path import Loss
from rt.smartdevice.receiver import Receiver
from rt.smartdevice.uid_conflict import UIDConflict
from rt.smartdevice.write_guard import SafetyGuard
from rt.transport.address import split_address

DISABLE_TIMEOUT: Final = 0.2
"""How long disabling all devices may take when the process ends, in s."""

SUBSCRIBE_TRIES: Final = 3
"""How often a device may leave its subscription unanswered until it counts as lost."""
MIN_PAUSE: Final = 0.05
MAX_PAUSE: Final = 5.0
"""Shortest and longest time for which a device that keeps changing its UID or restarting is
ignored, in s.
"""
STABLE_AFTER: Final = 10.0
"""Time in use after which the loss of a device does not count as a repetition, in s."""
MAX_DEVICES: Final = 512
"""How many devices may be connected at the same time, also those that are not identified yet.

Twice as many as the device process is measured with, and a bound on what a stranger who connects
again and again can occupy.
"""
_MAX_LOGGED: Final = 1024
_MAX_DESCRIPTORS: Final = 4096


class SmartDeviceManager(DeviceHandler):
    """Manages the life cycle and operations of Smart Devices.

    Args:
        buffers: Where the devices' buffers are opened.
        leases: Who may move devices.
        write_event: Signalled when there is something to write, or a lease has begun or ended.
        names: UIDs by the names that the team gave them.
        write_interval: Least time between two writes to a device in s, unless the catalog has one
            for it.
        discovery_timeout: How long a device may take to identify itself in s.
        brake: This process's descriptors of the connection to the brake (`rt.brake.connection`);
            empty without one.
    """

    def __init__(
        self,
        buffers: BufferStore,
        leases: LeaseTable,
        write_event: WriteEvent,
        *,
        names: Mapping[str, int] | None = None,
        write_interval: float = WRITE_INTERVAL,
        discovery_timeout: float = DISCOVERY_TIMEOUT,
        brake: Sequence[int] = (),
    ) -> None:
        super().__init__(names or {}, leases.is_over)
        self.brake = BrakeClient(brake, self._is_moving, self._on_braked, leases.expiry)
        self.guard = SafetyGuard(leases, self._on_lapse, self.brake.stamp, self._port_context)
        self._buffers = buffers
        self._leases = leases
        self._write_event = write_event
        self._write_interval = write_interval
        self._discovery_timeout = discovery_timeout
        self._throttle = Throttle("port", "uid", clock=trio.current_time)
        self._refused = Throttle(burst=16, interval=2.0, clock=trio.current_time)
        self._uid_conflict = UIDConflict(self.devices, self._throttle)
        self._logged_refusals: set[object] = set()
        self._receiver = Receiver()
        self._refusals = Refusals("virtual device refused")
        self._log = log.get_logger()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Guard the devices and send what is written to them, until cancelled."""
        allow_descriptors(_MAX_DESCRIPTORS)
        self._invalidate_stale_buffers()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.brake.run)
            nursery.start_soon(self.guard.run)
            nursery.start_soon(
                liveness.watch, lambda: self.devices.copy().values(), self._flush_log
            )
            await nursery.start(self._receiver.run)
            task_status.started()
            session_counts = self._leases.session_counts()
            while True:
                await self._write_event.wait()
                # Writes go first: each one asks the guard itself.
                for client in self.devices.values():
                    client.sender.flush()
                self.guard.check()
                if session_counts != (session_counts := self._leases.session_counts()):
                    # Also for devices that are silent now, which must not return to such a
                    # subscription.
                    for client in self._clients:
                        if (
                            client.end_sessions(self._leases.is_over)
                            and client in self.devices.values()
                        ):
                            nursery.start_soon(self._resubscribe, client)

    async def open_serial_devices(
        self, observer: PollingObserver, *, baud_rate: int = DEFAULT_BAUD_RATE
    ) -> None:
        """Run a device on every serial port that an observer finds. Never returns."""
        await keep_ports_open(observer.changes(), self._run_and_log, baud_rate=baud_rate)

    async def open_virtual_devices(
        self,
        address: str,
        *,
        task_status: trio.TaskStatus[list[trio.SocketListener]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen for virtual Smart Devices and run each of them. Never returns.

        On the loopback interface only programs of root and of this user are accepted, because a
        device may claim any UID.

        Args:
            address: ``tcp://HOST:PORT``; ``*`` for every interface.
            task_status: Receives the listeners when they listen.

        Raises:
            InstanceBusyError: Another program holds the address.
        """
        host, port = split_address(address)
        try:
            listeners = await trio.open_tcp_listeners(port, host=None if host == "*" else host)
        except OSError as error:
            raise InstanceBusyError(
                f"{address}: cannot listen for virtual devices: {error.strerror}; "
                "if another robot is running, choose other ports with --port-base",
                address=address,
            ) from error
        with PeerTable() as peers:
            accept = functools.partial(self._accept, peers=None if is_open(address) else peers)
            await trio.serve_listeners(accept, listeners, task_status=task_status)

    async def run_device(self, link: Link) -> bool:
        """Run the device of a link; close the link and return when the device is gone.

        Returns:
            Whether a device was there.

        Raises:
            DeviceError: It did not answer, the catalog does not contain it, or another device has
                its UID.
        """
        client = SmartDeviceClient(
            link,
            self.guard,
            write_interval=self._write_interval,
            receiver=self._receiver,
            throttle=self._throttle,
            on_closing=lambda: self.brake.remove_line(link),
        )
        self.brake.add_line(link)
        failure: DeviceError | None = None
        self._clients.add(client)
        try:
            async with trio.open_nursery() as nursery:

                async def run() -> None:
                    await client.run()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(run)
                try:
                    await self._admit(client)
                    await self._admit_again(client)
                except LinkGoneError:
                    pass
                except DeviceError as error:
                    failure = error
                    nursery.cancel_scope.cancel()
        finally:
            self._clients.discard(client)
            if client.uid is not None and self.devices.get(client.uid) is client:
                del self.devices[client.uid]
                write = self._log.warning if self.guard.is_open else self._log.info
                self._log_device(write, "device disconnected", client)
        if failure is not None:
            raise failure
        return client.uid is not None

    async def disable_all(self) -> None:
        """Disable every device for good, at the end of the process.

        Takes at most 0.2 s, also if cancelled.
        """
        self.guard.close()
        with trio.move_on_after(DISABLE_TIMEOUT, shield=True), contextlib.suppress(DeviceError):
            await for_each(self._clients, lambda client: client.disable())

    async def _admit_again(self, client: SmartDeviceClient) -> NoReturn:
        """Admit a device each time that it was lost, until it is gone."""
        pause = 0.0
        while True:
            admitted = trio.current_time()
            await client.lost.wait()
            await self._lose(client)
            if client.loss in {Loss.REPLACED, Loss.RESTARTED}:
                if trio.current_time() - admitted >= STABLE_AFTER:
                    pause = 0.0
                await trio.sleep(pause)
                pause = min(max(MIN_PAUSE, 2 * pause), MAX_PAUSE)
            await self._admit(client)

    async def _admit(self, client: SmartDeviceClient) -> None:
        before = client.uid
        uid = await client.discover(self._buffers, within=self._discovery_timeout)
        while client.missing:
            is_reporting = await client.wait_reporting()
            uid = await client.discover(self._buffers, within=self._discovery_timeout)
            if is_reporting:
                break
        await self._uid_conflict.resolve(uid, client)
        self.devices[uid] = client
        # A device that was silent for a while may have missed a DEV_DISABLE.
        if before is not None or not self.guard.is_open:
            client.sender.disable()
        await client.admit()
        peripheral = client.buffer.peripheral
        what = "device answers again" if uid == before else "device connected"
        self._log_device(self._log.info, what, client)
        if peripheral.readable:
            client.read()
        if peripheral.subscribed or client.has_request:
            await self._subscribe(client)

    async def _lose(self, client: SmartDeviceClient) -> None:
        """Stop using a lost device; it is then identified again on the same line."""
        uid = client.uid
        if uid is not None and self.devices.get(uid) is client:
            del self.devices[uid]
            missing = client.buffer.peripheral.names(client.missing)
            event, remedy = client.loss.value
            self._log_device(
                self._log.warning,
                event,
                client,
                remedy=remedy,
                **({"params": missing} if missing else {}),
            )
        await client.release()

    async def _subscribe(self, client: SmartDeviceClient) -> None:
        """Subscribe to a device; token it as lost if it does not answer for seconds."""
        for tries in itertools.count(1):
            if client.lost.is_set():
                return
            with contextlib.suppress(NoAnswerError):
                await client.resubscribe(within=ANSWER_TIMEOUT * min(tries, MAX_TIMEOUT_FACTOR))
                return
            if tries == SUBSCRIBE_TRIES:
                client.mark_not_reporting(client.wanted)

    async def _resubscribe(self, client: SmartDeviceClient) -> None:
        """Restore the subscription before a session. A silent device gets it when it comes back."""
        with contextlib.suppress(DeviceError):
            await self._subscribe(client)

    async def _accept(self, stream: trio.SocketStream, *, peers: PeerTable | None) -> None:
        """Run a device that has connected over TCP, or close it if there are too many."""
        async with stream:
            if len(self._clients) < MAX_DEVICES:
                with contextlib.suppress(OSError):  # it has disconnected
                    host, port, *_ = stream.socket.getpeername()
                    if peers is not None:
                        if peers.budget.is_spent:
                            self._refusals.add(CROWDED, peer=host)
                            return
                        if not (peer := peers.peer_of(stream.socket)).trusted:
                            self._refusals.add(peer.refusal, **peer.log_context)
                            return
                    await self._run_and_log(SocketLink(stream, f"tcp://{host}:{port}", shared=True))

    async def _run_and_log(self, link: Link) -> bool:
        """Run a device and log why it was refused, once for each device.

        Return whether one was there.
        """
        try:
            return await self.run_device(link)
        except DeviceError as error:
            context = error.context
            key = (type(error), context.get("device_id"), context.get("uid"), context.get("other"))
            if key == (type(error), None, None, None):
                key = (type(error), link.name, None, None)
            if key not in self._logged_refusals:
                if len(self._logged_refusals) >= _MAX_LOGGED:
                    self._logged_refusals.clear()
                self._logged_refusals.add(key)
                self._refused.log(self._log.warning, error.message, "refused", **context)
            return False

    def _flush_log(self) -> None:
        self._throttle.flush()
        self.guard.throttle.flush()
        self._refused.flush()

    def _log_device(
        self, write: Write, event: str, client: SmartDeviceClient, **context: Any
    ) -> None:
        """Log an event of a device, within the rate."""
        about = self._identity(client.uid or 0)
        self._throttle.log(
            write, event, port=client.link.name, device=client.buffer.name, **about, **context
        )

    def _port_context(self, port: str) -> dict[str, str]:
        """Return the log context for the device of a port."""
        client = next((each for each in self._clients if each.link.name == port), None)
        if client is None or client.uid is None:
            return {"port": port}
        return {"port": port, "device": client.buffer.name, **self._identity(client.uid)}

    def _is_moving(self) -> bool:
        return self.guard.armed != 0 or any(client.sender.may_move for client in self._clients)

    def _on_braked(self) -> None:
        """End sessions after the brake has disabled every device.

        Commanders that write again and again continue; others have to start over.
        """
        self.guard.end_sessions("the brake disabled every device")

    def _on_lapse(self, ended: int, moved: int) -> None:
        """Disable the devices that were moved under the tokens in ``moved``, or every device.

        Writes under the tokens in ``ended`` are discarded.
        """
        for client in self._clients:
            if moved == ALL_TOKENS or client.sender.active_tokens & moved:
                client.sender.disable(ended)
        self.brake.note_lapse()

    def _invalidate_stale_buffers(self) -> None:
        """Invalidate the buffers of an earlier device process, and discard their pending writes."""
        for name, number in self._buffers.existing():
            if self._buffers.catalog[name].device_id is not None:
                # Damaged buffers, and names that no robot gave.
                with contextlib.suppress(DeviceBufferError, KeyError):
                    buffer = self._buffers.get_or_open(number)
                    try:
                        buffer.valid = False
                        buffer.discard_writes()
                    except BufferBusyError:
                        buffer.invalidate_without_lock()  # its writes are discarded in `admit`

    def _identity(self, uid: int) -> dict[str, str]:
        """Return the log context for a device: its UID and the name that the team gave it."""
        name = next((name for name, number in self._names.items() if number == uid), None)
        return {"uid": str(uid)} if name is None else {"uid": str(uid), "name": name}
