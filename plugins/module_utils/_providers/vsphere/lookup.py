# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMs found by what users call them: a name, an inventory path, a UUID, or a MoRef."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Dict, Iterator, Sequence, Tuple
from urllib.parse import unquote

from ..._errors import VmferryError
from .places import PATHS, STEPS, Places
from .properties import Row, every, of_view, retrieve
from .session import Session

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
        self._called: Dict[Tuple[str, str], Dict[str, Row]] = defaultdict(dict)  # those called so, by MoRef
        for row in rows.values():
            if row.kind == "VirtualMachine":
                for called in self._ways(row):
                    self._called[called][row.moref] = row

    def find(self, vm: str) -> str:
        """The MoRef. Raises `not_found`, and `conflict` where several VMs are called so, in whichever ways."""
        found = {**self._called.get(("name", vm), {}), **self._called.get(("uuid", vm.lower()), {})}
        if len(found) > 1:
            raise self._ambiguous(vm, list(found.values()))
        for moref in found:
            return moref
        raise VmferryError(
            "not_found",
            f"There is no VM {vm} at {self._address}, or none that this user may see.",
            "List the VMs that are there with vmferry.migrate.vm_info.",
        )

    def _ways(self, row: Row) -> Iterator[Tuple[str, str]]:
        """UUIDs are the same in large and small letters; nothing else is."""
        path = self._places.path_of(row)
        for name in (unquote(row.get("name", "")), path, path[1:], row.moref):
            yield "name", name
        for name in ("config.instanceUuid", "config.uuid"):
            if row.get(name):
                yield "uuid", row.get(name).lower()

    def _ambiguous(self, vm: str, found: Sequence[Row]) -> VmferryError:
        paths = sorted(self._places.path_of(row) for row in found)
        more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
        return VmferryError(
            "conflict",
            f"{len(found)} VMs at {self._address} are called {vm}: {', '.join(paths[:SHOWN])}{more}.",
            "Name the one that is meant by its path, UUID or MoRef, which vm_info tells; by what no other is called.",
        )
