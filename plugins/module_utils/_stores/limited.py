# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store whose bytes wait for a limiter, up and down."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator, Mapping, Sequence

from .._blocks import ObjectInfo, Part, PartReceipt, PartWriter
from .base import Store, StoreCapabilities
from .roles import Limiter

STEP = 64 * 1024  # bytes let through at once, so that whoever watches sees a steady rate


class Gate:
    """`passing` is told of bytes as the limiter lets them through, and that they are gone when their call ended."""

    def __init__(self, limiter: Limiter, passing: Callable[[int], object]) -> None:
        self._limiter, self._passing = limiter, passing

    @contextmanager
    def let(self, count: int) -> Iterator[None]:
        passed = 0
        try:
            for at in range(0, count, STEP):
                step = min(STEP, count - at)
                self._limiter.take(step)
                passed += step
                self._passing(step)
            yield
        finally:
            self._passing(-passed)


class LimitedStore(Store):
    """Wrap it in a `RetryingStore`, not the other way round, and what is sent again is counted again."""

    def __init__(self, store: Store, limiter: Limiter, passing: Callable[[int], object] = lambda count: None) -> None:
        self._store, self._gate, self.url = store, Gate(limiter, passing), store.url

    def probe(self, key: str) -> StoreCapabilities:
        return self._store.probe(key)

    def require_root(self) -> None:
        self._store.require_root()

    def stat(self, key: str) -> ObjectInfo | None:
        return self._store.stat(key)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        with self._gate.let(len(buffer)):
            self._store.read_into(key, offset, buffer)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._store.list(prefix)

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
        with self._gate.let(len(data)):
            return self._store.put(key, data, if_absent=if_absent, if_match=if_match, metadata=metadata)

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return LimitedParts(self._store.open_parts(key, metadata=metadata), self._gate)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._store.delete(key, if_match=if_match)

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        return self._store.abort_uploads(prefix, chosen)

    def free_space(self) -> int | None:
        return self._store.free_space()

    def drop_cache(self, key: str) -> None:
        self._store.drop_cache(key)

    def close(self) -> None:
        self._store.close()


class LimitedParts:
    def __init__(self, parts: PartWriter, gate: Gate) -> None:
        self._parts, self._gate = parts, gate

    @property
    def any_offset(self) -> bool:
        return self._parts.any_offset

    def write_at(self, offset: int, data: memoryview) -> None:
        with self._gate.let(len(data)):
            self._parts.write_at(offset, data)

    def write_part(self, part: Part, data: memoryview) -> str:
        with self._gate.let(len(data)):
            return self._parts.write_part(part, data)

    def complete(self, receipts: Sequence[PartReceipt], size: int) -> ObjectInfo:
        return self._parts.complete(receipts, size)

    def abort(self) -> None:
        self._parts.abort()
