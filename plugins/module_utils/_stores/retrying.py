# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that repeats what failed for a while, and settles what a repetition makes ambiguous."""

from __future__ import annotations

from functools import partial
from typing import Callable, Generic, Iterator, Mapping, Optional, Sequence, TypeVar

from .._blocks import ObjectInfo, Part, PartReceipt, PartWriter
from .._errors import VmferryError
from .base import Store, StoreCapabilities
from .roles import Retry

Item = TypeVar("Item")


class RetryingStore(Store):
    def __init__(self, store: Store, retry: Retry) -> None:
        self._store, self._retry, self.url = store, retry, store.url

    def probe(self, key: str) -> StoreCapabilities:
        return self._retry.call(self._store.probe, key)

    def require_root(self) -> None:
        self._retry.call(self._store.require_root)

    def stat(self, key: str) -> ObjectInfo | None:
        return self._retry.call(self._store.stat, key)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        self._retry.call(self._store.read_into, key, offset, buffer)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._each(_Listing(lambda: self._store.list(prefix), lambda info: info.key.encode()))

    def list_folders(self, prefix: str) -> Iterator[str]:
        return self._each(_Listing(lambda: self._store.list_folders(prefix), lambda name: (name + "/").encode()))

    def _each(self, listing: _Listing[Item]) -> Iterator[Item]:
        while True:
            item = self._retry.call(listing.next)
            if item is None:
                return
            yield item

    def put(
        self,
        key: str,
        data: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        attempts = 0

        def attempt() -> ObjectInfo:
            nonlocal attempts
            attempts += 1
            try:
                return self._store.put(key, data, if_absent=if_absent, if_match=if_match, metadata=metadata)
            except VmferryError as error:
                if error.kind != "conflict" or attempts == 1:
                    raise
                # An earlier attempt may have been carried out and only its answer lost.
                written = self._if_equal(key, data)
                if written is None:
                    raise
                return written

        return self._retry.call(attempt)

    def _if_equal(self, key: str, data: bytes) -> ObjectInfo | None:
        info = self._store.stat(key)
        if info is None or info.size != len(data) or self._store.get(key) != data:
            return None
        return info

    def open_parts(self, key: str, *, metadata: Mapping[str, str] | None = None) -> PartWriter:
        return RetryingParts(self._retry.call(partial(self._store.open_parts, key, metadata=metadata)), self._retry)

    def delete(self, key: str, *, if_match: str | None = None) -> None:
        self._retry.call(partial(self._store.delete, key, if_match=if_match))

    def abort_uploads(self, prefix: str, chosen: Callable[[ObjectInfo], bool] | None = None) -> int:
        return self._retry.call(self._store.abort_uploads, prefix, chosen)

    def free_space(self) -> int | None:
        return self._retry.call(self._store.free_space)

    def drop_cache(self, key: str) -> None:
        self._store.drop_cache(key)

    def close(self) -> None:
        self._store.close()


class RetryingParts:
    def __init__(self, parts: PartWriter, retry: Retry) -> None:
        self._parts, self._retry = parts, retry

    @property
    def any_offset(self) -> bool:
        return self._parts.any_offset

    def write_at(self, offset: int, data: memoryview) -> None:
        self._retry.call(self._parts.write_at, offset, data)

    def write_part(self, part: Part, data: memoryview) -> str:
        return self._retry.call(self._parts.write_part, part, data)

    def complete(self, receipts: Sequence[PartReceipt], size: int) -> ObjectInfo:
        return self._retry.call(self._parts.complete, receipts, size)

    def abort(self) -> None:
        self._retry.call(self._parts.abort)


class _Listing(Generic[Item]):
    """An ordered listing that can be taken up again after the last item it gave."""

    def __init__(self, start: Callable[[], Iterator[Item]], order: Callable[[Item], bytes]) -> None:
        self._start, self._order = start, order
        self._items: Optional[Iterator[Item]] = None
        self._last = b""

    def next(self) -> Item | None:
        if self._items is None:
            self._items = self._start()
        try:
            for item in self._items:
                if self._order(item) > self._last:
                    self._last = self._order(item)
                    return item
        except VmferryError:
            self._items = None
            raise
        return None
