# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs found by what users call them: a name, an inventory path, a UUID, or a MoRef."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any, Dict, List, Sequence
from urllib.parse import unquote

from ..._errors import VmferryError
from .places import PATHS, STEPS, Places
from .properties import Row, every, of_view, retrieve
from .session import Session

UUID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
MOREF = re.compile(r"vm-\d+|\d+")  # of vCenter, of ESXi
SHOWN = 5  # of VMs that have the same name
_IDENTITY = ("name", "config.instanceUuid", "config.uuid", "parent", "parentVApp")
_ABOVE = STEPS[:2]  # what a path is made of


class Lookup:
    """Of all VMs that the session may see: read once, and asked for each name."""

    def __init__(self, session: Session) -> None:
        def work(content: Any) -> Any:
            with every(content, "VirtualMachine") as view:
                return retrieve(content, [view], of_view(_ABOVE), {**PATHS, "VirtualMachine": _IDENTITY})

        rows = session.read("Looking the VMs up", work)
        self._address = session.address
        self._places = Places(rows)
        self._morefs = {row.moref for row in rows.values() if row.kind == "VirtualMachine"}
        self._by: Dict[str, Dict[str, List[Row]]] = defaultdict(lambda: defaultdict(list))
        for row in rows.values():
            if row.kind == "VirtualMachine":
                self._add(row)

    def find(self, vm: str) -> str:
        """The MoRef. Raises `not_found`, and `conflict` where several VMs are called so."""
        for way, called in self._ways(vm):
            found = self._by[way].get(called, [])
            if len(found) > 1:
                raise self._ambiguous(vm, found)
            if found:
                return found[0].moref
        if MOREF.fullmatch(vm) and vm in self._morefs:
            return vm
        raise VmferryError(
            "not_found",
            f"There is no VM {vm} at {self._address}, or none that this user may see.",
            "List the VMs that are there with vmferry.migrate.vm_info.",
        )

    def _add(self, row: Row) -> None:
        self._by["name"][unquote(row.get("name", ""))].append(row)
        self._by["path"][self._places.path_of(row)].append(row)
        for way in ("config.instanceUuid", "config.uuid"):
            if row.get(way):
                self._by[way][row.get(way).lower()].append(row)

    def _ways(self, vm: str) -> Sequence[tuple[str, str]]:
        if UUID.fullmatch(vm):  # that of vCenter first: a copied VM may share that of its BIOS
            return [("config.instanceUuid", vm.lower()), ("config.uuid", vm.lower()), ("name", vm)]
        return [("path", vm), ("name", vm), ("path", f"/{vm}")]

    def _ambiguous(self, vm: str, found: Sequence[Row]) -> VmferryError:
        paths = sorted(self._places.path_of(row) for row in found)
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        return VmferryError(
            "conflict",
            f"{len(found)} VMs at {self._address} are called {vm}: {', '.join(paths[:SHOWN])}{more}.",
            "Name the one that is meant by its path, or by its UUID or MoRef, which vm_info tells.",
        )
