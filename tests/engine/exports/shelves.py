# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores with exports in them, as old as a test wants, and attempts that live or died."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import INTENT, Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import MANIFEST, Machine
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import export_id, vm_folder
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import DAY, Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import _CleanUp
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import CleanupRequest, StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

from .samples import UUID, disk, manifest

ELSEWHERE = {"hostname": "another host", "boot_id": "another boot", "pid": 7}
FILES = ("disk-0.digests", "disk-0.qcow2", "manifest.json", "native/domain.xml", "vm.json")
SIZE = 393216 + 120 + 900 + 4000  # bytes, as each manifest tells it


def identity(age: float, number: int = 0) -> str:
    """Of an export that is `age` days old."""
    return export_id(time.time() - age * DAY, f"{number:08x}")


def folder_of(export: str, vm: str = "web01", uuid: str = UUID) -> str:
    return f"{vm_folder(vm, uuid)}/{export}"


def commit(
    store: Store,
    age: float,
    *,
    vm: str = "web01",
    uuid: str = UUID,
    parent: str = "",
    number: int = 0,
    export: str = "",
    **changes: Any,
) -> str:
    """The id of an export that is `age` days old. `export`: the id that `begin` gave it."""
    made = export or identity(age, number)
    root = {"parent_root": "ab" * 32} if parent else {}
    told: dict[str, Any] = {
        "taken_at": time.time() - age * DAY,
        "machine": Machine("libvirt", uuid, vm, 1, 1024, "bios"),
        "disks": (replace(disk(), **root),),
        "mode": "incremental" if parent else "full",
        "parent": parent,
        **changes,
    }
    text = manifest(made, **told).to_json(str)
    folder = folder_of(made, vm, uuid)
    for name in FILES:
        if name != MANIFEST:
            store.put(f"{folder}/{name}", name.encode())
    store.put(f"{folder}/{MANIFEST}", text)
    return made


def begin(
    store: Store, *, parent: str = "", lease: float = 300.0, held: float = 0.0, number: int = 0, data: bool = True
) -> str:
    """The id of an export that another host makes, or died over. `lease` and `held`: seconds from now."""
    now = time.time()
    made = export_id(now, f"{number:08x}")
    intent = Intent(
        made, "b" * 32, UUID, "web01", now - 400, now + lease, ELSEWHERE, parent, held_until=now + held if held else 0.0
    )
    store.put(f"{folder_of(made)}/{INTENT}", intent.to_json())
    if data:
        store.put(f"{folder_of(made)}/disk-0.digests", b"half")
    return made


def clean_up(store: Store, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
    """The module's result. What is no field of the request is a limit or a protection."""
    own = ("vm", "tags", "purpose", "merge", "orphans", "provider", "seals")
    fields = {name: options.pop(name) for name in own if name in options}
    limits = {name: value for name, value in options.items() if name in vars(Limits())}
    others = {name: value for name, value in options.items() if name not in limits}
    protections = Protections(**{"keep_last": 0, **others})
    request = CleanupRequest(StoreSpec(store.url), Limits(**limits), protections, **fields)
    return _CleanUp(request, store, check_mode).run()


def rules(result: dict[str, Any]) -> dict[str, str]:
    return {one["id"]: one["rule"] for one in result["exports"]}


def whole(*exports: str, vm: str = "web01", uuid: str = UUID) -> list[str]:
    """The keys of these exports and no others."""
    return sorted(f"{folder_of(export, vm, uuid)}/{name}" for export in exports for name in FILES)


def keys(store: Store) -> list[str]:
    return sorted(info.key for info in store.list(""))
