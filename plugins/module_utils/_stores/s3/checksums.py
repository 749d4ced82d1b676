# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksum that travels with each part, and that the server compares with what it received."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import md5
from typing import Callable, Dict, Optional, Tuple
from zlib import crc32


@dataclass(frozen=True)
class Checksum:
    """`algorithm` is S3's name of it, None for Content-MD5, which an upload cannot announce."""

    parameter: str
    algorithm: Optional[str]
    digest: Callable[[memoryview], bytes]

    def of(self, data: memoryview) -> Dict[str, str]:
        return {self.parameter: b64encode(self.digest(data)).decode()}

    @property
    def announced(self) -> Dict[str, str]:
        return {"ChecksumAlgorithm": self.algorithm} if self.algorithm else {}


def _crc64nvme() -> Optional[Checksum]:
    try:
        from awscrt import checksums
    except ImportError:
        return None
    compute = getattr(checksums, "crc64nvme", None)  # since awscrt 0.23.2
    if compute is None:
        return None
    return Checksum("ChecksumCRC64NVME", "CRC64NVME", lambda data: compute(data).to_bytes(8, "big"))


CRC32 = Checksum("ChecksumCRC32", "CRC32", lambda data: crc32(data).to_bytes(4, "big"))
MD5 = Checksum("ContentMD5", None, lambda data: md5(data, usedforsecurity=False).digest())


def candidates() -> Tuple[Checksum, ...]:
    """Cheapest first; MD5 is for servers older than S3's additional checksums (2022)."""
    fast = _crc64nvme()
    return (fast, CRC32, MD5) if fast else (CRC32, MD5)
