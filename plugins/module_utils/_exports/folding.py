# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies beside a manifest while the parents of an export are merged into it: who does it, and what will be there.

Images are replaced one by one, each in one step, and the manifest after them. So while `manifest` is set, an image is
either what the manifest in the folder says, or what this one says; its own backing file's name tells which.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Optional, Tuple

from .._errors import VmferryError
from .catalog import Shelf
from .fields import Fields, lie
from .intent import Intent, read_intent
from .manifest import MANIFEST_LIMIT, DiskRecord, Manifest, read_manifest
from .seals import UNCHECKED
from .signing import Trust

FOLDING = "folding.json"
DIGESTS = ".digests"  # how the names of digest files end
FOLDING_LIMIT = 2 * MANIFEST_LIMIT  # bytes; a manifest with every quote escaped


@dataclass(frozen=True)
class Folding:
    claim: Intent  # of the run that does it
    fold_id: str  # 8 hexadecimal digits, in the names of the new digest files
    merged: Tuple[str, ...]  # ids of the exports that are merged
    manifest: bytes = b""  # that will be there; empty until all of it is known

    def to_json(self) -> bytes:
        """In one line: it is written again and again."""
        own = {"fold_id": self.fold_id, "merged": list(self.merged), "manifest": self.manifest.decode()}
        return json.dumps({**asdict(self.claim), **own}).encode() + b"\n"


def read_folding(text: bytes, where: str) -> Folding:
    """Raises `invalid_config`."""
    own = Fields.parse(text, where)
    manifest = own.all().get("manifest")
    if not isinstance(manifest, str):
        raise own.lie("has no manifest")
    return Folding(read_intent(text, where), own.hex("fold_id", 8), own.texts("merged"), manifest.encode())


def folding_in(shelf: Shelf, folder: str) -> Optional[Folding]:
    key = f"{folder}/{FOLDING}" if folder else FOLDING
    try:
        text = shelf.get(key, FOLDING_LIMIT)
    except VmferryError as error:
        if error.kind == "not_found":
            return None
        raise
    return read_folding(text, shelf.object_url(key))


def backing_of(made: Manifest, disk: DiskRecord) -> str:
    """The name of what this disk's image is a layer on, as tools find it; empty for a full one."""
    return f"../{made.parent}/{disk.file}" if made.parent else ""


def manifest_to_be(folding: Folding, made: Manifest, where: str, trust: Trust = UNCHECKED) -> Optional[Manifest]:
    """None where it is not known yet, or is there already. Raises `invalid_config` for one of other data, and
    `Untrusted`."""
    if not folding.manifest:
        return None
    will_be = read_manifest(folding.manifest, where, trust)
    if (will_be.export_id, _holds(will_be)) != (made.export_id, _holds(made)):
        raise lie(where, "belongs to another export")
    return None if will_be.parent == made.parent else will_be


def _holds(made: Manifest) -> list[Tuple[str, str, int, str]]:
    return [(disk.id, disk.file, disk.size, disk.digest_root) for disk in made.disks]


def new_digests(disk: DiskRecord, fold_id: str) -> str:
    """Beside the old ones, so that each manifest goes with its own."""
    return f"{disk.id}.{fold_id}{DIGESTS}"
