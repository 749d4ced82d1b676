# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an import lands: the folder, pool, host, datastores and networks that a task names, found in the inventory."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence
from urllib.parse import unquote

from ..._errors import VmferryError
from ..base import Placement
from ..network_names import mapped_network
from ..spec import DiskSpec, NicSpec
from .places import is_root
from .properties import Row, Rows, every, of_view, retrieve
from .session import Session

SHOWN = 8  # names in a hint
COMPUTE = ("ClusterComputeResource", "ComputeResource")
NETWORKS = ("Network", "DistributedVirtualPortgroup", "OpaqueNetwork")
_OF_COMPUTE = ("name", "parent", "resourcePool", "datastore", "network", "host")
_CHOOSES = "configurationEx.drsConfig.enabled"
_PATHS: Mapping[str, Sequence[str]] = {
    "Datacenter": ("name", "parent", "vmFolder"),
    "Folder": ("name", "parent", "childType"),
    "ClusterComputeResource": (*_OF_COMPUTE, _CHOOSES),
    "ComputeResource": _OF_COMPUTE,
    "ResourcePool": ("name", "parent", "owner"),
    "HostSystem": ("name", "parent", "datastore", "network", "summary.config.product"),
    "Datastore": ("name", "parent", "summary.accessible", "summary.freeSpace", "summary.maintenanceMode"),
    "StoragePod": ("name", "parent", "childEntity"),
    "Network": ("name", "parent"),
    "DistributedVirtualPortgroup": ("name", "parent"),
    "OpaqueNetwork": ("name", "parent"),
}


