# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading real exports: every byte as `qemu-img convert` sees it, and extents that tell the truth."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.classification import (
    ALLOCATION_DEPTH,
    changed_since,
    dirty_bitmap,
    own_layer,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.connection import (
    Connection,
    describe_export,
    list_exports,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.protocol import BASE_ALLOCATION
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from rigs import nbd
from rigs.nbd_images import MIB, Image, judged, made, read_all


def assert_tiled(extents: list[Extent], size: int) -> None:
    assert [extent.offset for extent in extents] == [0, *[extent.end for extent in extents[:-1]]]
    assert extents[-1].end == size
    assert all(one.kind != other.kind for one, other in zip(extents, extents[1:])), "not joined"


def test_every_byte_is_what_qemu_img_reads(served: Path, islands: Image) -> None:
    source = NbdSource(Address.unix(served))
    assert read_all(source) == islands.content
    source.close()


def test_zero_extents_are_zero_and_data_is_nowhere_else(served: Path, islands: Image) -> None:
    source = NbdSource(Address.unix(served))
    extents = list(source.extents())
    assert_tiled(extents, len(islands.content))
    for extent in extents:
        if extent.kind == "zero":
            assert not any(islands.content[extent.offset : extent.end])
    assert Extent(2 * MIB, 128 * 1024, "zero") in extents
    assert Extent(8 * MIB + 256 * 1024, 64 * 1024, "zero") in extents
    source.close()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 65537, 2 * MIB + 1])
def test_disks_of_odd_sizes(tmp_path: Path, size: int) -> None:
    image = tmp_path / "odd.raw"
    image.write_bytes(bytes(number % 251 + 1 for number in range(size)))
    with nbd.nbdkit("file", f"file={image}") as path:
        source = NbdSource(Address.unix(path))
        assert source.size == size
        assert read_all(source) == image.read_bytes()
        assert sum(extent.length for extent in source.extents()) == size
        source.close()


def test_many_threads_read_one_source(served: Path, islands: Image) -> None:
    source = NbdSource(Address.unix(served))
    content = memoryview(bytearray(b"\xee" * source.size))
    step = 48 * 1024 + 512  # across clusters

    def read(number: int) -> None:
        for start in range(number * step, source.size, 8 * step):
            source.read_into([(start, content[start : start + step])])

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bytes(content) == islands.content
    source.close()


def test_discarded_range_of_an_increment_hides_the_parent(tmp_path: Path) -> None:
    image = made(tmp_path / "disk.qcow2", "qcow2", 8 * MIB, "write -P 0xaa 0 4M").path
    nbd.qemu_img("bitmap", "--add", "-g", 65536, image, "since")
    nbd.qemu_io(image, "qcow2", "write -P 0xbb 1M 64k", "write -z -u 2M 64k")
    with nbd.qemu_nbd(image, "qcow2", "--read-only", "--bitmap=since") as path:
        contexts = (BASE_ALLOCATION, dirty_bitmap("since"))
        source = NbdSource(Address.unix(path), contexts=contexts, classify=changed_since("since"))
        assert list(source.extents()) == [
            Extent(0, MIB, "unchanged"),
            Extent(MIB, 65536, "data"),
            Extent(MIB + 65536, MIB - 65536, "unchanged"),
            Extent(2 * MIB, 65536, "zero"),
            Extent(2 * MIB + 65536, 6 * MIB - 65536, "unchanged"),
        ]
        assert read_all(source) == judged(image, "qcow2").content
        source.close()


def test_allocation_depth_tells_what_a_layer_holds_itself(tmp_path: Path) -> None:
    base = made(tmp_path / "base.qcow2", "qcow2", 8 * MIB, "write -P 0xaa 0 4M").path
    overlay = tmp_path / "overlay.qcow2"
    nbd.qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", overlay)
    nbd.qemu_io(overlay, "qcow2", "write -P 0xbb 1M 64k", "write -z 2M 64k")
    with nbd.qemu_nbd(overlay, "qcow2", "--read-only", "--allocation-depth") as path:
        source = NbdSource(Address.unix(path), contexts=(BASE_ALLOCATION, ALLOCATION_DEPTH), classify=own_layer)
        kinds = [extent for extent in source.extents() if extent.kind != "unchanged"]
        assert kinds == [Extent(MIB, 65536, "data"), Extent(2 * MIB, 65536, "zero")]
        source.close()


