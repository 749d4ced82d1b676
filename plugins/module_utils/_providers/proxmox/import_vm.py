# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VM that an import makes: created with empty disks under the name of its job, and at last given its own.

Its notes say whose work it is from the first moment on, so that what is left of a dead job is found by them.
"""

from __future__ import annotations

import time
from typing import Any, List, Mapping, Sequence

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..import_mark import UNFINISHED, WHOLE, ImportMark, mark_in, notes_of, with_mark
from .drives import drive_of
from .import_config import ImportPlan, fitting_notes
from .import_leftovers import UNDO_PATIENCE, destroy_own, name_of
from .session import Session, part

CREATE_LIMIT = 3600.0  # seconds: a storage may fill a new volume before it is there
TRIES = 5  # at a vmid that was free when it was asked for
SETTLE_PATIENCE = 120.0  # seconds for which the last step is asked for again where the line broke
SETTLE_AGAIN = 2.0  # seconds
_TAKEN = "already exists"


class ImportedVm:
    def __init__(self, session: Session, plan: ImportPlan, mark: ImportMark, flow: Flow) -> None:
        self._session, self._plan, self._flow = session, plan, flow
        self._mark = mark
        self.vmid = 0  # none was asked for yet
        self._made: Mapping[str, Any] = {}  # its configuration, when it was new

    @property
    def path(self) -> str:
        """Of its node's API."""
        return f"nodes/{part(self._plan.node)}/qemu/{self.vmid}"

    @property
    def volumes(self) -> Sequence[str]:
        """Ids, in the order of the VM's disks."""
        return self._volumes_in(self._made)

    def volume(self, key: str) -> str:
        """The id of the machine's own one."""
        return drive_of(key, self._made.get(key)).volume.text

    def create(self) -> List[str]:
        """Warnings of Proxmox VE. Raises `conflict` where the vmid is taken that the task wants."""
        given = self._plan.placement.vmid
        for left in reversed(range(TRIES)):
            self.vmid = given or self._next_free()
            try:
                warnings = self._create()
            except VmferryError as error:
                if given or not left or error.kind != "conflict" or _TAKEN not in error.message:
                    raise
                continue  # somebody else was faster
            self._made = self._config()
            return warnings
        raise VmferryError("internal", "The last try returns or raises.")

    def renew(self) -> None:
        """The sign of life."""
        self._put(description=self._notes(UNFINISHED))

    def settle(self) -> None:
        """Make it whole: with its own name, and notes that say of what it is made. Raises `conflict` where it is not as
        it was made any more."""
        deadline = time.monotonic() + SETTLE_PATIENCE
        while True:
            try:
                config = self._config()
                if self._is_whole(config):
                    return  # the answer was lost
                self._insist_on_untouched(config)
                name, notes = self._plan.placement.name, self._notes(WHOLE)
                self._put(name=name, description=notes, digest=str(config.get("digest", "")))
                return
            except VmferryError as error:
                passing = error.kind in ("network", "timeout", "busy")
                if not passing or time.monotonic() >= deadline:
                    raise
            self._flow.sleep(SETTLE_AGAIN)

    def remove(self) -> Sequence[str]:
        """With all that was made for it. What Proxmox VE warns of; what was never made, or is gone already, is no
        error."""
        if not self.vmid:
            return ()
        return destroy_own(self._session, self._mark, self._plan.node, self.vmid, UNDO_PATIENCE)

    def _next_free(self) -> int:
        with self._session.doing("Asking for a vmid"):
            return int(self._session.get("cluster/nextid"))

    def _create(self) -> List[str]:
        parameters = self._plan.parameters(
            self.vmid, name_of(self._mark.job, self._mark.attempt), self._notes(UNFINISHED)
        )
        where = f"nodes/{part(self._plan.node)}/qemu"
        doing = f"Making {self._plan.placement.name}"
        return self._session.run(doing, lambda: self._session.post(where, **parameters), CREATE_LIMIT)

    def _config(self) -> Mapping[str, Any]:
        with self._session.doing(f"Reading the configuration of {self._plan.placement.name}"):
            found: Mapping[str, Any] = self._session.get(f"{self.path}/config")
        return found

    def _put(self, **changes: Any) -> None:
        with self._session.doing(f"Settling {self._plan.placement.name}"):
            self._session.put(f"{self.path}/config", **changes)

    def _volumes_in(self, config: Mapping[str, Any]) -> List[str]:
        return [drive_of(one.drive, config.get(one.drive)).volume.text for one in self._plan.drives.disks]

    def _is_whole(self, config: Mapping[str, Any]) -> bool:
        mark = mark_in(str(config.get("description") or ""))
        return mark is not None and mark.attempt == self._mark.attempt and mark.state == WHOLE

    def _insist_on_untouched(self, config: Mapping[str, Any]) -> None:
        """Somebody who starts it, or changes its disks, does not know that it is not whole."""
        mark = mark_in(str(config.get("description") or ""))
        with self._session.doing(f"Looking at {self._plan.placement.name}"):
            status = str(self._session.get(f"{self.path}/status/current").get("status"))
        is_ours = mark is not None and mark.attempt == self._mark.attempt
        if is_ours and status == "stopped" and self._volumes_in(config) == self.volumes:
            return
        text = f"VM {self.vmid} on {self._plan.node}, of which {self._plan.placement.name} was being made, "
        text += "was started meanwhile." if status != "stopped" else "was changed by somebody else meanwhile."
        raise VmferryError("conflict", text, "Run the import again, and leave its VM alone until it has its own name.")

    def _notes(self, state: str) -> str:
        mark = (self._mark.held() if state == UNFINISHED else self._mark).text(state)
        return with_mark(fitting_notes(notes_of(self._plan.vm.details), mark), mark)
