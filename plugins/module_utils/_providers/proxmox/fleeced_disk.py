# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One disk of a VM that runs, as it was when the export began."""

from __future__ import annotations

import time
from threading import Lock
from typing import Iterator, Sequence

from ..._blocks import Extent, Piece
from ..._errors import VmferryError
from ..._nbd.classification import allocated, changed_since, dirty_bitmap
from ..._nbd.protocol import BASE_ALLOCATION
from ..._nbd.source import NbdSource
from ..._nbd.transport import Address
from ..spec import VmSpec
from .describe import describe_again
from .export_session import is_off
from .fleecing import Fleecing
from .offline_disk import NBD_RETRIES, NBD_TIMEOUT
from .session import Session

POWER_OFF_SEEN = 3.0  # seconds until Proxmox VE has noticed that a QEMU is gone


class FleecedDisk:
    """Plays BlockSource, and tells why where that came to an early end.

    With `bitmap`, the same disk again, of which only what the bitmap has is not `unchanged`.
    """

    def __init__(
        self, session: Session, vm: VmSpec, fleecing: Fleecing, address: Address, drive: str, bitmap: str = ""
    ) -> None:
        self._session, self._vm, self._fleecing, self._drive = session, vm, fleecing, drive
        self._asking = Lock()
        self._reason: VmferryError | None = None
        self._source = NbdSource(
            address,
            drive,
            (BASE_ALLOCATION, dirty_bitmap(bitmap)) if bitmap else (BASE_ALLOCATION,),
            changed_since(bitmap) if bitmap else allocated,
            idle_timeout=NBD_TIMEOUT,
            retries=NBD_RETRIES,
        )

    @property
    def size(self) -> int:
        return self._source.size

    def extents(self) -> Iterator[Extent]:
        try:
            yield from self._source.extents()
        except VmferryError as error:
            raise self._explained(error) from error

    def read_into(self, pieces: Sequence[Piece]) -> None:
        try:
            self._source.read_into(pieces)
        except VmferryError as error:
            raise self._explained(error) from error

    def close(self) -> None:
        self._source.close()

    def _explained(self, error: VmferryError) -> VmferryError:
        if error.kind == "cancelled":
            return error
        with self._asking:  # every reader fails at once; one of them asks
            if self._reason is None:
                self._reason = self._why(error)
            return self._reason

    def _why(self, error: VmferryError) -> VmferryError:
        name, drive = self._vm.name, self._drive
        try:
            if self._fleecing.stopped():
                return VmferryError(
                    "no_space",
                    f"The export of {drive} of {name} was stopped: the guest wrote so much meanwhile that the storage "
                    "which keeps what it overwrites ran low.",
                    "Set proxmox.fleecing_storage to one with more room, or export while the guest writes less.",
                )
            deadline = time.monotonic() + POWER_OFF_SEEN
            while not is_off(describe_again(self._session, self._vm)):
                if time.monotonic() > deadline:
                    return error
                time.sleep(0.3)
        except VmferryError:
            return error
        text = f"{name} was powered off while {drive} was being exported."
        return VmferryError("conflict", text, "Export it again.", retryable=True)
