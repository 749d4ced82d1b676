# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared words: extents, leaves, parts, and the roles that rooms play for each other. Imports nothing of ours.

Offsets, lengths and sizes are bytes. A role is a protocol: whoever has its members plays it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Iterator, Literal, Mapping, Protocol, Sequence, Tuple, runtime_checkable

LEAF = 65536  # bytes of guest data per digest, per image cluster, and the unit of an increment

Kind = Literal["data", "zero", "unchanged"]
Piece = Tuple[int, memoryview]  # an offset on the disk, and the memory that belongs there


@dataclass(frozen=True)
class Extent:
    """A run of a disk: `data`, `zero` (reads as zeros, hides the parent) or `unchanged` (the parent's)."""

    offset: int
    length: int
    kind: Kind

    @property
    def end(self) -> int:
        return self.offset + self.length


class BlockSource(Protocol):
    """A disk at a point in time, readable in any order and from several threads."""

    @property
    def size(self) -> int:
        """Exact, as the guest sees it; not always a multiple of anything."""

    def extents(self) -> Iterator[Extent]:
        """Ordered, without gaps, covering `[0, size)`."""

    def read_into(self, pieces: Sequence[Piece]) -> None:
        """Fill every piece with the guest's true content, also in `unchanged` runs, or raise. May be pipelined."""

    def close(self) -> None:
        """From any thread, and more than once. Reads that are under way fail, at once where they would wait."""


class BlockSink(Protocol):
    """A disk being written, in any order and from several threads."""

    @property
    def size(self) -> int: ...

    @property
    def reads_zero(self) -> bool:
        """A fresh, unencrypted target that this run created: zeros need not be sent."""

    def write(self, pieces: Sequence[Piece]) -> None: ...

    def zero(self, offset: int, length: int) -> None: ...

    def flush(self) -> None:
        """Everything written is durable when this returns."""

    def close(self) -> None:
        """From any thread, and more than once. Writes that are under way fail, at once where they would wait."""


@runtime_checkable
class LayeredSink(BlockSink, Protocol):
    """One that stands on an older state of the disk, and takes what differs from it."""

    def keep(self, offset: int, length: int) -> None:
        """Stays as it is there. Whole units of the sink's own."""


@dataclass(frozen=True)
class Part:
    """A run of a stored object: its number (from 1), where it lies, how long it is."""

    number: int
    offset: int
    size: int


@dataclass(frozen=True)
class PartReceipt:
    """A part that a store has taken. `proof` is ours (SHA-256 over the SHA-256 of each 64 KiB), `etag` the store's."""

    part: Part
    proof: bytes
    etag: str = ""


@dataclass(frozen=True)
class ObjectInfo:
    """What a store says of an object. `modified` is seconds since the epoch, UTC, by the store's clock."""

    key: str
    size: int
    etag: str = ""
    modified: float = 0.0
    metadata: Mapping[str, str] = field(default_factory=dict)
    locked: bool = False  # the store keeps this very version for a while, whoever replaces it
    content_type: str = ""  # where the store keeps one
    # Of a file: its ctime in nanoseconds, which whoever puts other times back cannot. 0 where there is none.
    changed: int = field(default=0, compare=False)


class PartWriter(Protocol):
    """Takes parts in any order, from several threads; the object appears, whole, when `complete` returns.

    A part sent again replaces itself, so a retry is always right.
    """

    @property
    def token(self) -> str:
        """By which another process finds what this one wrote (`Store.resume_parts`). No secret."""

    @property
    def any_offset(self) -> bool:
        """A file: bytes go straight to their place by `write_at`, holes are left out, no part is gathered in memory."""

    def write_at(self, offset: int, data: memoryview) -> None: ...

    def write_part(self, part: Part, data: memoryview) -> str:
        """Returns the store's own receipt, to be handed back to `complete`."""

    def confirms(self, receipt: PartReceipt) -> bool:
        """Of a writer that was taken up again: whether the store holds this very part, by its own word or its bytes."""

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        """All parts, ordered by number, and the object's size (a file may end in a hole).

        With `if_absent`, `conflict` where another object is there, as far as the store keeps conditions at all.
        """

    def leave(self) -> None:
        """Nothing more is written here; what was written stays, to be taken up again by `token`."""

    def abort(self) -> None:
        """Nothing of the object is left behind, also after a failed `complete`. What is gone already is no error."""


class FileWriter(PartWriter, Protocol):
    """One that takes `any_offset`."""

    def read_back(self, offset: int, buffer: memoryview) -> None:
        """What was written there, zeros where nothing was; thread-safe."""


class PieceWriter(Protocol):
    """A `PartWriter` of a store that `joins_pieces`: takes a part in runs, too, in any order, from several threads."""

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        """Numbered from 1 in the order in which they lie in the part. A piece sent again replaces itself."""

    def join_pieces(self, part: Part) -> str:
        """When all of them were taken. Returns the receipt of the part, as `write_part` does."""


class StreamWriter(PartWriter, Protocol):
    """Takes parts in their order alone: whoever brings one that is not next waits."""

    def interrupt(self) -> None:
        """From any thread: whoever waits here fails."""


class Cipher(Protocol):
    """Encrypts what an image stores; thread-safe."""

    def encrypt(self, offset: int, data: memoryview, into: memoryview) -> None:
        """`offset`: of the data in the file. What is as long as the data goes `into` memory, which `data` may be."""


class ImageOutput(Protocol):
    """Where an image writer puts the file's bytes, in order, from `head_size` on."""

    def emit(self, data: memoryview, digests: Sequence[bytes] | None = None, cipher: Cipher | None = None) -> None:
        """`digests` are the SHA-256 of each 64 KiB of `data`, where they are known already.

        With `cipher`, whole leaves that are stored encrypted, by the place in the file that they get now.
        """

    def hole(self, length: int) -> None:
        """Zeros, that a file need not store."""


class Codec(Protocol):
    """Compresses the leaves of an image before they are laid out; thread-safe."""

    def pack(self, leaf: memoryview) -> bytes | None:
        """None where that saves too little."""


class ImageWriter(Protocol):
    """Guest data in, in guest order; an image file out, in one pass, the head last."""

    @property
    def codec(self) -> Codec | None:
        """None where leaves are not compressed."""

    @property
    def encrypts(self) -> bool:
        """Whether what is stored is something else than what was digested."""

    @property
    def head_size(self) -> int: ...

    @property
    def size_bound(self) -> int:
        """No image of this disk, with the data it was announced to hold, is longer."""

    def data(self, offset: int, run: memoryview, digests: Sequence[bytes], packed: Sequence[bytes | None] = ()) -> None:
        """Whole leaves (the disk's last one padded with zeros), and the SHA-256 of each leaf as it lies in `run`.

        `packed`: what the codec made of each leaf, if there is a codec.
        """

    def zero(self, offset: int, length: int) -> None: ...

    def finish(self) -> None:
        """Emit what is left but the head."""

    def head(self) -> bytes:
        """The first `head_size` bytes of the file; after `finish`."""
