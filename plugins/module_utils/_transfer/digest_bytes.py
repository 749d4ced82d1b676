# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SHA-256 of bytes that lie somewhere: what comes next is read while what came before is digested."""

from __future__ import annotations

from hashlib import sha256
from threading import Lock
from typing import Callable

from .flow import Flow, Turns
from .move_bytes import ByteSource
from .workers import run_workers

PIECE = 4 * 1024 * 1024  # bytes of one read; each waits once for a far store to answer
READERS = 3


def digest_of(source: ByteSource, flow: Flow, alive: Callable[[], object]) -> str:
    """In hex. `alive` is called for each piece. Holds `READERS` pieces in memory, and of a small source all of it."""
    whole, turns, lock = sha256(), Turns(flow), Lock()
    numbers = iter(range(-(-source.size // PIECE)))

    def take() -> int | None:
        with lock:
            return next(numbers, None)

    def work() -> None:
        buffer = memoryview(bytearray(min(PIECE, source.size)))
        while (number := take()) is not None:
            flow.raise_if_stopped()
            piece = buffer[: min(PIECE, source.size - number * PIECE)]
            source.read_into(number * PIECE, piece)
            with turns.turn(number):
                whole.update(piece)
            alive()

    if source.size <= PIECE:
        work()
    else:
        run_workers(flow, min(READERS, -(-source.size // PIECE)), work)
    return whole.hexdigest()
