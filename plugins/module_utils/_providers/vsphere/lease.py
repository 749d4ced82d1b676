# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A lease: the time in which a server lets the disks of a VM be read, or written, by HTTPS.

It ends by itself where its holder falls silent, so one that is kept is renewed, with how far the transfer is, which
vSphere shows to people (`HttpNfcLease` of the vSphere Web Services API).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Any, Callable, Mapping, Sequence, Tuple

from ..._errors import VmferryError
from .faults import explained, is_fault, is_passing, may_have_happened
from .properties import retrieve, watching
from .session import Session

READY_LIMIT = 600.0  # seconds until a lease may begin: a host that is busy lets others wait
WAIT = 5  # seconds that the server may keep a call open, and that a job which is stopped may go on to wait
RESTART = 2.0  # seconds between two looks while the server does not answer
RENEW = 15.0  # seconds; as the lease may be shorter, a quarter of it at the most
USUAL_TIMEOUT = 300.0  # seconds, where the server does not tell its own
OVER = ("ManagedObjectNotFound", "InvalidState", "Timedout")
ENDED = "Run the task again. If it ends so every time, look at the events of the VM in the vSphere Client."
_PATHS = ("state", "error", "info")


@dataclass(frozen=True)
class LeaseFile:
    """`key` names the device, as in /vm-42/ParaVirtualSCSIController0:1. `size`: bytes, 0 where it is not told."""

    key: str
    url: str
    thumbprint: str  # of the certificate of whoever serves it; empty where it is not told
    is_disk: bool
    target_id: str  # what the server would call the file
    import_key: str = ""  # of an import: what the descriptor calls it
    size: int = 0


class Lease:
    """`begin` is what begins it, with the ServiceContent. Leaving without `complete` aborts it, however it is left.

    `going_on` raises where nobody wants it any more; it is asked until the lease is ready.
    """

    def __init__(
        self,
        session: Session,
        doing: str,
        begin: Callable[[Any], Any],
        going_on: Callable[[], object] = lambda: None,
    ) -> None:
        self._session, self._doing, self._begin, self._going_on = session, doing, begin, going_on
        self._lease: Any = None
        self._percent: Callable[[], float] = lambda: 0.0
        self._ended: Callable[[], object] = lambda: None
        self._over = Event()
        self._completed = False
        self._lost: VmferryError | None = None
        self._renewer = Thread(target=self._renew, name="vmferry-lease", daemon=True)
        self.urls: Sequence[LeaseFile] = ()
        self.entity = ""  # the MoRef of the VM that is read, or made
        self.timeout = USUAL_TIMEOUT

    def __enter__(self) -> Lease:
        try:
            self._lease = self._session.once(self._doing, self._begin)
        except VmferryError as error:
            if not may_have_happened(error):
                raise
            # One that nobody knows ends by itself, with whatever it made.
            raise VmferryError(error.kind, error.message, error.hint, retryable=True) from error
        try:
            self._read(self._wait_until_ready())
        except BaseException:
            self._abort()
            raise
        self._renewer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop()
        if not self._completed:
            self._abort()

    def progress(self, percent: Callable[[], float], ended: Callable[[], object] = lambda: None) -> None:
        """From now on `percent` is asked how much is done, from 0 to 100. `ended` is told, once, where `check` raises
        from then on: a host may leave a line open on which nothing comes any more."""
        self._percent, self._ended = percent, ended

    def check(self) -> None:
        """Raises where the lease has ended before its time."""
        if self._lost is not None:
            raise self._lost

    def complete(self) -> None:
        """All was transferred. Raises where the server knows better."""
        self.check()
        self._stop()
        with suppress(VmferryError):  # what is shown to people decides nothing
            self._tell(100)
        try:
            self._end()
        except VmferryError as error:
            if not may_have_happened(error):
                raise
            if self._session.read(f"{self._doing}: ending", self._properties).get("state") != "done":
                self._end()
        self._completed = True

    def manifest(self) -> Mapping[str, Tuple[str, int]]:
        """By the keys of its files, the SHA-1 in hex and the bytes of what was sent, as far as the server tells."""
        try:
            entries = self._session.read(
                f"{self._doing}: asking for checksums", lambda _content: self._lease.HttpNfcLeaseGetManifest()
            )
        except VmferryError as error:
            if error.kind not in ("unsupported", "conflict", "internal"):
                raise
            return {}
        return {one.key: ((one.sha1 or "").lower(), int(one.size or 0)) for one in entries or ()}

    def _wait_until_ready(self) -> Mapping[str, Any]:
        deadline = time.monotonic() + READY_LIMIT
        while True:
            self._going_on()
            try:
                values = self._session.read(self._doing, self._watched)
            except VmferryError as error:
                if not is_passing(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(RESTART)
                continue
            if values.get("state") == "ready":
                return values
            if values.get("state") in ("error", "done"):
                fault = values.get("error")
                raise explained(fault, self._doing) from (fault if isinstance(fault, Exception) else None)
            if time.monotonic() >= deadline:
                text = f"{self._doing} did not begin within {READY_LIMIT:.0f} s."
                raise VmferryError("timeout", text, "Look whether the host is busy, and run the task again.")

    def _watched(self, content: Any) -> Mapping[str, Any]:
        """What it is now, or after a while in which it may have begun."""
        with watching(content, self._lease, "HttpNfcLease", "state") as wait:
            values = self._properties(content)
            if values.get("state") == "initializing":
                wait(WAIT)
                values = self._properties(content)
        return values

    def _properties(self, content: Any) -> Mapping[str, Any]:
        return retrieve(content, [self._lease], (), {"HttpNfcLease": _PATHS})[self._lease._moId].values

    def _read(self, values: Mapping[str, Any]) -> None:
        info = values["info"]
        self.entity = info.entity._moId
        self.timeout = float(info.leaseTimeout or USUAL_TIMEOUT)
        self.urls = tuple(
            LeaseFile(
                key=one.key or "",
                url=one.url,
                thumbprint=one.sslThumbprint or "",
                is_disk=bool(one.disk),
                target_id=one.targetId or "",
                import_key=one.importKey or "",
                size=int(one.fileSize or 0),
            )
            for one in info.deviceUrl or ()
        )

    def _renew(self) -> None:
        """As long as the server may not have forgotten the lease, an answer that is lost is no reason to give up."""
        pause, heard = min(RENEW, self.timeout / 4), time.monotonic()
        while not self._over.wait(pause):
            try:
                self._tell(int(max(0.0, min(99.0, self._percent()))))
                heard = time.monotonic()
            except VmferryError as error:
                gone = any(is_fault(error.__cause__, name) for name in OVER)
                if gone or time.monotonic() - heard > self.timeout:
                    text = f"{self._doing}: the lease ended before its time. {error.message}"
                    self._lost = VmferryError("timeout", text, ENDED)
                    self._ended()
                    return

    def _tell(self, percent: int) -> None:
        self._session.read(f"{self._doing}: renewing", lambda _content: self._lease.HttpNfcLeaseProgress(percent))

    def _end(self) -> None:
        self._session.once(f"{self._doing}: ending", lambda _content: self._lease.HttpNfcLeaseComplete())

    def _stop(self) -> None:
        self._over.set()
        if self._renewer.is_alive():
            self._renewer.join()

    def _abort(self) -> None:
        """It would end by itself, later."""
        try:
            self._session.read(f"{self._doing}: giving up", lambda _content: self._lease.HttpNfcLeaseAbort())
        except VmferryError:
            return
