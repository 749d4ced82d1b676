# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time of a VM in the simulator, one after another, as exports take them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.spec import VmSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.change_token import token_of
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.describe import describe_these
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.frozen_disks import (
    FrozenDisks,
    frozen_disks,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.settings import VsphereSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.vsphere.tasks import run_task
from rigs.vsphere import Disk, VSphere

LEAF = 65536
_numbers = itertools.count()


class Points:
    """One VM. A point in time that is taken takes the place of the one before."""

    def __init__(
        self, vcenter: VSphere, settings: Mapping[str, Any], disks: Sequence[bytes | Disk], **hardware: Any
    ) -> None:
        self.vcenter, self.settings = vcenter, VsphereSettings.from_options(settings)
        self.session = Session(self.settings)
        self.name = f"points-{next(_numbers)}"
        self.moref = vcenter.make_vm(self.name, disks, **{"running": True, "tracking": True, **hardware})
        self.machine = self.session.managed("VirtualMachine", self.moref)
        self.taken: Any = None

    def close(self) -> None:
        """Others look at what is left on the server."""
        self.vcenter.heal()
        self._done(lambda _content: self.machine.RemoveAllSnapshots_Task())
        self.session.close()

    def vm(self) -> VmSpec:
        return describe_these(self.session, [self.moref], "Describing it")[0]

    def write(self, offset: int, data: bytes, disk: int = 0) -> None:
        self.vcenter.write(self.moref, disk, offset, data)

    def bytes_now(self, disk: int = 0) -> bytes:
        return self.vcenter.disk_bytes(self.moref, disk)

    def snapshot(self, name: str = "point") -> Any:
        return self._done(lambda _content: self.machine.CreateSnapshot_Task(name, "", False, False))

    def remove(self, snapshot: Any) -> None:
        self._done(lambda _content: snapshot.RemoveSnapshot_Task(removeChildren=False, consolidate=True))

    def take(self) -> FrozenDisks:
        if self.taken is not None:
            self.remove(self.taken)
        self.taken = self.snapshot()
        return self.frozen(self.taken)

    def frozen(self, snapshot: Any) -> FrozenDisks:
        return frozen_disks(self.session, self.moref, snapshot._moId, "Looking at it")

    def halt(self) -> None:
        self.remove(self.snapshot("halt"))

    def revert(self, snapshot: Any) -> None:
        self._done(lambda _content: snapshot.RevertToSnapshot_Task())

    def reconfigure(self, spec: Any) -> None:
        self._done(lambda _content: self.machine.ReconfigVM_Task(spec))

    def _done(self, begin: Any) -> Any:
        return run_task(self.session, "Working on it", begin, 60.0)


def whole_token(frozen: FrozenDisks) -> str:
    return token_of("0badc0de", frozen, list(frozen.disks))


def data_in(extents: Sequence[Extent]) -> list[tuple[int, int]]:
    return [(one.offset, one.length) for one in extents if one.kind == "data"]
