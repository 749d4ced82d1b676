# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies somewhere is digested in order, while more of it is read."""

from __future__ import annotations

from hashlib import sha256
from random import Random
from threading import Event

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_bytes import PIECE, digest_of
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow, Stopped

DATA = Random(7).randbytes(2 * PIECE + 99)


class Memory:
    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.data[offset : offset + len(buffer)]


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, len(DATA)])
def test_the_digest_is_of_all_bytes_in_order(size: int) -> None:
    signs: list[None] = []
    assert digest_of(Memory(DATA[:size]), Flow(), lambda: signs.append(None)) == sha256(DATA[:size]).hexdigest()
    assert len(signs) == -(-size // PIECE)


def test_the_next_piece_is_read_while_one_is_waited_for() -> None:
    later = Event()

    class Slow(Memory):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            if offset:
                later.set()
            assert later.wait(10.0)
            super().read_into(offset, buffer)

    assert digest_of(Slow(DATA), Flow(), lambda: None) == sha256(DATA).hexdigest()


def test_what_cannot_be_read_ends_it() -> None:
    class Broken(Memory):
        def read_into(self, offset: int, buffer: memoryview) -> None:
            if offset == PIECE:
                raise VmferryError("network", "The network is gone.")

    with pytest.raises(VmferryError, match="gone"):
        digest_of(Broken(DATA), Flow(), lambda: None)


@pytest.mark.parametrize("size", [PIECE, len(DATA)])
def test_a_job_that_is_stopped_reads_no_more(size: int) -> None:
    flow = Flow()
    flow.stop(VmferryError("cancelled", "Enough."))
    with pytest.raises((Stopped, VmferryError)):
        digest_of(Memory(DATA[:size]), flow, lambda: None)
