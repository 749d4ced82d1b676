# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The VM of an export, as its files beside the images describe it."""

from __future__ import annotations

from hashlib import sha256
from typing import Mapping

from ..._errors import VmferryError
from ..._exports.catalog import CatalogEntry
from ..._exports.fields import Fields, lie
from ..._providers.spec import VmSpec
from ..._stores.base import Store


def read_machine(store: Store, entry: CatalogEntry) -> tuple[VmSpec, Mapping[str, bytes]]:
    """`vm.json` and the provider's own files, each as long and as digested as the manifest says."""
    files = {}
    for stored in entry.manifest.files:
        data = store.get(entry.key(stored.path))
        if len(data) != stored.size or sha256(data).hexdigest() != stored.sha256:
            raise VmferryError(
                "checksum_mismatch",
                f"{store.object_url(entry.key(stored.path))} is not what was exported.",
                "Use another export of this VM.",
            )
        files[stored.path] = data
    where = store.object_url(entry.key("vm.json"))
    if "vm.json" not in files:
        raise lie(where, "is missing from the manifest")
    try:
        vm = VmSpec.from_dict(Fields.parse(files["vm.json"], where).all())
    except (TypeError, KeyError, AttributeError) as error:
        raise lie(where, "does not describe a VM") from error
    by_id = {disk.id: disk for disk in vm.disks}
    if any(disk.id not in by_id or by_id[disk.id].size != disk.size for disk in entry.manifest.disks):
        raise lie(where, "has other disks than the manifest")
    native = {path[len("native/") :]: data for path, data in files.items() if path.startswith("native/")}
    return vm.with_disks(tuple(by_id[disk.id] for disk in entry.manifest.disks)), native
