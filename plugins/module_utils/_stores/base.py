# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store is: small, so that every extra (retry, limiter, fault, log) is a wrapper around the same interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Callable, Iterator, Mapping

from .._blocks import Extent, ObjectInfo, PartWriter, StreamWriter
from .._errors import VmferryError
from .server_copy import CopyOrder

SMALL_OBJECT = 64 * 1024 * 1024  # bytes; what `get` agrees to hold in memory


@dataclass(frozen=True)
class StoreCapabilities:
    """What this store really does. The flags are probed, never assumed from the protocol it speaks."""

    max_parts: int
    min_part: int  # bytes, every part but the last
    max_part: int
    max_object: int
    conditional_put: bool  # `put(if_absent=True)` refuses an existing key
    verifies_checksums: bool  # bytes that do not match the checksum sent with them are refused
    conditional_replace: bool = False  # `put(if_match=…)` refuses an object that has changed since
    joins_pieces: bool = False  # its writers take parts in pieces, see `PieceWriter`
    joins_parts: bool = False  # by reading them back and sending them again, all but the parts of a stream


class Store(ABC):
    """Objects under one URL. Keys are relative to it, `/`-separated, without empty, `.` or `..` segments.

    Errors are `VmferryError`: `not_found` where the key or the root does not exist, `permission_denied`,
    `unauthenticated`, `no_space`, `conflict` (a condition did not hold), `network`, `timeout`, `rate_limited`.
    """

    url: str

    @abstractmethod
    def probe(self, key: str) -> StoreCapabilities:
        """Prove that the store can be written, by an object at `key` that is removed again; find out what it does.

        What it finds, the store uses from then on (a checksum that the server really verifies).
        """

    @abstractmethod
    def require_root(self) -> None:
        """`not_found` where nothing could be read because the URL names no place: a typing error is no empty store.

        A store that is written to makes the place where it can, so it is not asked for then.
        """

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """None where there is no such object; `not_found` where there is no such root."""

    @abstractmethod
    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fill the whole buffer or raise; thread-safe.

        An object that ends before the buffer is full raises `checksum_mismatch`: it is not what it was said to be.
        """

    def extents(self, key: str, size: int) -> Iterator[Extent]:
        """Which of an object's first `size` bytes are known to be zeros without reading them, in whole leaves and in
        order; the rest is data. Where a store cannot tell, all of it is."""
        if size:
            yield Extent(0, size, "data")

    @abstractmethod
    def read_whole(self, key: str, limit: int) -> bytes | None:
        """An object as it was at one moment, whoever replaces it meanwhile; of a longer one so many bytes.

        None where there is no such object; `not_found` where there is no such root.
        """

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in key order. Sees all that was complete before the call."""

    def list_readable(self, prefix: str, skip: Callable[[str, VmferryError], object]) -> Iterator[ObjectInfo]:
        """As `list`, without the folders below that may not be read: of each, `skip` is told the prefix, and why. It
        may have been told some of them already. For whoever shows what is there; anybody else has to know of all.
        """
        return self.list(prefix)

    @abstractmethod
    def list_folders(self, prefix: str) -> Iterator[str]:
        """The names directly below `prefix` (which ends in `/` or is empty) that hold objects, in order.

        Some servers go on listing a folder for a while after its last object was deleted.
        """

    @abstractmethod
    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """A small object, atomic: readers see the old one or the new one."""

    @abstractmethod
    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        """A writer of one object. `metadata` comes back from `stat` where the store keeps any (a path does not)."""

    @property
    def metadata_last(self) -> bool:
        """Whether a writer of parts looks at its `metadata` when it completes the object: until then, whoever opened
        it may add to it."""
        return False

    def open_stream(self, key: str, size: int, *, metadata: Mapping[str, str] | None = None) -> StreamWriter | None:
        """A writer of exactly `size` bytes, that waits for parts in their order, moves each byte once and keeps nothing
        if it fails. None where `open_parts` moves none twice either.
        """
        return None

    @abstractmethod
    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        """The writer of an object that another process began; None where that is gone, or cannot be gone on with.

        What it wrote behind the first `known` bytes is not relied on. An object that it had completed, and that nobody
        replaced, can be completed again.
        """

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        """An object of `source`, copied without its bytes passing this host.

        None where the two are not the same system, or it cannot do that. `conflict` where the object is no longer the
        one that was ordered.
        """
        return None

    def replace_metadata(self, info: ObjectInfo, metadata: Mapping[str, str]) -> ObjectInfo | None:
        """The object that `info` is about, with this metadata and no other, without its bytes being sent again.

        None where the server cannot do that. `conflict` where the object is no longer that one.
        """
        return None

    @property
    def innermost(self) -> Store:
        """Of a wrapper, the store that it wraps."""
        return self

    def put_volatile(self, key: str, data: bytes) -> None:
        """As `put`, for what may be lost, or torn, if the power fails soon: it waits for no medium."""
        self.put(key, data)

    def lock(self, key: str) -> None:
        """Have the store keep this very object for as long as its settings say; where they say nothing, do nothing.

        Whoever deletes or replaces a locked object only hides it, so `ObjectInfo.locked` is looked at first.
        """

    @abstractmethod
    def delete(self, key: str, *, if_match: str | None = None) -> None:
        """Gone when it returns; deleting what does not exist is no error. With `if_match`, a changed object stays."""

    @abstractmethod
    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        """Remove what unfinished uploads below `prefix` left behind, all or the `chosen`; returns how many.

        `chosen` is told the key that was to be, and in `modified` when the upload began or was last written to.
        """

    @abstractmethod
    def free_space(self) -> int | None:
        """Bytes that can still be stored, or None where that is not a number."""

    def drop_cache(self, key: str) -> None:
        """Make the next read of `key` come from the medium, not from this host's memory, where the two can differ."""

    def limit_own_bytes(self, take: Callable[[int], object]) -> None:
        """`take` before bytes move that no caller hands over or asks for: an object that is joined of its parts."""

    def close(self) -> None:
        """Release connections. Using the store afterwards is an error."""

    def get(self, key: str, limit: int = SMALL_OBJECT) -> bytes:
        """A small object, whole."""
        data = self.read_whole(key, limit + 1)
        if data is None:
            raise VmferryError("not_found", f"{self.object_url(key)} does not exist.")
        if len(data) > limit:
            raise VmferryError("invalid_config", f"{self.object_url(key)} has more than the {limit} bytes expected.")
        return data

    def _stands(self, key: str, etag: str) -> bool:
        """For servers that ignore a condition. False where there is no such object, `conflict` where it is another."""
        info = self.stat(key)
        if info is not None and info.etag != etag:
            raise VmferryError("conflict", f"{self.object_url(key)} has changed since it was read.")
        return info is not None

    @property
    def server(self) -> str:
        """Which one is asked, where neither `url` nor the names that its service gives tell. No secret."""
        return ""

    def object_url(self, key: str) -> str:
        return f"{self.url.rstrip('/')}/{key}" if key else self.url

    def location(self, key: str) -> str:
        """What other tools open the object by: a path where the store is a folder, a URL where it is none."""
        return self.object_url(key)
