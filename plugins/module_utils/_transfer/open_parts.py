# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parts and pieces of an object while they are filled."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Sequence

from .._blocks import LEAF, Cipher, Part, PartReceipt
from .digests import ZERO_DIGEST

DIGEST_SIZE = sha256().digest_size
ZEROS = bytes(1024 * 1024)


@dataclass
class OpenPart:
    part: Part
    closed: bool = False  # nothing more will be laid out here
    blocks: bytearray = field(default_factory=bytearray)  # SHA-256 of each 64 KiB, one behind the other
    received: PartReceipt | None = None  # where the store has it already: what is laid out here moves nowhere
    pieces: int = 0  # opened so far
    unsent: int = 0  # of these


@dataclass
class OpenPiece:
    """What is sent at once: a part, or a run of one that is larger than memory has room for."""

    owner: OpenPart
    number: int
    at: int  # in the part
    size: int
    buffer: bytearray | None = None  # none where the store takes bytes at any offset
    awaited: int = 0  # bytes laid out and not yet delivered
    closed: bool = False  # nothing more will be laid out here


@dataclass(frozen=True)
class Placement:
    """Bytes somewhere in memory, and the place in a piece that is theirs. They must not change until delivered."""

    piece: OpenPiece
    at: int
    data: memoryview
    cipher: Cipher | None = None  # to be stored encrypted, in whole blocks
    block: int = 0  # of the part, where the digests of what is stored belong
    digested: bool = True  # they are known already


def proof_of_hole(size: int) -> bytes:
    proof = sha256()
    for _unused in range(size // len(ZEROS)):
        proof.update(ZERO_DIGEST * (len(ZEROS) // LEAF))
    rest = size % len(ZEROS)
    proof.update(ZERO_DIGEST * (rest // LEAF))
    if rest % LEAF:
        proof.update(sha256(bytes(rest % LEAF)).digest())
    return proof.digest()


def object_proof_root(receipts: Sequence[PartReceipt]) -> str:
    """SHA-256, in hex, over the proofs of an object's parts in order."""
    return sha256(b"".join(receipt.proof for receipt in receipts)).hexdigest()