def test_a_missing_bitmap_is_an_error_not_a_full(served: Path) -> None:
    with pytest.raises(VmferryError, match="no qemu:dirty-bitmap:lost") as caught:
        NbdSource(Address.unix(served), contexts=(BASE_ALLOCATION, dirty_bitmap("lost")))
    assert caught.value.kind == "not_found"


@pytest.mark.parametrize(
    "old", [["--no-sr"], ["--mask-handshake=0"], ["--mask-handshake=1"], ["--no-sr", "--mask-handshake=2"]]
)
def test_older_servers_are_one_extent_of_data(old: list[str], pattern: bytes) -> None:
    with nbd.nbdkit(*old, "pattern", "4M") as path:
        source = NbdSource(Address.unix(path))
        assert read_all(source) == pattern
        if old != ["--mask-handshake=1"]:
            assert list(source.extents()) == [Extent(0, 4 * MIB, "data")]
        source.close()


def test_server_without_block_status_is_one_extent_of_data(pattern: bytes) -> None:
    with nbd.nbdkit("--filter=noextents", "pattern", "4M") as path:
        source = NbdSource(Address.unix(path))
        assert list(source.extents()) == [Extent(0, 4 * MIB, "data")]
        source.close()


def test_extents_of_a_checkerboard_come_in_linear_time(tmp_path: Path) -> None:
    """400,000 extents; a quadratic merge would need minutes."""
    extent_list = tmp_path / "extents"
    count, step = 400_000, 4096
    extent_list.write_text("".join(f"{at * step} {step} {'hole,zero' if at % 2 else ''}\n" for at in range(count)))
    words = ("--filter=extentlist", "null", f"size={count * step}", f"extentlist={extent_list}")
    with nbd.nbdkit(*words) as path:
        source = NbdSource(Address.unix(path))
        started = time.process_time()
        assert sum(1 for _unused in source.extents()) == count
        assert time.process_time() - started < 20
        source.close()


def test_reads_of_any_alignment_from_a_server_of_4_kib_blocks(pattern: bytes) -> None:
    policy = ["blocksize-minimum=4096", "blocksize-error-policy=error", "blocksize-maximum=64K"]
    with nbd.nbdkit("--filter=blocksize-policy", "pattern", "4M", *policy) as path:
        assert describe_export(Address.unix(path)).min_block == 4096
        assert describe_export(Address.unix(path)).max_payload == 65536
        source = NbdSource(Address.unix(path))
        assert read_all(source) == pattern
        for offset, length in [(1, 1), (4095, 2), (4096, 4096), (1, 12288), (100, 100_000), (4 * MIB - 1, 1)]:
            buffer = memoryview(bytearray(length))
            source.read_into([(offset, buffer)])
            assert buffer == pattern[offset : offset + length]
        source.close()


def test_exports_are_listed_and_found_by_name(islands: Image) -> None:
    with nbd.qemu_nbd(islands.path, "qcow2", "--read-only", "--export-name=vda") as path:
        assert list_exports(Address.unix(path)) == ["vda"]
        described = describe_export(Address.unix(path), "vda")
        assert (described.size, described.read_only) == (len(islands.content), True)
        with pytest.raises(VmferryError, match="no such export") as caught:
            NbdSource(Address.unix(path), "vdb")
        assert caught.value.kind == "not_found"


def test_tcp(pattern: bytes) -> None:
    with nbd.nbdkit_tcp("pattern", "4M") as port:
        source = NbdSource(Address.tcp("127.0.0.1", port))
        assert read_all(source) == pattern
        source.close()


def test_a_used_connection_is_used_again(served: Path) -> None:
    source = NbdSource(Address.unix(served))
    opened: list[Connection] = []
    for _unused in range(20):
        source.read_into([(0, memoryview(bytearray(512)))])
        with source._pool.connection() as connection:
            opened.append(connection)
    assert len(set(opened)) == 1
    source.close()
