# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store that repeats what failed for a while, and settles what a repetition makes ambiguous."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Callable, Generic, Iterator, Mapping, Optional, TypeVar

from .._blocks import Extent, ObjectInfo, PartWriter, StreamWriter
from .._errors import VmferryError
from .base import Store
from .delegating import DelegatingParts, DelegatingStore
from .roles import Result, Retry
from .server_copy import CopyOrder

Item = TypeVar("Item")


class RetryingStore(DelegatingStore):
    def __init__(self, store: Store, retry: Retry) -> None:
        super().__init__(store)
        self._retry = retry

    def _ask(self, function: Callable[..., Result], *args: Any) -> Result:
        return self._retry.call(function, *args)

    def _parts(self, parts: PartWriter) -> PartWriter:
        return RetryingParts(parts, self._retry)

    def _stream(self, stream: StreamWriter) -> StreamWriter:
        return RetryingStream(stream, self._retry)

    def extents(self, key: str, size: int) -> Iterator[Extent]:
        """A listing of holes that breaks off is not taken up again but begun anew: it is of one moment."""
        return iter(self._retry.call(lambda: list(self._store.extents(key, size))))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._each(_Listing(lambda: self._store.list(prefix), lambda info: info.key.encode()))

    def list_readable(self, prefix: str, skip: Callable[[str, VmferryError], object]) -> Iterator[ObjectInfo]:
        return self._each(_Listing(lambda: self._store.list_readable(prefix, skip), lambda info: info.key.encode()))

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

    def copy_within(self, source: Store, order: CopyOrder) -> ObjectInfo | None:
        """Each step is repeated by itself, by this store's own patience."""
        return super().copy_within(source, replace(order, retry=self._retry))

    def replace_metadata(self, info: ObjectInfo, metadata: Mapping[str, str]) -> ObjectInfo | None:
        attempts = 0

        def attempt() -> ObjectInfo | None:
            nonlocal attempts
            attempts += 1
            try:
                return self._store.replace_metadata(info, metadata)
            except VmferryError as error:
                if error.kind != "conflict" or attempts == 1:
                    raise
                # As after a `put`: an earlier attempt may have been carried out, and only its answer lost.
                now = self._store.stat(info.key)
                if now is None or now.size != info.size or dict(now.metadata) != dict(metadata):
                    raise
                return now

        return self._retry.call(attempt)


class RetryingParts(DelegatingParts):
    def __init__(self, parts: PartWriter, retry: Retry) -> None:
        super().__init__(parts)
        self._retry = retry

    def _ask(self, function: Callable[..., Result], *args: Any) -> Result:
        return self._retry.call(function, *args)


class RetryingStream(RetryingParts):
    """What is lost of a stream cannot be sent again, so its errors are permanent; its end can be asked for again."""

    def __init__(self, stream: StreamWriter, retry: Retry) -> None:
        super().__init__(stream, retry)
        self.interrupt = stream.interrupt


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
