# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the images of an export can be opened, as Artifact Manifest 1.0 tells it: the one thing that a copy changes.

It is for other tools, and not signed. All else stays as it is, also what this version does not know.
"""

from __future__ import annotations

import json
from typing import Callable


def with_locations(manifest: bytes, locate: Callable[[str], str]) -> bytes:
    """`manifest` is one that `read_manifest` trusts; `locate` says where a file beside it can be opened."""
    document = json.loads(manifest)
    files = {disk["id"]: disk["file"] for disk in document["x_vmferry"]["disks"]}
    for disk in document.get("disks", ()):
        if isinstance(disk, dict) and disk.get("id") in files:
            disk["local_path"] = locate(files[disk["id"]])
    return json.dumps(document, indent=1).encode() + b"\n"
