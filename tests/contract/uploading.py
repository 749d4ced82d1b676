# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects sent as callers send them: in parts, proved to be there."""

from __future__ import annotations

from collections.abc import Sequence

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part, PartReceipt, PartWriter
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store


def send(writer: PartWriter, part: Part, data: bytes) -> PartReceipt:
    """`data`: of the whole object."""
    return PartReceipt(part, b"", writer.write_part(part, memoryview(data)[part.offset : part.offset + part.size]))


def begun(store: Store, key: str, data: bytes, parts: Sequence[Part]) -> tuple[PartWriter, list[PartReceipt]]:
    """All but complete."""
    writer = store.open_parts(key)
    return writer, [send(writer, part, data) for part in parts]


def upload(store: Store, key: str, data: bytes, parts: Sequence[Part]) -> None:
    writer, receipts = begun(store, key, data, parts)
    writer.complete(receipts, len(data))
    assert store.get(key) == data


def exercise(store: Store, data: bytes, parts: Sequence[Part]) -> None:
    """Puts, uploads in parts, lists, reads and deletes; what is read is what was written."""
    store.put("vm/manifest.json", b"{}")
    upload(store, "vm/disk-0.qcow2", data, parts)
    assert [info.key for info in store.list("")] == ["vm/disk-0.qcow2", "vm/manifest.json"]
    assert store.get("vm/manifest.json") == b"{}"
    store.delete("vm/manifest.json")
