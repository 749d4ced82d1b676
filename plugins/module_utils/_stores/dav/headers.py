# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What travels beside an object's bytes: its checksum, its metadata, and the tag that tells its versions apart."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Dict, Mapping

from ..._blocks import ObjectInfo
from ..metadata import percent_decoded, percent_encoded

METADATA = "x-metadata-"
CHECKSUM = "X-Checksum-SHA256"
CHECKSUM_NAME = "vmferry-sha256"  # under which the server's word on it is found among an object's metadata
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


def weak_etag(modified: float, size: int) -> str:
    """For what the server gives no tag, in a listing or at all."""
    return f'W/"{int(modified):x}-{size:x}"'


def is_same(info: ObjectInfo, etag: str) -> bool:
    """Whether it is still the object of that tag, wherever that was read.

    In its first second, Apache calls a tag weak.
    """
    return _bare(etag) in (_bare(info.etag), _bare(weak_etag(info.modified, info.size)))


def _bare(etag: str) -> str:
    return etag[2:] if etag.startswith("W/") else etag


def described(data: memoryview, metadata: Mapping[str, str] | None) -> Dict[str, str]:
    """Headers that go with a body, whether the server keeps them or not."""
    return {CHECKSUM: sha256(data).hexdigest(), **encode_metadata(metadata)}


def encode_metadata(metadata: Mapping[str, str] | None) -> Dict[str, str]:
    return {f"X-Metadata-{name}": value for name, value in percent_encoded(metadata).items()}


def decode_metadata(headers: Mapping[str, str]) -> Dict[str, str]:
    ours = {name[len(METADATA) :]: value for name, value in headers.items() if name.lower().startswith(METADATA)}
    found = percent_decoded(ours)
    checksum = headers.get(CHECKSUM, "").lower()
    if _CHECKSUM.fullmatch(checksum):
        found[CHECKSUM_NAME] = checksum
    return found
