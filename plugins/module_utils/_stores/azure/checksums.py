# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checksum that travels with each block and each small blob, and that Azure compares with what it received."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from hashlib import md5
from typing import Callable, Dict, Optional, Tuple

DIGITS = 32  # hexadecimal; of the longest


@dataclass(frozen=True)
class Checksum:
    name: str
    header: str
    compute: Callable[[memoryview], bytes]

    def of(self, data: memoryview) -> bytes:
        return self.compute(data)

    def headers(self, digest: bytes) -> Dict[str, str]:
        return {self.header: b64encode(digest).decode()}


def _crc64() -> Optional[Checksum]:
    """Azure's CRC-64 is that of NVMe, which S3 uses too; the AWS runtime computes it at memory speed.

    https://learn.microsoft.com/rest/api/storageservices/put-block: 0x9A6C9329AC4BC9B5, sent in little-endian order.
    """
    try:
        from awscrt import checksums
    except ImportError:
        return None
    compute = getattr(checksums, "crc64nvme", None)  # since awscrt 0.23.2
    if compute is None:
        return None
    return Checksum("crc64", "x-ms-content-crc64", lambda data: compute(data).to_bytes(8, "little"))


MD5 = Checksum("md5", "Content-MD5", lambda data: md5(data, usedforsecurity=False).digest())


def candidates() -> Tuple[Checksum, ...]:
    """Cheapest first."""
    fast = _crc64()
    return (fast, MD5) if fast else (MD5,)
