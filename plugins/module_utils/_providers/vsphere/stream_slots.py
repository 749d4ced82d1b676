# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many streams one ESXi host sends at once: it has 48 MB of buffers for all that reads disks of it over its network
file copy, and other backups want some, too ("NFC session limits", in VMware's guide to virtual disk programming).
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from threading import Condition
from typing import Callable, Dict, Iterator, List, Optional

from ..._errors import VmferryError
from .disk_stream import DiskStream

STREAMS = 4  # at once, of one host
IDLE = 30.0  # seconds after which a stream that nobody reads takes no place: nobody may ever read its end
_LOOK = 1.0  # seconds between two looks whether one is idle by now


class Slot:
    """The place of one stream."""

    def __init__(self) -> None:
        self._reading = 0
        self._read_at = time.monotonic()

    @contextmanager
    def reading(self) -> Iterator[None]:
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1
            self._read_at = time.monotonic()

    @property
    def is_idle(self) -> bool:
        return not self._reading and time.monotonic() - self._read_at > IDLE


class StreamSlots:
    """Of all hosts; threads share it."""

    def __init__(self, streams: int = STREAMS) -> None:
        self._streams = streams
        self._changed = Condition()
        self._taken: Dict[str, List[Slot]] = {}

    def take(self, host: str, is_closed: Callable[[], bool]) -> Slot:
        """Waits for one. Raises `cancelled` once `is_closed`; `wake` has it looked at."""
        with self._changed:
            taken = self._taken.setdefault(host, [])
            while sum(not slot.is_idle for slot in taken) >= self._streams:
                if is_closed():
                    raise VmferryError("cancelled", f"Nobody waits for a stream of {host} any more.")
                self._changed.wait(_LOOK)
            slot = Slot()
            taken.append(slot)
            return slot

    def give_back(self, host: str, slot: Slot) -> None:
        """More than once is no error."""
        with self._changed:
            taken = self._taken.get(host, [])
            if slot in taken:
                taken.remove(slot)
                self._changed.notify_all()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()


class SlottedStream:
    """A stream of a file that takes its host's slot with its first read, and gives it back at its end."""

    def __init__(self, stream: DiskStream, slots: StreamSlots) -> None:
        self._stream, self._slots = stream, slots
        self._slot: Optional[Slot] = None
        self._is_closed = False

    @property
    def size(self) -> int:
        return self._stream.size

    @property
    def sha1(self) -> str:
        return self._stream.sha1

    def read(self, count: int) -> bytes:
        if self._slot is None:
            self._slot = self._slots.take(self._stream.host, lambda: self._is_closed)
        with self._slot.reading():
            data = self._stream.read(count)
        if not data:
            self._slots.give_back(self._stream.host, self._slot)
        return data

    def interrupt(self) -> None:
        self._stream.interrupt()

    def close(self) -> None:
        self._is_closed = True
        self._stream.close()
        self._slots.wake()
        if self._slot is not None:
            self._slots.give_back(self._stream.host, self._slot)
