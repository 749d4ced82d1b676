# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk behind an NBD server, to be written."""

from __future__ import annotations

from threading import Lock
from typing import Sequence

from .._blocks import Piece
from .._errors import VmferryError
from .alignment import round_down, round_up, split
from .connection import DEFAULT_IDLE_TIMEOUT, PLAIN, REQUEST_SIZE, Connection
from .handshake import Opening, Security, unwatched
from .pool import Pool
from .protocol import TransmissionFlag
from .transport import Address


class NbdSink:
    """Plays BlockSink. Each thread that writes has a connection of its own, unless the server wants only one.

    Nothing is retried: what a server acknowledged before it went away, and was not flushed, may be lost. A run that
    does not start or end at the server's `min_block` is completed by reading the block first, under a lock; runs
    of whole leaves never are, as no block is larger than a leaf. `reads_zero` is the caller's knowledge.
    """

    def __init__(
        self,
        address: Address,
        export: str = "",
        *,
        reads_zero: bool = False,
        no_hole: bool = False,
        security: Security = PLAIN,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
    ) -> None:
        self._reads_zero, self._no_hole = reads_zero, no_hole
        self._edges = Lock()

        def connect(opening: Opening = unwatched) -> Connection:
            return Connection(address, export, security=security, idle_timeout=idle_timeout, opening=opening)

        first = connect()
        self._export = first.export
        if first.export.read_only:
            first.close()
            raise VmferryError("permission_denied", f"The export {export!r} of {address} is read-only.")
        self._pool = Pool(connect, limit=0 if first.export.multi_conn else 1, idle=(first,))

    @property
    def size(self) -> int:
        return self._export.size

    @property
    def reads_zero(self) -> bool:
        return self._reads_zero

    def write(self, pieces: Sequence[Piece]) -> None:
        block = self._export.min_block
        whole: list[Piece] = []
        with self._pool.connection() as connection:
            for offset, data in pieces:
                cut = split(offset, len(data), block)
                whole.append((cut.body_start, data[cut.body_start - offset : cut.body_end - offset]))
                for start, end in cut.edges:
                    self._write_edge(connection, start, data[start - offset : end - offset])
            connection.write(whole)

    def zero(self, offset: int, length: int) -> None:
        cut = split(offset, length, self._export.min_block)
        with self._pool.connection() as connection:
            for start, end in cut.edges:
                self._write_edge(connection, start, memoryview(bytes(end - start)))
            if self._export.can(TransmissionFlag.SEND_WRITE_ZEROES):
                connection.write_zeroes(cut.body_start, cut.body_end - cut.body_start, no_hole=self._no_hole)
            else:
                connection.write(_zeros(cut.body_start, cut.body_end))

    def flush(self) -> None:
        """A server that offers no flush has, as far as the protocol goes, nothing to flush."""
        if self._export.can(TransmissionFlag.SEND_FLUSH):
            with self._pool.connection() as connection:
                connection.flush()

    def close(self) -> None:
        """Does not flush. Writes that are under way fail at once, with `cancelled`."""
        self._pool.close()

    def _write_edge(self, connection: Connection, start: int, data: memoryview) -> None:
        """Read, modify, write: the lock keeps two threads' halves of one block from undoing each other."""
        block = self._export.min_block
        outer = round_down(start, block)
        content = memoryview(bytearray(round_up(start + len(data), block) - outer))
        with self._edges:
            connection.read_into([(outer, content)])
            content[start - outer : start - outer + len(data)] = data
            connection.write([(outer, content)])


def _zeros(start: int, end: int) -> list[Piece]:
    nothing = memoryview(bytes(min(REQUEST_SIZE, max(end - start, 0))))
    return [(at, nothing[: end - at]) for at in range(start, end, REQUEST_SIZE)]
