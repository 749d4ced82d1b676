# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Change tokens: dirty bitmaps of QEMU that record from the moment of an export on, one on every disk of it.

A later export asks a copy of it what changed, so it goes on recording until that export has committed and it is
forgotten: whatever fails meanwhile, nothing of what it knows is lost. It lives in the memory of the VM's QEMU, and goes
when that ends.
"""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Sequence

from ..._errors import VmferryError
from ..spec import DiskSpec, VmSpec
from .block_nodes import all_bitmaps, block_nodes
from .keeper import Keeper, QemuRefused

TOKEN = re.compile(r"vmferry-[0-9a-f]{8}-[0-9a-f]{8}")


def tokens(keeper: Keeper, vm: VmSpec) -> List[str]:
    return sorted({name for _node, name, _told in all_bitmaps(keeper, vm) if TOKEN.fullmatch(name)})


def forget(keeper: Keeper, vm: VmSpec, unwanted: Sequence[str]) -> List[str]:
    """A sentence for each that was there."""
    said: Dict[str, str] = {}
    for node, name, _told in all_bitmaps(keeper, vm):
        if name not in unwanted or not TOKEN.fullmatch(name):
            continue
        try:
            keeper.qmp(vm.id, ("block-dirty-bitmap-remove", {"node": node, "name": name}))
        except QemuRefused as error:
            raise VmferryError("busy", f"The dirty bitmap {name} of {vm.name} is in use. {error.message}") from error
        said[name] = f"Removed the dirty bitmap {name} of {vm.name}."
    return list(said.values())


def bytes_changed(keeper: Keeper, vm: VmSpec, disks: Sequence[DiskSpec], token: str) -> Mapping[str, int]:
    """At most, by the drive's name; without those of which it cannot be told."""
    nodes = block_nodes(keeper, vm)
    known = {disk.name: nodes[disk.name] for disk in disks if disk.name in nodes}
    return {name: int(node.bitmaps[token]["count"]) for name, node in known.items() if node.can_tell(token)}
