# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a store is: small, so that every extra (retry, limiter, fault, log) is a wrapper around the same interface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Callable, Iterator, Mapping

from .._blocks import ObjectInfo, PartWriter
from .._errors import VmferryError

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

    @abstractmethod
    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix`, in key order. Sees all that was complete before the call."""

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

    def close(self) -> None:
        """Release connections. Using the store afterwards is an error."""

    def get(self, key: str, limit: int = SMALL_OBJECT) -> bytes:
        """A small object, whole."""
        info = self.stat(key)
        if info is None:
            raise VmferryError("not_found", f"{self.object_url(key)} does not exist.")
        if info.size > limit:
            raise VmferryError(
                "invalid_config", f"{self.object_url(key)} has {info.size} bytes; at most {limit} were expected."
            )
        data = bytearray(info.size)
        self.read_into(key, 0, memoryview(data))
        return bytes(data)

    def object_url(self, key: str) -> str:
        return f"{self.url.rstrip('/')}/{key}"
