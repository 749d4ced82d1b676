# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a backup job."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Callable, Iterator, Sequence

from ..._blocks import Extent, Piece
from ..._errors import VmferryError
from ..._nbd.classification import allocated, changed_since, dirty_bitmap
from ..._nbd.protocol import BASE_ALLOCATION
from ..._nbd.source import NbdSource
from ..._nbd.transport import Address
from ..spec import VmSpec
from . import backup_job
from .connection import Connection
from .leaving import END_PATIENCE

if TYPE_CHECKING:
    import libvirt

NBD_TIMEOUT = 60.0  # seconds without a byte; QEMU answers late while the guest's own disk is slow
NBD_RETRIES = 2
POWER_OFF_SEEN = 3.0  # seconds until libvirt has noticed that a QEMU is gone; measured: half a second


class PointInTime:
    """Plays BlockSource: one disk of a backup job, and the reason where that job came to an early end.

    With `bitmap`, the same disk again, of which only what the bitmap has is not `unchanged`.
    """

    def __init__(
        self,
        connection: Connection,
        vm: VmSpec,
        folder: Path,
        socket: str,
        target: str,
        check: Callable[[], None],
        bitmap: str = "",
    ) -> None:
        """`check` raises what makes reading on unwise."""
        self._connection, self._vm, self._folder, self._target = connection, vm, folder, target
        self._check = check
        self._reason: VmferryError | None = None
        self._asking = Lock()
        self._source = NbdSource(
            Address.unix(Path(socket)),
            target,
            (BASE_ALLOCATION, dirty_bitmap(bitmap)) if bitmap else (BASE_ALLOCATION,),
            changed_since(bitmap) if bitmap else allocated,
            idle_timeout=NBD_TIMEOUT,
            retries=NBD_RETRIES,
        )

    @property
    def size(self) -> int:
        return self._source.size

    def extents(self) -> Iterator[Extent]:
        self._check()
        try:
            yield from self._source.extents()
        except VmferryError as error:
            raise self._explained(error) from error

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._check()
        try:
            self._source.read_into(pieces)
        except VmferryError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        self._source.close()

    def _explained(self, error: VmferryError) -> VmferryError:
        if error.kind not in ("network", "timeout", "not_found"):
            return error
        with self._asking:  # every reader fails at once; one of them asks
            if self._reason is None:
                self._reason = self._why(error)
            return self._reason

    def _is_active(self) -> bool:
        return self._connection.domain(self._vm.id, f"Looking at {self._vm.name}", _domain_is_active, END_PATIENCE)

    def _has_job(self) -> bool:
        return backup_job.current_job(self._connection, self._vm.id) is not None

    def _why(self, error: VmferryError) -> VmferryError:
        name, target = self._vm.name, self._target
        try:
            active = self._is_active()
            deadline = time.monotonic() + POWER_OFF_SEEN
            while active and not self._was_stopped() and time.monotonic() < deadline:
                time.sleep(0.2)
                active = self._is_active()
            if active and not self._was_stopped() and self._has_job():
                return error
        except VmferryError as second:
            if second.kind != "not_found":
                return error
            active = False
        if self._was_stopped():
            return VmferryError(
                "no_space",
                f"The export of {target} of {name} was stopped: the guest wrote so much meanwhile that the scratch "
                f"folder {self._folder.parent} ran low.",
                "Set scratch_dir to a larger file system, or export while the guest writes less.",
            )
        if active:
            happened = f"The backup job of {name} was aborted by somebody else while {target} was being read."
        else:
            happened = f"{name} was powered off while {target} was being exported."
        return VmferryError("conflict", happened, "Export it again.", retryable=True)

    def _was_stopped(self) -> bool:
        """By the watchdog, which says so a moment after it ended the job."""
        return (self._folder / "stopped").exists()


def _domain_is_active(domain: libvirt.virDomain) -> bool:
    return bool(domain.isActive())
