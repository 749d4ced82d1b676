# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The digests of a disk that is written as an image, compared on the way with those of its export."""

from __future__ import annotations

from typing import Sequence, Tuple

from .._blocks import BlockSource, Cipher, ImageOutput, Kind
from .._errors import VmferryError
from .digest_check import LeafCheck
from .digests import Digests, DigestWriter, DiskDigests, plain_hash


class ProvedDigests:
    """Plays DiskDigests. What does not fit raises before an image gets it; `finish` proves the digests themselves."""

    layered = False

    def __init__(self, check: LeafCheck) -> None:
        self._check, self.leaf_hash = check, check.leaf_hash

    def leaves(self, first: int, digests: Digests) -> Sequence[Kind]:
        self._check.compare(first, digests, self._check.expect(first, len(digests)))
        return ["zero" if digest is None else "data" for digest in digests]

    def zero(self, first: int, count: int) -> Sequence[Tuple[int, int]]:
        self._check.expect_zeros(first, count)
        return [(first, count)]

    def finish(self) -> str:
        return self._check.finish()


def digests_of(source: BlockSource, check: LeafCheck | None) -> DiskDigests:
    """Of what nobody proves: kept nowhere. Raises `checksum_mismatch` where the disk has another size than its digests
    are of."""
    if check is None:
        return DigestWriter(source.size, lambda data: None)
    if check.size != source.size:
        raise VmferryError(
            "checksum_mismatch", f"The image holds a disk of {source.size} bytes; its digests are of {check.size}."
        )
    return ProvedDigests(check)


def output_for(output: ImageOutput, digests: DiskDigests) -> ImageOutput:
    """For the image of such a disk. The keyed digests of an encrypted export are not those of the bytes that are
    stored, which the output takes them for."""
    return output if digests.leaf_hash is plain_hash else _Undigested(output)


class _Undigested:
    """Plays ImageOutput."""

    def __init__(self, output: ImageOutput) -> None:
        self._output = output

    def emit(self, data: memoryview, digests: Sequence[bytes] | None = None, cipher: Cipher | None = None) -> None:
        self._output.emit(data, None, cipher)

    def hole(self, length: int) -> None:
        self._output.hole(length)
