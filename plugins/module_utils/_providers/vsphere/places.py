# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a VM lies: its path, datacenter and cluster, and the names of what it refers to."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import unquote

from .properties import Row, Rows, Step

_UP = Step("ManagedEntity", "parent", again=True)
# From a VM to all that has a name, in the same round trip.
STEPS: Sequence[Step] = (
    _UP,
    Step("VirtualMachine", "parentVApp", (Step("VirtualApp", "parentFolder", (_UP,)), _UP)),
    Step("VirtualMachine", "runtime.host", (_UP,)),
    Step("VirtualMachine", "resourcePool"),
    Step("VirtualMachine", "datastore"),
    Step("VirtualMachine", "network"),
)
_NAMED = ("name", "parent")
PATHS: Mapping[str, Sequence[str]] = {
    "ClusterComputeResource": _NAMED,
    "ComputeResource": _NAMED,
    "Datacenter": _NAMED,
    "Datastore": ("name", "summary.type"),
    "DistributedVirtualPortgroup": ("name", "key"),
    "Folder": _NAMED,
    "HostSystem": _NAMED,
    "Network": ("name",),
    "OpaqueNetwork": ("name", "summary"),
    "ResourcePool": _NAMED,
    "VirtualApp": ("name", "parent", "parentFolder"),
}


class Places:
    """Names are as vSphere keeps them in a path, where / is %2f, and as people wrote them everywhere else."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.storage_kinds = {
            row.moref: str(row.get("summary.type", "")) for row in rows.values() if row.kind == "Datastore"
        }
        self.networks = dict(self._networks())

    def path_of(self, vm: Row) -> str:
        """From the datacenter on: /DC0/vm/Prod/web01. Shorter by what the user may not see."""
        above = [row for row in self._above(vm) if not is_root(row)]
        return "".join(f"/{row.get('name', '')}" for row in [*reversed(above), vm])

    def datacenter_of(self, vm: Row) -> str:
        return next((_name(row) for row in self._above(vm) if row.kind == "Datacenter"), "")

    def cluster_of(self, vm: Row) -> str:
        host = self._row(vm.get("runtime.host"))
        above = self._row(host.get("parent")) if host is not None else None
        return _name(above) if above is not None and above.kind == "ClusterComputeResource" else ""

    def name_of(self, reference: Any) -> str:
        row = self._row(reference)
        return _name(row) if row is not None else ""

    def _row(self, reference: Any) -> Row | None:
        return self._rows.get(reference._moId) if reference is not None else None

    def _above(self, row: Row) -> Iterator[Row]:
        """A vApp lies among resource pools, and those that are in no other also in a folder, as VMs do."""
        seen = {row.moref}
        while True:
            above = self._row(row.get("parentVApp") or row.get("parentFolder") or row.get("parent"))
            if above is None or above.moref in seen:
                return
            seen.add(above.moref)
            row = above
            yield row

    def _networks(self) -> Iterator[tuple[str, str]]:
        for row in self._rows.values():
            if row.kind in ("Network", "DistributedVirtualPortgroup", "OpaqueNetwork"):
                yield row.moref, _name(row)
                summary = row.get("summary")
                for key in (row.get("key"), getattr(summary, "opaqueNetworkId", None)):
                    if key:
                        yield key, _name(row)


def _name(row: Row) -> str:
    return unquote(row.get("name", ""))


def is_root(row: Row) -> bool:
    return row.kind == "Folder" and row.get("parent") is None and row.moref in ("group-d1", "ha-folder-root")