class ImportPlaces:
    """Read in one call. Whatever is asked of it raises `not_found`, `conflict` or `invalid_config` where the task names
    what is not there, what several are called, or too little."""

    def __init__(self, session: Session, placement: Placement) -> None:
        def work(content: Any) -> Rows:
            with every(content, *_PATHS) as view:
                return retrieve(content, [view], of_view(), _PATHS)

        self._rows = session.read("Looking where VMs can go", work)
        self._placement, self._address = placement, session.address

    @property
    def compute(self) -> Row:
        """The cluster, or the host that is in none."""
        given = self._placement
        named = [row for row in (self._pool_given(), self._cluster_given(), self._host_given()) if row is not None]
        owners = {owner.moref: owner for owner in map(self._owner, named) if owner is not None}
        if len(owners) > 1:
            what = " and ".join(word for word in (given.resource_pool, given.cluster, given.host) if word)
            raise VmferryError(
                "invalid_config", f"{what} are not of the same cluster or host.", "Leave out all but the one meant."
            )
        for owner in owners.values():
            return owner
        here = self._datacenter_given()
        found = [row for row in self._of(COMPUTE) if here is None or self._datacenter(row) is here]
        if len(found) != 1:
            text = "Nothing says on which cluster, host or resource pool the VM is to run"
            text += ", and there is none." if not found else f", and there are {len(found)}."
            hint = f"Set placement.cluster, placement.host or placement.resource_pool; there are {_names(found)}."
            raise VmferryError("invalid_config", text, hint if found else "")
        return found[0]

    @property
    def pool(self) -> str:
        """Its MoRef, as of all that follow."""
        given = self._pool_given()
        return given.moref if given is not None else _moref(self.compute.get("resourcePool"))

    @property
    def host(self) -> str:
        """Empty where vSphere chooses among those of a cluster, as it does with DRS (ResourcePool.ImportVApp)."""
        given = self._host_given()
        if given is not None:
            return given.moref
        hosts = self._rows_of(self.compute.get("host"))
        if self.compute.get(_CHOOSES) is not False:
            return ""
        if len(hosts) != 1:
            text = f"{name_of(self.compute)} has no DRS, which would choose a host for the VM."
            raise VmferryError("invalid_config", text, f"Set placement.host; there are {_names(hosts)}.")
        return hosts[0].moref

    @property
    def folder(self) -> str:
        folder = self._folder_given()
        here = self._datacenter(self.compute)
        if folder is None:
            if here is None:
                raise VmferryError(
                    "permission_denied", "The user does not see the datacenter.", "Set placement.folder."
                )
            return _moref(here.get("vmFolder"))
        if here is not None and self._datacenter(folder) is not here:
            text = f"{self._path(folder)} is in another datacenter than {self._path(self.compute)}."
            raise VmferryError("invalid_config", text, "Set placement.cluster, host or resource_pool to one in it.")
        return folder.moref

    def folder_of_name(self) -> str:
        """The folder in which the name must be free, or '' where nothing says it: then no VM may have it."""
        folder = self._folder_given()
        return folder.moref if folder is not None else ""

    def path_of(self, moref: str) -> str:
        return self._path(self._rows[moref]) if moref in self._rows else moref

    def versions(self) -> Iterator[str]:
        """Of the API that the hosts speak on which it may run."""
        host = self._host_given()
        for row in [host] if host is not None else self._rows_of(self.compute.get("host")):
            product = row.get("summary.config.product")
            if product is not None and product.apiVersion:
                yield str(product.apiVersion)

    def datastore_of(self, disk: DiskSpec) -> Row:
        mapped = self._placement.storage_map
        return self._datastore(mapped.get(disk.id) or mapped.get(disk.name) or self._placement.storage)

    def home(self) -> Row:
        """The datastore of the VM's own files."""
        return self._datastore(self._placement.storage)

    def network_of(self, nic: NicSpec) -> Row:
        wanted = mapped_network(nic, self._placement) or nic.network
        reachable = self._rows_of(self._reach("network"))
        found = _called(reachable, wanted) or [row for row in reachable if self._path(row) in (wanted, f"/{wanted}")]
        if len(found) == 1:
            return found[0]
        if found:
            text = f"{len(found)} networks are called {wanted}."
            hint = f"Name the one for {nic.id} by its MoRef with network_map: {_morefs(found)}."
            raise VmferryError("conflict", text, hint)
        text = f"There is no network {wanted or '(without a name)'} for {nic.id} at {name_of(self.compute)}."
        raise VmferryError("not_found", text, f"Map it with network_map; there are {_names(reachable)}.")

    # --- what the task names ------------------------------------------------------------------------------------------

    def _pool_given(self) -> Row | None:
        return self._given(("ResourcePool",), self._placement.resource_pool, "resource pool")

    def _cluster_given(self) -> Row | None:
        return self._given(COMPUTE, self._placement.cluster, "cluster")

    def _host_given(self) -> Row | None:
        return self._given(("HostSystem",), self._placement.host, "host")

    def _folder_given(self) -> Row | None:
        folder = self._given(("Folder",), self._placement.folder, "folder")
        if folder is not None and not _takes_vms(folder):
            text = f"{self._path(folder)} is a folder, but none of VMs."
            raise VmferryError("invalid_config", text, "Give one below the folder vm of a datacenter, as /DC0/vm/Prod.")
        return folder

    def _datacenter_given(self) -> Row | None:
        folder = self._folder_given()
        return self._datacenter(folder) if folder is not None else None

    def _given(self, kinds: Sequence[str], wanted: str, what: str) -> Row | None:
        """None where the task says nothing."""
        return self._named(kinds, wanted, what) if wanted else None

    def _named(self, kinds: Sequence[str], wanted: str, what: str) -> Row:
        """By MoRef, path, or name."""
        rows = self._of(kinds)
        found = [row for row in rows if wanted in (row.moref, self._path(row), self._path(row)[1:])]
        found = found or _called(rows, wanted)
        if len(found) == 1:
            return found[0]
        if found:
            paths = ", ".join(sorted(self._path(row) for row in found)[:SHOWN])
            raise VmferryError(
                "conflict", f"There are {len(found)} of the {what} {wanted}.", f"Give its path: {paths}."
            )
        text = f"There is no {what} {wanted} at {self._address}, or none that this user may see."
        fit = [row for row in rows if row.kind != "Folder" or _takes_vms(row)]
        raise VmferryError("not_found", text, f"There are {_names(fit)}." if fit else "")

    def _datastore(self, wanted: str) -> Row:
        reachable = self._rows_of(self._reach("datastore"))
        usable = [row for row in reachable if _is_usable(row)]
        if not wanted:
            if len(usable) == 1:
                return usable[0]
            text = f"{name_of(self.compute)} has {len(usable)} datastores, and nothing says which one to use."
            hint = f"Set placement.storage to one of {_names(usable)}." if usable else "Connect a datastore."
            raise VmferryError("invalid_config", text, hint)
        store = self._named(("Datastore", "StoragePod"), wanted, "datastore or datastore cluster")
        if store.kind == "StoragePod":
            members = {row.moref for row in self._rows_of(store.get("childEntity"))}
            usable = [row for row in usable if row.moref in members]
            if not usable:
                text = f"No datastore of the datastore cluster {wanted} can be used from {name_of(self.compute)}."
                raise VmferryError("not_found", text, "Choose another, or end the maintenance of its datastores.")
            return max(usable, key=lambda row: int(row.get("summary.freeSpace") or 0))
        if store.moref not in {row.moref for row in reachable}:
            text = f"The datastore {wanted} is not connected to {name_of(self.compute)}."
            raise VmferryError("invalid_config", text, f"Use one of {_names(usable)}.")
        if not _is_usable(store):
            text = f"The datastore {wanted} is not accessible, or in maintenance."
            raise VmferryError("conflict", text, f"Use one of {_names(usable)}." if usable else "")
        return store

    def _reach(self, what: str) -> Sequence[Any]:
        """References to the datastores, or networks, of where it runs."""
        host = self._host_given()
        return (host if host is not None else self.compute).get(what) or ()

    # --- the inventory ------------------------------------------------------------------------------------------------

    def _of(self, kinds: Sequence[str]) -> list[Row]:
        return [row for row in self._rows.values() if row.kind in kinds]

    def _rows_of(self, references: Sequence[Any] | None) -> list[Row]:
        return [self._rows[one._moId] for one in references or () if one._moId in self._rows]

    def _owner(self, row: Row) -> Row | None:
        if row.kind in COMPUTE:
            return row
        return self._rows.get(_moref(row.get("owner") or row.get("parent")))

    def _datacenter(self, row: Row) -> Row | None:
        return next((one for one in self._above(row) if one.kind == "Datacenter"), None)

    def _above(self, row: Row) -> Iterator[Row]:
        above = self._rows.get(_moref(row.get("parent")))
        while above is not None:
            yield above
            above = self._rows.get(_moref(above.get("parent")))

    def _path(self, row: Row) -> str:
        above = [one for one in self._above(row) if not is_root(one)]
        return "".join(f"/{name_of(one)}" for one in [*reversed(above), row])


def name_of(row: Row) -> str:
    return unquote(row.get("name", ""))


def _takes_vms(folder: Row) -> bool:
    return "VirtualMachine" in (folder.get("childType") or ())


def _called(rows: Sequence[Row], wanted: str) -> list[Row]:
    found = [row for row in rows if row.moref == wanted]
    return found or [row for row in rows if name_of(row) == wanted]


def _is_usable(row: Row) -> bool:
    return bool(row.get("summary.accessible", True)) and (row.get("summary.maintenanceMode") or "normal") == "normal"


def _names(rows: Sequence[Row]) -> str:
    names = sorted(name_of(row) for row in rows)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"


def _morefs(rows: Sequence[Row]) -> str:
    return ", ".join(sorted(row.moref for row in rows))


def _moref(reference: Any) -> str:
    return reference._moId if reference is not None else ""
