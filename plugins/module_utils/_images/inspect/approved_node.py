# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What QEMU is told to open, once an image was inspected: every node by its driver, and nothing that a header names."""

from __future__ import annotations

from typing import Any, Dict, FrozenSet, Mapping

from .words import Description, Objection, refusal

DRIVERS: Mapping[str, str] = {
    "qcow2": "qcow2",
    "qcow": "qcow",
    "qed": "qed",
    "vdi": "vdi",
    "vmdk": "vmdk",
    "vhd": "vpc",
    "vhdx": "vhdx",
    "raw": "raw",
}
# That QEMU cannot be kept from following, or would follow before it could be told not to.
_NEVER: FrozenSet[Objection] = frozenset({"data_file", "extents", "outside"})


def approved_node(
    found: Description,
    filename: str,
    where: str,
    *,
    despite: FrozenSet[Objection] = frozenset(),
    is_block_device: bool = False,
) -> Dict[str, Any]:
    """As `blockdev-add` takes it, read-only, without a backing file; raises what `found.approve` does.

    `despite`: objections that do not count. With `backing_file`, what the image shows without one is opened.
    """
    found.approve(where, despite=despite - _NEVER)
    if found.format not in DRIVERS:
        raise refusal("archive", f"is an archive ({found.format}), which QEMU does not read", where)
    file = {"driver": "host_device" if is_block_device else "file", "filename": filename, "read-only": True}
    node: Dict[str, Any] = {"driver": DRIVERS[found.format], "read-only": True, "file": file}
    if found.format != "raw":
        node["backing"] = None
    if found.format == "vhd":
        node["force_size_calc"] = "current_size"  # not the geometry, which is rounded
    return node
