# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store whose bytes wait for a limiter, up and down."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping

from .._blocks import ObjectInfo, PartWriter, StreamWriter
from .base import Store
from .delegating import DelegatingParts, DelegatingStore
from .roles import Limiter, Result

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


class LimitedStore(DelegatingStore):
    """Wrap it in a `RetryingStore`, not the other way round, and what is sent again is counted again."""

    def __init__(self, store: Store, limiter: Limiter, passing: Callable[[int], object] = lambda count: None) -> None:
        super().__init__(store)
        self._gate = Gate(limiter, passing)
        store.limit_own_bytes(limiter.take)

    def _parts(self, parts: PartWriter) -> PartWriter:
        return LimitedParts(parts, self._gate)

    def _stream(self, stream: StreamWriter) -> StreamWriter:
        return LimitedStream(stream, self._gate)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        with self._gate.let(len(buffer)):
            super().read_into(key, offset, buffer)

    def read_whole(self, key: str, limit: int) -> bytes | None:
        """How long it is, is known once it is here."""
        data = super().read_whole(key, limit)
        with self._gate.let(len(data or b"")):
            return data

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
            return super().put(key, data, if_absent=if_absent, if_match=if_match, metadata=metadata)

    def put_volatile(self, key: str, data: bytes) -> None:
        with self._gate.let(len(data)):
            super().put_volatile(key, data)


class LimitedParts(DelegatingParts):
    def __init__(self, parts: PartWriter, gate: Gate) -> None:
        super().__init__(parts)
        self._gate = gate

    def _moving(self, count: int, function: Callable[..., Result], *args: Any) -> Result:
        with self._gate.let(count):
            return function(*args)


class LimitedStream(LimitedParts):
    def __init__(self, stream: StreamWriter, gate: Gate) -> None:
        super().__init__(stream, gate)
        self.interrupt = stream.interrupt
