# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksums of whole images that Artifact Manifest 1.0 can carry, and that only a look at what was stored can tell.

Nothing of ours relies on them: an export is proved by `x_vmferry` alone, and what is read of a manifest is the same
with them and without.
"""

from __future__ import annotations

import json
from typing import Mapping, Optional


def with_checksums(manifest: bytes, sums: Mapping[str, str]) -> Optional[bytes]:
    """All else stays as it is. `sums`: SHA-256 in hex, by the disk's id. None where it says all of that already.

    `manifest` is one that `read_manifest` trusts.
    """
    document = json.loads(manifest)
    changed = False
    for disk in document.get("disks", ()):
        checksum = f"sha256:{sums[disk['id']]}" if disk.get("id") in sums else disk.get("checksum")
        if disk.get("checksum") != checksum:
            disk["checksum"], changed = checksum, True
    return json.dumps(document, indent=1).encode() + b"\n" if changed else None
