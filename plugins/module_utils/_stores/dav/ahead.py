# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pieces of bytes read ahead by a thread of their own, while those before them are sent."""

from __future__ import annotations

from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Generator, Iterator, Optional, Type, Union

from ..._errors import VmferryError

_LOOK = 0.1  # seconds between two looks whether anybody still wants it


class ReadAhead:
    """At most `depth` pieces wait. Leaving the block ends the thread, wherever it is."""

    def __init__(self, pieces: Generator[bytes, None, None], depth: int = 4) -> None:
        self._pieces = pieces
        self._read: Queue[Union[bytes, VmferryError, None]] = Queue(depth)
        self._unwanted = Event()
        self._reader = Thread(target=self._fetch, name="http-read-ahead", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._reader.start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._unwanted.set()
        self._reader.join()

    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                found = self._read.get(timeout=_LOOK)
            except Empty:
                if self._unwanted.is_set():
                    return
                continue
            if found is None:
                return
            if isinstance(found, VmferryError):
                raise found
            yield found

    def _fetch(self) -> None:
        end: Optional[VmferryError] = VmferryError("internal", "Reading ahead ended before its end.")
        try:
            for piece in self._pieces:
                if not self._give(piece):
                    return
            end = None
        except VmferryError as error:
            end = error
        finally:
            self._pieces.close()
            self._give(end)

    def _give(self, found: Union[bytes, VmferryError, None]) -> bool:
        while not self._unwanted.is_set():
            try:
                self._read.put(found, timeout=_LOOK)
            except Full:
                continue
            return True
        return False
