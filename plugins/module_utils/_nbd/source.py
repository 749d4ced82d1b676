# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk behind an NBD server, read from several threads."""

from __future__ import annotations

import time
from collections import deque
from contextlib import contextmanager
from typing import Callable, Dict, Iterator, Sequence

from .._blocks import Extent, Kind, Piece
from .._errors import VmferryError
from .connection import STATUS_LENGTH, Address, Connection

HOLE, READS_ZERO = 1, 2  # flags of base:allocation
RETRY_PAUSE = 0.5  # seconds
Classify = Callable[[Dict[str, int]], Kind]


def allocated(flags: dict[str, int]) -> Kind:
    """By base:allocation alone; without it everything is data."""
    return "zero" if flags.get("base:allocation", 0) & READS_ZERO else "data"


class NbdSource:
    """Plays BlockSource. Each thread that reads gets a connection of its own from a pool."""

    def __init__(
        self,
        address: Address,
        export: str = "",
        *,
        contexts: Sequence[str] = ("base:allocation",),
        classify: Classify = allocated,
        idle_timeout: float = 60.0,
        retries: int = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`retries`: how often a read is asked again on a fresh connection after `network` or `timeout`."""
        self._open = lambda wanted=(): Connection(address, export, wanted, idle_timeout)
        self._retries, self._sleep, self._classify = retries, sleep, classify
        self._idle: deque[Connection] = deque()
        self._status = self._open(contexts)

    @property
    def size(self) -> int:
        return self._status.size

    def close(self) -> None:
        for connection in (self._status, *self._idle):
            connection.close()

    def read_into(self, pieces: Sequence[Piece]) -> None:
        for left in range(self._retries, -1, -1):
            try:
                with self._connection() as connection:
                    connection.read_into(pieces)
                return
            except VmferryError as error:
                if not left or error.kind not in ("network", "timeout"):
                    raise
            self._sleep(RETRY_PAUSE)

    def extents(self) -> Iterator[Extent]:
        at = 0
        while at < self.size:
            status: dict[str, list[tuple[int, int]]] = {}
            if self._status.contexts:
                status = self._status.block_status(at, min(self.size - at, STATUS_LENGTH))
            for length, flags in _overlaid(status, self.size - at):
                yield Extent(at, length, self._classify(flags))
                at += length

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        try:
            connection = self._idle.pop()  # atomic; an IndexError means that all are busy
        except IndexError:
            connection = self._open()
        try:
            yield connection
        except BaseException:  # in an unknown state: it is not put back
            connection.close()
            raise
        self._idle.append(connection)


def _overlaid(status: dict[str, list[tuple[int, int]]], length: int) -> Iterator[tuple[int, dict[str, int]]]:
    """Cut several contexts' answers at each other's edges, as far as the shortest answer goes."""
    end = min((sum(size for size, _ in runs) for runs in status.values()), default=length)
    end = min(end, length)
    lists = {name: deque(runs) for name, runs in status.items()}
    left = {name: runs[0][0] for name, runs in lists.items()}
    at = 0
    while at < end:
        step = min([end - at, *left.values()])
        yield step, {name: runs[0][1] for name, runs in lists.items()}
        at += step
        for name, runs in lists.items():
            left[name] -= step
            if not left[name] and len(runs) > 1:
                runs.popleft()
                left[name] = runs[0][0]
