# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to libvirt that outlives libvirtd: a restarted daemon is found again, and so is everything it had."""

from __future__ import annotations

import time
from threading import Lock, Thread
from typing import TYPE_CHECKING, Callable, TypeVar
from urllib.parse import urlsplit

from ..._errors import VmferryError
from .errors import explained, is_disconnect, translated

if TYPE_CHECKING:
    import libvirt

Result = TypeVar("Result")
CALL_LIMIT = 120.0  # seconds; the slowest calls, such as beginning a backup of many disks, take a few
LONG_CALL_LIMIT = 900.0  # seconds for what grows with the host: a pool with thousands of volumes, a VM to be started
CLOSE_LIMIT = 5.0
PAUSE = 0.5  # seconds between two attempts to reach a daemon that restarts


def _say_nothing(_context: object, _error: object) -> None:
    """libvirt's own handler prints every error to stderr, also those that are handled."""


class Connection:
    """Connects when first asked. Objects of libvirt must not be kept: their connection may be a dead one."""

    def __init__(self, uri: str) -> None:
        if urlsplit(uri).hostname:
            raise VmferryError(
                "unsupported",
                f"{uri} is a libvirt on another host, whose disks cannot be reached from here.",
                "Delegate the task to that host and use its local URI, such as qemu:///system.",
            )
        self.uri = uri
        self._lock = Lock()
        self._open: libvirt.virConnect | None = None

    def call(
        self,
        doing: str,
        work: Callable[[libvirt.virConnect], Result],
        *,
        patience: float = 0.0,
        limit: float | None = None,
    ) -> Result:
        """`work` with a live connection, once more with a fresh one if the first turned out to be dead.

        So `work` must not mind being begun twice. `patience`: seconds to wait for a daemon that is down. `limit`:
        seconds for a daemon that is there and does not answer, `CALL_LIMIT` unless told; then it raises `timeout`.
        """
        import libvirt

        deadline = time.monotonic() + patience
        fresh = False
        while True:
            try:
                return self._limited(doing, work, limit)
            except libvirt.libvirtError as error:
                if not is_disconnect(error) or (fresh and time.monotonic() >= deadline):
                    raise explained(error, doing) from error
            if fresh:
                time.sleep(PAUSE)
            fresh = True
            self.close()

    def once(self, doing: str, work: Callable[[libvirt.virConnect], Result], limit: float | None = None) -> Result:
        """`work` exactly once: for what must not be done twice. After `timeout` or `network` it may yet happen."""
        self.call(doing, lambda connection: connection.getLibVersion())  # notices a daemon that was restarted
        with translated(doing):
            return self._limited(doing, work, limit)

    def domain(
        self, uuid: str, doing: str, work: Callable[[libvirt.virDomain], Result], patience: float = 0.0
    ) -> Result:
        """`call`, with the domain looked up anew."""
        return self.call(doing, lambda connection: work(connection.lookupByUUIDString(uuid)), patience=patience)

    def close(self) -> None:
        import libvirt

        with self._lock:
            opened, self._open = self._open, None
        if opened is None:
            return
        try:
            in_time(opened.close, CLOSE_LIMIT)
        except TooLate:
            return  # the thread that waits keeps it, and closes it should the daemon come back
        except libvirt.libvirtError as error:
            if not is_disconnect(error):
                raise explained(error, f"Closing {self.uri}") from error

    def _limited(self, doing: str, work: Callable[[libvirt.virConnect], Result], limit: float | None) -> Result:
        seconds = CALL_LIMIT if limit is None else limit
        try:
            return in_time(lambda: work(self._connected()), seconds)
        except TooLate as error:
            with self._lock:
                self._open = None  # closing it would wait too; whoever waits on it still holds it
            raise VmferryError(
                "timeout",
                f"{doing} failed: {self.uri} did not answer within {seconds:g} s.",
                "libvirtd, or virtqemud, may hang: see its log. Restarting it does not disturb running VMs.",
            ) from error

    def _connected(self) -> libvirt.virConnect:
        """Not under the lock, which nobody could have while a daemon that hangs is being connected to."""
        import libvirt

        with self._lock:
            if self._open is not None:
                return self._open
        libvirt.registerErrorHandler(_say_nothing, None)
        opened = libvirt.open(self.uri)
        with self._lock:
            if self._open is None:
                self._open = opened
            return self._open


class TooLate(Exception):
    """The work goes on, in a thread that is left behind."""


def in_time(work: Callable[[], Result], seconds: float) -> Result:
    """libvirt's own calls wait for ever for a daemon that hangs, and nothing can interrupt them."""
    result: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as error:  # noqa: BLE001  # raised again below, in the thread that asked
            errors.append(error)

    thread = Thread(target=run, name="vmferry-libvirt", daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not result:
        raise TooLate
    return result[0]
