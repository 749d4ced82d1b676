# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A compressed archive is read at any offset, and what is wrong with it is told before anything is made of it."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._appliances import gzip_reader
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.appliance import open_appliance
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.gzip_reader import BLOCK, GzipReader
from ansible_collections.vmferry.migrate.plugins.module_utils._appliances.packages import ova_package
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

from .archives import archive, descriptor, sums


@cache
def content() -> bytes:
    return Random(1).randbytes(3 * BLOCK) + bytes(40 * BLOCK) + Random(2).randbytes(BLOCK + 77)


class Counted:
    """Plays ReadAt, and counts."""

    def __init__(self, data: bytes) -> None:
        self.data, self.bytes_read = data, 0

    def __call__(self, offset: int, buffer: memoryview) -> None:
        found = self.data[offset : offset + len(buffer)]
        assert len(found) == len(buffer)
        buffer[:] = found
        self.bytes_read += len(found)


def opened(*pieces: bytes, tail: bytes = b"") -> tuple[GzipReader, Counted]:
    data = Counted(b"".join(gzip.compress(piece, 1) for piece in pieces) + tail)
    return GzipReader(data, len(data.data), "x.ova.gz"), data


def read(reader: GzipReader, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    reader(offset, memoryview(buffer))
    return bytes(buffer)


def refusal(data: bytes) -> VmferryError:
    with pytest.raises(VmferryError) as raised:
        GzipReader(Counted(data), len(data), "x.ova.gz")
    return raised.value


@pytest.mark.parametrize("ends", [[], [BLOCK, BLOCK, BLOCK + 1]], ids=["one", "several"])
@pytest.mark.parametrize("most", [2, 128])
def test_any_run_of_it_is_what_was_compressed(ends: Sequence[int], most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_reader, "_MOST_STATES", most)
    monkeypatch.setattr(gzip_reader, "_KEPT_BLOCKS", 2)
    monkeypatch.setattr(gzip_reader, "_FIRST_SPACING", 1)
    pieces = [content()[start:end] for start, end in zip([0, *ends], [*ends, len(content())])]
    reader, _data = opened(*pieces, tail=bytes(512))
    assert reader.size == len(content())
    chosen = Random(3)
    for _unused in range(12):
        offset = chosen.randrange(len(content()))
        size = min(chosen.choice([1, 512, BLOCK + 5, 3 * BLOCK]), len(content()) - offset)
        assert read(reader, offset, size) == content()[offset : offset + size]


def test_what_is_read_in_about_its_order_is_decompressed_once_more() -> None:
    reader, data = opened(content())
    data.bytes_read = 0
    places = list(range(0, len(content()) - BLOCK, BLOCK))
    for at in range(0, len(places), 4):
        group = places[at : at + 4]
        Random(at).shuffle(group)
        with ThreadPoolExecutor(4) as threads:
            found = dict(zip(group, threads.map(lambda place: read(reader, place, BLOCK), group)))
        assert found == {place: content()[place : place + BLOCK] for place in group}
    assert data.bytes_read < 1.3 * len(data.data)


def test_an_appliance_in_it_is_read_as_any_other() -> None:
    files = {
        "app.ovf": descriptor([("disk-0.vmdk", "d", "1")], units="byte * 2^30"),
        "disk-0.vmdk": content()[: 4 * BLOCK],
    }
    packed = gzip.compress(archive({**files, "app.mf": sums(files)}), 1)
    reader = GzipReader(Counted(packed), len(packed), "x.ova.gz")
    appliance = open_appliance(ova_package(reader, reader.size, "x.ova.gz"))
    appliance.watched(appliance.machine.disks[0]).check()
    assert appliance.proves


def test_what_is_cut_damaged_or_no_gzip_is_refused() -> None:
    packed = gzip.compress(content()[: 2 * BLOCK], 1)
    assert "not whole" in str(refusal(packed[:-1]))
    assert "not whole" in str(refusal(packed[: len(packed) // 2]))
    assert "not whole" in str(refusal(b""))
    for at in (0, len(packed) // 2, len(packed) - 6):
        damaged = bytearray(packed)
        damaged[at] ^= 0xFF
        assert "no gzip, or is damaged" in str(refusal(bytes(damaged)))
    assert "no gzip, or is damaged" in str(refusal(packed + b"rubbish behind the end"))
    assert {refusal(packed[:-1]).kind, refusal(packed + b"rubbish").kind} == {"invalid_config"}


def test_what_gets_out_of_proportion_is_refused_before_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzip_reader, "_UNSUSPICIOUS", 8 * BLOCK)
    data = Counted(gzip.compress(bytes(64 * BLOCK), 9))
    with pytest.raises(VmferryError, match="more than 200 times its size") as raised:
        GzipReader(data, len(data.data), "x.ova.gz")
    assert raised.value.kind == "unsupported"
    assert "nothing in them" in str(refusal(gzip.compress(b"") * 2000))


def test_a_read_behind_its_end_is_refused() -> None:
    reader, _data = opened(b"x" * 10)
    with pytest.raises(VmferryError, match="ends before"):
        read(reader, 5, 6)
