# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing to real exports, judged by reading the image with qemu-img or nbdkit's own file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.connection import Connection
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.qemu_nbd import serve
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.sink import NbdSink
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.transport import Address
from rigs import nbd
from rigs.nbd_images import MIB, judged


def test_what_is_written_is_in_the_image(tmp_path: Path) -> None:
    image, size = tmp_path / "disk.qcow2", 24 * MIB + 512
    nbd.qemu_img("create", "-q", "-f", "qcow2", image, size)
    expected = bytearray(size)
    with serve(image, "qcow2", read_only=False, socket_dir=tmp_path) as server:
        sink = NbdSink(server.address, reads_zero=True)
        assert (sink.size, sink.reads_zero) == (size, True)
        for offset, length in [(0, 10 * MIB), (12 * MIB + 512, 65536), (size - 512, 512), (15 * MIB + 1, 3)]:
            expected[offset : offset + length] = os.urandom(length)
            sink.write([(offset, memoryview(expected)[offset : offset + length])])
        expected[MIB : 2 * MIB] = bytes(MIB)
        sink.zero(MIB, MIB)
        sink.flush()
        sink.close()
    assert judged(image, "qcow2").content == expected
    nbd.qemu_img("check", "-f", "qcow2", image)


def test_threads_write_one_sink(tmp_path: Path) -> None:
    image, size, step = tmp_path / "disk.raw", 16 * MIB, 256 * 1024
    nbd.qemu_img("create", "-q", "-f", "raw", image, size)
    expected = os.urandom(size)
    with serve(image, "raw", read_only=False, socket_dir=tmp_path) as server:
        sink = NbdSink(server.address)

        def write(number: int) -> None:
            for at in range(number * step, size, 4 * step):
                sink.write([(at, memoryview(expected)[at : at + step])])

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sink.flush()
        sink.close()
    assert image.read_bytes() == expected


def test_half_blocks_keep_their_neighbours(tmp_path: Path) -> None:
    """A server of 4 KiB blocks that refuses anything else."""
    image = tmp_path / "disk.raw"
    expected = bytearray(os.urandom(MIB))
    image.write_bytes(expected)
    policy = ["blocksize-minimum=4096", "blocksize-error-policy=error"]
    with nbd.nbdkit("--filter=blocksize-policy", "file", f"file={image}", *policy) as path:
        sink = NbdSink(Address.unix(path))
        for offset, length in [(10, 20), (4000, 200), (8192, 4096), (20000, 50000), (MIB - 1, 1)]:
            expected[offset : offset + length] = os.urandom(length)
            sink.write([(offset, memoryview(expected)[offset : offset + length])])
        for offset, length in [(100_000, 100), (200_001, 100_001)]:
            expected[offset : offset + length] = bytes(length)
            sink.zero(offset, length)
        sink.flush()
        sink.close()
        assert image.read_bytes() == expected


def test_server_that_cannot_zero_gets_zeros(tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    image.write_bytes(b"\xaa" * 3 * MIB)
    with nbd.nbdkit("--filter=nozero", "file", f"file={image}", "zeromode=none") as path:
        sink = NbdSink(Address.unix(path))
        sink.zero(512, 2 * MIB)
        sink.flush()
        sink.close()
    assert image.read_bytes() == b"\xaa" * 512 + bytes(2 * MIB) + b"\xaa" * (MIB - 512)


def test_zeros_become_holes_unless_forbidden(tmp_path: Path) -> None:
    blocks = {}
    for no_hole in (False, True):
        image = tmp_path / f"{no_hole}.raw"
        image.write_bytes(b"\xaa" * 4 * MIB)
        with serve(image, "raw", read_only=False, socket_dir=tmp_path) as server:
            sink = NbdSink(server.address, no_hole=no_hole)
            sink.zero(0, 4 * MIB)
            sink.flush()
            sink.close()
        assert image.read_bytes() == bytes(4 * MIB)
        blocks[no_hole] = image.stat().st_blocks
    assert blocks[False] < blocks[True]


def test_a_command_that_the_server_does_not_offer_is_never_sent(served: Path) -> None:
    connection = Connection(Address.unix(served))
    with pytest.raises(VmferryError) as caught:
        connection.write_zeroes(0, 4096)
    assert caught.value.kind == "unsupported"
    connection.read_into([(0, memoryview(bytearray(512)))])
    connection.close()


def test_full_server_is_no_space(tmp_path: Path) -> None:
    with nbd.nbdkit("full", "4M") as path:
        sink = NbdSink(Address.unix(path))
        with pytest.raises(VmferryError, match="no space") as caught:
            sink.write([(0, memoryview(b"x" * 512))])
        assert (caught.value.kind, caught.value.retryable) == ("no_space", False)
        sink.close()


def test_forbidden_write_is_permission_denied() -> None:
    script = [
        "get_size=echo 1M",
        "pread=dd if=/dev/zero count=$3 iflag=count_bytes",
        "pwrite=cat > /dev/null; echo EPERM no >&2; exit 1",  # or nbdkit's own pipe breaks first, now and then
    ]
    with nbd.nbdkit("eval", *script) as path:
        sink = NbdSink(Address.unix(path))
        with pytest.raises(VmferryError) as caught:
            sink.write([(0, memoryview(b"x" * 512))])
        assert caught.value.kind == "permission_denied"
        sink.close()


def test_read_only_export_is_refused_before_the_first_byte(served: Path) -> None:
    with pytest.raises(VmferryError, match="read-only") as caught:
        NbdSink(Address.unix(served))
    assert caught.value.kind == "permission_denied"


def test_server_that_wants_one_connection_gets_one(tmp_path: Path) -> None:
    """A flush that covers only its own connection's writes would lose the others'."""
    image = tmp_path / "disk.raw"
    image.write_bytes(bytes(MIB))
    words = ("--filter=multi-conn", "--filter=limit", "file", f"file={image}", "multi-conn-mode=disable", "limit=2")
    with nbd.nbdkit(*words) as path:
        sink = NbdSink(Address.unix(path), idle_timeout=5)

        def write(number: int) -> None:
            for at in range(8):
                sink.write([((number * 8 + at) * 512, memoryview(bytes([number + 1]) * 512))])

        threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(sink._pool._idle) == 1
        sink.flush()
        sink.close()
    assert image.read_bytes()[: 6 * 4096] == b"".join(bytes([number + 1]) * 4096 for number in range(6))
