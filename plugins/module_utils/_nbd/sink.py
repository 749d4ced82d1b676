# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk behind an NBD server, written from several threads."""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from threading import Lock
from typing import Iterator, Sequence

from .._blocks import Piece
from .._errors import VmferryError
from .connection import Address, Connection
from .protocol import CAN_MULTI_CONN, READ_ONLY


class NbdSink:
    """Plays BlockSink. Several connections only where the server promises that a flush on one covers all."""

    def __init__(self, address: Address, export: str = "", *, reads_zero: bool, idle_timeout: float = 60.0) -> None:
        self._open = lambda: Connection(address, export, (), idle_timeout)
        self._first = self._open()
        self.reads_zero = reads_zero
        self._idle: deque[Connection] = deque([self._first])
        self._shared = bool(self._first.flags & CAN_MULTI_CONN)
        self._alone = Lock()
        if self._first.flags & READ_ONLY:
            self._first.close()
            raise VmferryError("permission_denied", f"The NBD server at {address} lets nobody write.")

    @property
    def size(self) -> int:
        return self._first.size

    def write(self, pieces: Sequence[Piece]) -> None:
        with self._connection() as connection:
            connection.write(pieces)

    def zero(self, offset: int, length: int) -> None:
        with self._connection() as connection:
            connection.zero(offset, length)

    def flush(self) -> None:
        with self._connection() as connection:
            connection.flush()

    def close(self) -> None:
        for connection in {self._first, *self._idle}:
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if not self._shared:
            with self._alone:
                yield self._first
            return
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
