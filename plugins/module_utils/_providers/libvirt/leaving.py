# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How an export leaves its VM: as it was, but for a token that is to be kept."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ..._errors import VmferryError
from ..._transfer.failpoints import failpoint
from . import backup_job, checkpoints
from .connection import Connection
from .guest_freeze import PersistentThaw
from .watchdog_launcher import WatchdogProcess
from .work_folder import WorkFolder

STOPPED = "stopped"  # the file in which the watchdog says so
END_PATIENCE = 20.0  # seconds for a libvirtd that is down when the job has to be ended; then the watchdog waits


class Leaving:
    """Undoes in the one safe order: the job, its checkpoint, its files, then the watchdog, which stays where that did
    not succeed.
    """

    def __init__(self, connection: Connection, uuid: str, folder: WorkFolder, warnings: list[str]) -> None:
        self._connection, self._uuid, self._folder, self._warnings = connection, uuid, folder, warnings
        self.socket = self._token = ""
        self.watchdog: WatchdogProcess | None = None
        self._frozen = self._beginning = False
        self._thaw: PersistentThaw | None = None

    @property
    def was_stopped(self) -> bool:
        """By the watchdog, since the scratch ran low."""
        return (self._folder.path / STOPPED).exists()

    def tell(self, event: str) -> None:
        self._frozen = {"freeze": True, "thawed": False}.get(event, self._frozen)
        self._beginning = {"begin": True, "begun": False}.get(event, self._beginning)
        if self.watchdog is not None:
            self.watchdog.tell(event)

    def will_make(self, token: str) -> None:
        """A checkpoint and its bitmaps: they go again, unless `keep` comes first."""
        self._folder.will_make(checkpoint=token)
        self._token = token

    def keep_token(self) -> None:
        """Everybody who would remove it knows when this returns."""
        if self._token:
            self._folder.has_made(kept=self._token)
            self.tell("kept")
            self._token = ""

    def thaw_if_frozen(self, vm_name: str) -> None:
        """The export goes on; a guest whose freeze came true after all must not wait until it is over."""
        if self._frozen:
            self._thaw = PersistentThaw(self._connection, self._uuid, vm_name, self.tell)

    def leave(self, stays: bool) -> None:
        """`stays`: everything, for another run to take over."""
        if self._thaw is not None:
            self._thaw.stop()
        if stays:
            self._folder.release()
            if self.watchdog is not None:
                self.watchdog.abandon()
            return
        try:
            if self.socket:
                backup_job.end(self._connection, self._uuid, self.socket, END_PATIENCE)
            if self._frozen:
                raise VmferryError("internal", "The guest could not be thawed.")
            if self._beginning:
                raise VmferryError("internal", "A backup job may still begin.")
            if self._token:
                checkpoints.remove(self._connection, self._uuid, self._token, END_PATIENCE)
            failpoint("job_ended")
            self._folder.remove()
            if self.socket:
                with suppress(FileNotFoundError):
                    Path(self.socket).unlink()
        except (VmferryError, OSError) as error:
            # What was read is right; libvirt is only away, or late. The watchdog goes on until nothing can follow.
            if self.watchdog is None:
                raise
            self._warnings.append(f"What the export made on this host is left to its watchdog to undo. {error}")
            self.watchdog.abandon()
            return
        if self.watchdog is not None:
            self.watchdog.finish()
