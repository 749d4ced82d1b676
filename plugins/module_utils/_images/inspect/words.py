# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inspection of an image says: a description, and everything that speaks against opening it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import FrozenSet, Literal, Tuple

from ..._errors import VmferryError

Objection = Literal[
    "archive",  # not an image: something that has to be unpacked first
    "backing_file",  # stands on another image that it names
    "corrupt",  # says so itself, or its checksums do
    "damaged",  # fields that cannot be right together
    "data_file",  # its data lie in a file that it names
    "dirty",  # was not closed
    "disguised",  # said to be raw, and begins as another format does
    "encrypted",
    "expansion",  # stands for far more data than it holds
    "extents",  # its data lie in several files that it names
    "internal_snapshots",
    "log",  # has a journal that must be replayed first
    "other_format",  # not the one that was announced
    "outside",  # names a file that is not beside it
    "overlap",  # uses a place of the file twice
    "polyglot",  # is an image of more than one format
    "tables",  # larger tables than would be held
    "truncated",
    "unknown_feature",
    "unknown_format",
    "virtual_size",  # a larger disk than is allowed
]

_HINTS: dict[str, str] = {
    "archive": "Unpack it first.",
    "backing_file": "Ask its author for an image that stands alone, as `qemu-img convert` makes one.",
    "data_file": "Ask its author for an image that stands alone, as `qemu-img convert` makes one.",
    "disguised": "If it is what it looks like, name that format.",
    "dirty": "Have it closed properly, or repaired, by whoever wrote it.",
    "log": "Have it closed properly by the program that wrote it: detach it, or start and stop its VM.",
    "other_format": "Name the format that the image has.",
    "extents": "Ask its author for an image of one file, for example a streamOptimized VMDK.",
}
_USUAL_HINT = (
    "An image that nobody vouches for is opened only if all of it is understood; see docs/untrusted_images.md."
)


@dataclass(frozen=True)
class Limits:
    """What an image may ask for. Bytes, but for `host_clusters` and `expansion`."""

    virtual_size: int = 64 << 40  # of the disk
    table: int = 32 << 20  # of a table that is held in one piece; QEMU's own limit for an L1 table
    walked: int = 1 << 30  # of all tables of an image; at 64 KiB clusters they map 8 TiB
    descriptor: int = 64 << 10  # of a VMDK's text; those that are written have less than 2 KiB
    host_clusters: int = 1 << 28  # of the file: one bit of memory for each
    expansion: int = 100  # decompressed bytes for each byte of the file ...
    decompressed: int = 1 << 30  # ... beyond these, which any image may have


@dataclass(frozen=True)
class ExtentFile:
    """A run of a disk that lies in another file, by the descriptor of a VMDK. Offsets and lengths in bytes."""

    name: str  # as the descriptor has it; empty for a run of zeros
    kind: str  # FLAT, VMFS, ZERO, SPARSE, ...
    length: int
    offset: int = 0  # in that file


@dataclass(frozen=True)
class Description:
    """`format`: qcow2, qcow, qed, vdi, vmdk, vhd, vhdx, raw_tar_gz, vma, raw; empty where it is none of them."""

    format: str
    subformat: str = ""  # fixed, dynamic, monolithicSparse, streamOptimized, ...; of raw: what it holds (gpt, mbr, iso)
    size: int = 0  # bytes of the disk; of a vma, of all of them
    backing_file: str = ""  # as the image has it
    data_file: str = ""
    extents: Tuple[ExtentFile, ...] = ()
    features: FrozenSet[str] = field(default_factory=frozenset)
    objections: Tuple[Tuple[Objection, str], ...] = ()  # in the order in which they were found, with what was seen

    def objects(self, name: Objection) -> bool:
        return any(found == name for found, _unused in self.objections)

    def approve(self, where: str, *, despite: FrozenSet[Objection] = frozenset()) -> None:
        """Raises `invalid_config` for the first objection; `despite` those that the caller has an answer to."""
        for name, seen in self.objections:
            if name not in despite:
                raise refusal(name, seen, where)


def refusal(name: Objection, seen: str, where: str) -> VmferryError:
    return VmferryError("invalid_config", f"{where} is not opened ({name}): it {seen}.", _HINTS.get(name, _USUAL_HINT))
