# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One-pass qcow2, packed, whose guest clusters are encrypted, each sector by the place it has in the file.

That place is known once a cluster is laid out, so whoever moves the bytes there encrypts them on the way. Tables and
refcounts stay plain, as QEMU wants them.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Optional, Sequence

from ..._blocks import ImageOutput
from ..luks import HEADER_SIZE, make_header
from ..xts import SectorCipher
from .format import CLUSTER
from .packed import PackedQcow2


class EncryptedQcow2(PackedQcow2):
    """Plays ImageWriter."""

    def __init__(
        self,
        size: int,
        output: ImageOutput,
        key: bytes,
        passphrase: bytes,
        *,
        data_bound: Optional[int] = None,
        backing: str = "",
        iterations: Optional[int] = None,
    ) -> None:
        """`key`: the image's own, that no other image has; `passphrase`: by which QEMU gets at it."""
        super().__init__(size, output, data_bound=data_bound, backing=backing, crypto_size=HEADER_SIZE)
        self._cipher = SectorCipher(key)
        # As slow as a passphrase has to be, and nobody waits for it before the end.
        maker = ThreadPoolExecutor(1)
        self._header = maker.submit(make_header, key, passphrase, iterations)
        maker.shutdown(wait=False)

    @property
    def encrypts(self) -> bool:
        return True

    def head(self) -> bytes:
        return self._head.pack(self._l1, self._blocks, self._backing, self._header.result())

    def _put(self, data: memoryview, digests: Optional[Sequence[bytes]] = None) -> None:
        if digests is None:
            super()._put(data)
            return
        self._next += len(data) // CLUSTER
        self._output.emit(data, cipher=self._cipher)
