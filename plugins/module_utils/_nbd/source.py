# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk behind an NBD server, to be read."""

from __future__ import annotations

from threading import Event
from typing import Callable, Iterator, Sequence, TypeVar

from .._blocks import Extent, Piece
from .._errors import VmferryError
from .alignment import round_down, round_up, split
from .classification import Classify, allocated
from .connection import DEFAULT_IDLE_TIMEOUT, PLAIN, Connection
from .extents import Runs, classified, joined
from .handshake import Security
from .pool import Pool
from .protocol import BASE_ALLOCATION
from .transport import Address

FIRST_PAUSE = 0.2  # seconds before the first retry; doubled before each further one
LONGEST_PAUSE = 5.0

Result = TypeVar("Result")


class NbdSource:
    """Plays BlockSource. Each thread that reads has a connection of its own, out of a pool.

    `contexts` are asked for on every connection. A server without `base:allocation`, or without any block status, is
    one extent of data; a server without another context that was asked for is an error (`not_found`), for a bitmap
    that is left out would turn an increment into something else. Reads that fail in a way that may pass are made
    again, whole, on a fresh connection, up to `retries` times with growing pauses, which `close` cuts short.
    """

    def __init__(
        self,
        address: Address,
        export: str = "",
        contexts: Sequence[str] = (BASE_ALLOCATION,),
        classify: Classify = allocated,
        *,
        security: Security = PLAIN,
        idle_timeout: float = DEFAULT_IDLE_TIMEOUT,
        retries: int = 3,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._where = f"export {export!r} of {address}"
        self._classify, self._retries = classify, retries
        self._closed = Event()
        self._sleep = sleep or self._closed.wait
        self._wanted = tuple(contexts)
        self._size: int | None = None
        self._pool = Pool(
            lambda opening: self._checked(
                Connection(address, export, self._wanted, security=security, idle_timeout=idle_timeout, opening=opening)
            )
        )
        self._try(lambda connection: None)

    @property
    def size(self) -> int:
        return self._size or 0  # known: the constructor has opened a connection

    def extents(self) -> Iterator[Extent]:
        return joined(classified(self.size, self._status, self._classify))

    def read_into(self, pieces: Sequence[Piece]) -> None:
        self._try(lambda connection: _read(connection, pieces))

    def close(self) -> None:
        """Reads that are under way fail at once, with `cancelled`."""
        self._closed.set()
        self._pool.close()

    def _status(self, offset: int, length: int) -> dict[str, Runs]:
        def ask(connection: Connection) -> dict[str, Runs]:
            return connection.block_status(offset, length) if connection.export.contexts else {}

        return self._try(ask) or {"": iter(((length, 0),))}

    def _try(self, use: Callable[[Connection], Result]) -> Result:
        pause = FIRST_PAUSE
        for attempt in range(self._retries + 1):
            try:
                with self._pool.connection() as connection:
                    return use(connection)
            except VmferryError as error:
                self._pool.discard_idle()
                if not error.retryable or attempt == self._retries:
                    raise
            self._sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        raise AssertionError("the last attempt returns or raises")

    def _checked(self, connection: Connection) -> Connection:
        """A fresh connection shows the same disk as the first."""
        try:
            missing = set(self._wanted) - set(connection.export.contexts.values()) - {BASE_ALLOCATION}
            if missing:
                raise VmferryError("not_found", f"The NBD server has no {', '.join(sorted(missing))} on {self._where}.")
            if self._size not in (None, connection.export.size):
                raise VmferryError(
                    "conflict",
                    f"The {self._where} had {self._size} bytes and has {connection.export.size} after reconnecting.",
                )
            self._size = connection.export.size
        except VmferryError:
            connection.close()
            raise
        return connection


def _read(connection: Connection, pieces: Sequence[Piece]) -> None:
    block = connection.export.min_block
    if block == 1:
        connection.read_into(pieces)
        return
    aligned: list[Piece] = []
    copies: list[tuple[memoryview, memoryview]] = []
    for offset, buffer in pieces:
        cut = split(offset, len(buffer), block)
        aligned.append((cut.body_start, buffer[cut.body_start - offset : cut.body_end - offset]))
        for start, end in cut.edges:
            outer = round_down(start, block)
            whole = memoryview(bytearray(round_up(end, block) - outer))
            aligned.append((outer, whole))
            copies.append((buffer[start - offset : end - offset], whole[start - outer : end - outer]))
    connection.read_into(aligned)
    for target, content in copies:
        target[:] = content
