# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to libvirt that outlives libvirtd: a restarted daemon is found again, and so is everything it had."""

from __future__ import annotations

import time
from threading import Lock
from typing import TYPE_CHECKING, Callable, TypeVar
from urllib.parse import urlsplit

from ..._errors import VmferryError
from .errors import explained, is_disconnect, translated

if TYPE_CHECKING:
    import libvirt

Result = TypeVar("Result")
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

    def call(self, doing: str, work: Callable[[libvirt.virConnect], Result], *, patience: float = 0.0) -> Result:
        """`work` with a live connection, once more with a fresh one if the first turned out to be dead.

        So `work` must not mind being begun twice. `patience`: seconds to wait for a daemon that is down.
        """
        import libvirt

        deadline = time.monotonic() + patience
        fresh = False
        while True:
            try:
                return work(self._connected())
            except libvirt.libvirtError as error:
                if not is_disconnect(error) or (fresh and time.monotonic() >= deadline):
                    raise explained(error, doing) from error
            if fresh:
                time.sleep(PAUSE)
            fresh = True
            self.close()

    def once(self, doing: str, work: Callable[[libvirt.virConnect], Result]) -> Result:
        """`work` exactly once: for what must not be done twice."""
        self.call(doing, lambda connection: connection.getLibVersion())  # notices a daemon that was restarted
        with translated(doing):
            return work(self._connected())

    def domain(
        self, uuid: str, doing: str, work: Callable[[libvirt.virDomain], Result], patience: float = 0.0
    ) -> Result:
        """`call`, with the domain looked up anew."""
        return self.call(doing, lambda connection: work(connection.lookupByUUIDString(uuid)), patience=patience)

    def close(self) -> None:
        import libvirt

        with self._lock:
            if self._open is not None:
                try:
                    self._open.close()
                except libvirt.libvirtError as error:
                    if not is_disconnect(error):
                        raise explained(error, f"Closing {self.uri}") from error
                self._open = None

    def _connected(self) -> libvirt.virConnect:
        import libvirt

        with self._lock:
            if self._open is None:
                libvirt.registerErrorHandler(_say_nothing, None)
                self._open = libvirt.open(self.uri)
            return self._open
