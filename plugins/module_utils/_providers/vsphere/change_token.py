# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A change token of vSphere: the change ids of a point in time, as the manifest keeps them.

vSphere itself keeps nothing for us: whoever has the change id of a disk may ask what changed since (DiskChangeInfo).
"""

from __future__ import annotations

import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Collection, Mapping

from .frozen_disks import FrozenDisks

PREFIX = "vsphere-1-"  # and the version of what follows
LARGEST = 64 * 1024  # bytes of what a token holds: a VM has 256 disks at the most


@dataclass(frozen=True)
class TokenDisk:
    key: int
    uuid: str  # of what the disk is stored in; empty where vSphere tells none
    change_id: str


def token_of(chain: str, frozen: FrozenDisks, names: Collection[str]) -> str:
    """Of the disks of these names. A plain name of letters, digits, `-` and `_`; empty where none is tracked."""
    tracked = [one for name, one in frozen.disks.items() if name in names and one.change_id]
    disks = {one.name: [one.key, one.uuid, one.change_id] for one in tracked}
    if not disks:
        return ""
    text = json.dumps({"chain": chain, "disks": disks}, separators=(",", ":"), sort_keys=True)
    return PREFIX + urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def read_token(token: str) -> Mapping[str, TokenDisk] | None:
    """By a disk's name; None for what is no token of ours, or of another version. It may be anybody's manifest's."""
    if not token.startswith(PREFIX):
        return None
    packed = token[len(PREFIX) :]
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), LARGEST)
        disks = json.loads(text)["disks"]
        found = {str(name): TokenDisk(int(key), str(uuid), str(change)) for name, (key, uuid, change) in disks.items()}
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return found if all(one.change_id for one in found.values()) else None
