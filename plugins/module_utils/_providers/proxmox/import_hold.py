# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The sign of life of an import: its mark in the notes of the VM is written anew as long as the process lives."""

from __future__ import annotations

from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import Callable

from ..._errors import VmferryError
from ..import_mark import HELD_FOR

RENEWED_EVERY = HELD_FOR / 4  # seconds, so that some may fail


class ImportHold:
    """While the context lasts. `renew`: raises `VmferryError` where it cannot, which the next time may."""

    def __init__(self, renew: Callable[[], object]) -> None:
        self._renew, self._ended = renew, Event()
        self._keeper = Thread(target=self._keep, name="vmferry-proxmox-hold", daemon=True)

    def __enter__(self) -> ImportHold:
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """Nothing is written any more when this returns. More than once does no harm."""
        self._ended.set()
        self._keeper.join()

    def _keep(self) -> None:
        while not self._ended.wait(RENEWED_EVERY):
            with suppress(VmferryError):
                self._renew()
