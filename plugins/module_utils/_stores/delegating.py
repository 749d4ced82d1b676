# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store in front of another: the one place that hands every call on, so that a wrapper names only what it changes."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable, Iterator, Mapping, Sequence, cast

from .._blocks import Extent, FileWriter, ObjectInfo, Part, PartReceipt, PartWriter, PieceWriter, StreamWriter
from .._errors import VmferryError
from .base import Store, StoreCapabilities
from .roles import Result
from .server_copy import CopyOrder


class DelegatingStore(Store):
    def __init__(self, store: Store) -> None:
        self._store, self.url = store, store.url

    def _ask(self, function: Callable[..., Result], *args: Any) -> Result:
        """Every call that may wait for the server goes this way."""
        return function(*args)

    def _parts(self, parts: PartWriter) -> PartWriter:
        return parts

    def _stream(self, stream: StreamWriter) -> StreamWriter:
        return stream

    def probe(self, key: str) -> StoreCapabilities:
        return self._ask(self._store.probe, key)

    def require_root(self) -> None:
        self._ask(self._store.require_root)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._ask(self._store.stat, key)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        self._ask(self._store.read_into, key, offset, buffer)

    def extents(self, key: str, size: int) -> Iterator[Extent]:
        return self._store.extents(key, size)

    def read_whole(self, key: str, limit: int) -> bytes | None:
        return self._ask(self._store.read_whole, key, limit)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

    def list_readable(self, prefix: str, skip: Callable[[str, VmferryError], object]) -> Iterator[ObjectInfo]:
        return self._store.list_readable(prefix, skip)

    def list_folders(self, prefix: str) -> Iterator[str]:
        return self._store.list_folders(prefix)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        return self._ask(partial(self._store.put, key, data, if_absent=if_absent, if_match=if_match, metadata=metadata))

    @property
    def metadata_last(self) -> bool:
        return self._store.metadata_last

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return self._parts(self._ask(partial(self._store.open_parts, key, metadata=metadata)))

    def open_stream(self, key: str, size: int, *, metadata: Mapping[str, str] | None = None) -> StreamWriter | None:
        stream = self._ask(partial(self._store.open_stream, key, size, metadata=metadata))
        return None if stream is None else self._stream(stream)

    def resume_parts(
        self, key: str, token: str, known: int, *, metadata: Mapping[str, str] | None = None
    ) -> PartWriter | None:
        parts = self._ask(partial(self._store.resume_parts, key, token, known, metadata=metadata))
        return None if parts is None else self._parts(parts)

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        return self._store.copy_within(source.innermost, order)

    def replace_metadata(self, info: ObjectInfo, metadata: Mapping[str, str]) -> ObjectInfo | None:
        return self._ask(self._store.replace_metadata, info, metadata)

    @property
    def innermost(self) -> Store:
        return self._store.innermost

    def put_volatile(self, key: str, data: bytes) -> None:
        self._ask(self._store.put_volatile, key, data)

    def lock(self, key: str) -> None:
        self._ask(self._store.lock, key)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._ask(partial(self._store.delete, key, if_match=if_match))

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        return self._ask(self._store.abort_uploads, prefix, chosen)

    def free_space(self) -> int | None:
        return self._ask(self._store.free_space)

    def drop_cache(self, key: str) -> None:
        self._store.drop_cache(key)

    def limit_own_bytes(self, take: Callable[[int], object]) -> None:
        self._store.limit_own_bytes(take)

    @property
    def server(self) -> str:
        return self._store.server

    def object_url(self, key: str) -> str:
        return self._store.object_url(key)

    def location(self, key: str) -> str:
        return self._store.location(key)

    def close(self) -> None:
        self._store.close()


class DelegatingParts:
    """A `PartWriter`, `FileWriter` or `PieceWriter` in front of another."""

    def __init__(self, parts: PartWriter) -> None:
        self._parts = parts

    def _ask(self, function: Callable[..., Result], *args: Any) -> Result:
        """Every call that moves or makes something goes this way."""
        return function(*args)

    def _moving(self, count: int, function: Callable[..., Result], *args: Any) -> Result:
        """And this way, where it moves `count` bytes."""
        return self._ask(function, *args)

    @property
    def token(self) -> str:
        return self._parts.token

    @property
    def any_offset(self) -> bool:
        return self._parts.any_offset

    def write_at(self, offset: int, data: memoryview) -> None:
        self._moving(len(data), self._parts.write_at, offset, data)

    def write_part(self, part: Part, data: memoryview) -> str:
        return self._moving(len(data), self._parts.write_part, part, data)

    def write_piece(self, part: Part, number: int, data: memoryview) -> None:
        self._moving(len(data), cast(PieceWriter, self._parts).write_piece, part, number, data)

    def join_pieces(self, part: Part) -> str:
        return self._ask(cast(PieceWriter, self._parts).join_pieces, part)

    def read_back(self, offset: int, buffer: memoryview) -> None:
        self._moving(len(buffer), cast(FileWriter, self._parts).read_back, offset, buffer)

    def confirms(self, receipt: PartReceipt) -> bool:
        """Only what has its bytes at hand reads them for this."""
        return self._moving(receipt.part.size if self.any_offset else 0, self._parts.confirms, receipt)

    def complete(self, receipts: Sequence[PartReceipt], size: int, *, if_absent: bool = False) -> ObjectInfo:
        return self._ask(partial(self._parts.complete, receipts, size, if_absent=if_absent))

    def leave(self) -> None:
        self._parts.leave()

    def abort(self) -> None:
        self._ask(self._parts.abort)
