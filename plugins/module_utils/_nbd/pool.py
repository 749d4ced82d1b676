# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to one export, each lent to one thread at a time."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Condition
from typing import Callable, Iterator, Sequence

from .._errors import VmferryError
from .connection import Connection
from .handshake import Opening
from .transport import Transport


class Pool:
    """Opens a connection when all are lent out, up to `limit` (0: without one). Broken ones are not kept."""

    def __init__(
        self, connect: Callable[[Opening], Connection], limit: int = 0, idle: Sequence[Connection] = ()
    ) -> None:
        self._connect, self._limit = connect, limit
        self._changed = Condition()
        self._idle = list(idle)
        self._lent: set[Connection] = set()
        self._opening = 0
        self._streams: set[Transport] = set()  # on which a handshake is under way
        self._closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        connection = self._borrow()
        try:
            yield connection
        except VmferryError as error:
            if self._closed:
                raise _cancelled() from error
            raise
        finally:
            self._give_back(connection)

    def discard_idle(self) -> None:
        """After a failure: what hit one connection has most likely hit them all."""
        with self._changed:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Whoever still uses a connection fails at once, with `cancelled`."""
        with self._changed:
            self._closed = True
            for connection in self._lent:
                connection.abort()
            for stream in self._streams:
                stream.abort()
            self._changed.notify_all()
        self.discard_idle()

    def _borrow(self) -> Connection:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._idle or self._may_open())
            self._refuse_when_closed()
            if self._idle:
                connection = self._idle.pop()
                self._lent.add(connection)
                return connection
            self._opening += 1
        streams: list[Transport] = []

        def opening(stream: Transport) -> None:
            streams.append(stream)
            with self._changed:
                self._streams.add(stream)
                if self._closed:
                    stream.abort()

        try:
            opened = self._connect(opening)
        except BaseException as error:
            with self._changed:
                self._opening -= 1
                self._streams.difference_update(streams)
                self._changed.notify()
            if self._closed and isinstance(error, VmferryError):
                raise _cancelled() from error
            raise
        with self._changed:
            self._opening -= 1
            self._streams.difference_update(streams)
            self._lent.add(opened)
            if self._closed:
                opened.abort()
        return opened

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise _cancelled()

    def _may_open(self) -> bool:
        return not self._limit or len(self._lent) + self._opening < self._limit

    def _give_back(self, connection: Connection) -> None:
        with self._changed:
            self._lent.discard(connection)
            keep = connection.usable and not self._closed
            if keep:
                self._idle.append(connection)
            self._changed.notify()
        if not keep:
            connection.close()


def _cancelled() -> VmferryError:
    return VmferryError("cancelled", "The connections to the NBD server were closed.")
