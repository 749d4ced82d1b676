# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which reader an image gets, what it is known by, and what its name may say."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    insist_on_reader,
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.image_file import ImageFile
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.image_names import (
    names_image,
    without_ending,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.delegating import DelegatingStore
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .disks import GIB, content, content_of, run
from .hostile_images import descriptor, guest, image
from .other_formats import written
from .vhdx_layers import Layer, data_id, linked, write_layer

OF_OURS = {
    "disk.qcow2": ("qcow2", ""),
    "packed.qcow2": ("qcow2", "compression_type=zstd", "-c"),
    "disk.vmdk": ("vmdk", ""),
    "stream.vmdk": ("vmdk", "subformat=streamOptimized"),
    "disk.vhd": ("vpc", "force_size=on"),
    "fixed.vhd": ("vpc", "subformat=fixed,force_size=on"),
    "disk.vhdx": ("vhdx", ""),
    "disk.raw": ("raw", ""),
    "cloud.img": ("qcow2", ""),
    "UPPER.VHDX": ("vhdx", ""),
}
OF_QEMU = {
    "disk.vdi": ("vdi", ""),
    "disk.qed": ("qed", ""),
    "disk.qcow": ("qcow", ""),
    "old.qcow2": ("qcow2", "compat=0.10"),
    "large.qcow2": ("qcow2", "cluster_size=2M"),
    "narrow.qcow2": ("qcow2", "refcount_bits=1"),
}


class Elsewhere(DelegatingStore):
    """A store of which no other program of this host finds the files."""

    def location(self, key: str) -> str:
        return f"s3://bucket/{key}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(str(tmp_path), {})) as opened:
        yield opened


@pytest.mark.parametrize("name", [*OF_OURS, *OF_QEMU])
def test_qemu_reads_what_we_do_not_and_nothing_else(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(image(*{**OF_OURS, **OF_QEMU}[name]))
    found = stored_image(store, name)
    with open_image(found) as source:
        assert isinstance(source, NbdSource) == (name in OF_QEMU)
        assert content_of(source) == guest()
    elsewhere = stored_image(Elsewhere(store), name)
    if name in OF_OURS:
        insist_on_reader(elsewhere)
        with open_image(elsewhere) as source:
            assert content_of(source) == guest()
        return
    with pytest.raises(VmferryError, match="files of this host alone") as refused:
        insist_on_reader(elsewhere)
    assert refused.value.kind == "unsupported"


def test_a_table_that_was_moved_by_a_resize_is_read(store: Store, tmp_path: Path) -> None:
    """QEMU puts the first table of a disk that grew behind its data, where none of our own images has it."""
    path = tmp_path / "grown.qcow2"
    path.write_bytes(image("qcow2"))
    run("qemu-img", "resize", "-q", "-f", "qcow2", path, "5T")
    with open_image(stored_image(store, path.name)) as source:
        assert source.size == 5 << 40
        assert content_of(source, 0, len(guest())) == guest()
        assert [one.kind for one in source.extents()][-1] == "zero"


def test_an_image_is_known_by_its_very_file(store: Store, tmp_path: Path) -> None:
    for name in ("one.vhdx", "two.vhdx"):
        (tmp_path / name).write_bytes(image("vhdx"))
    known = [stored_image(store, name).identity for name in ("one.vhdx", "one.vhdx", "two.vhdx")]
    assert known[0] == known[1] != known[2]
    os.utime(tmp_path / "one.vhdx", ns=(1, 1))
    assert stored_image(store, "one.vhdx").identity not in known


@pytest.mark.parametrize("same_time", [False, True])
def test_an_image_in_several_files_is_known_by_all_of_them(store: Store, tmp_path: Path, same_time: bool) -> None:
    """By what the store knows of each; and where that is the same, by what it begins with."""
    part = tmp_path / "disk-flat.vmdk"
    part.write_bytes(b"1" * 4096)
    os.utime(part, ns=(1, 1))
    (tmp_path / "disk.vmdk").write_bytes(descriptor('RW 8 FLAT "disk-flat.vmdk" 0', kind="monolithicFlat"))
    known = [stored_image(store, "disk.vmdk").identity for _time in range(2)]
    part.write_bytes(b"2" * 4096 if same_time else b"1" * 4096)
    os.utime(part, ns=(1, 1) if same_time else (2, 2))
    assert known[0] == known[1] != stored_image(store, "disk.vmdk").identity


def test_a_layer_is_known_by_what_it_stands_on(store: Store, tmp_path: Path) -> None:
    base = tmp_path / "base.vhdx"
    base.write_bytes(image("vhdx"))
    write_layer(tmp_path / "top.avhdx", Layer(len(guest())), linked("base.vhdx", data_id(base)))
    known = stored_image(store, "top.avhdx").identity
    os.utime(base, ns=(1, 1))
    assert stored_image(store, "top.avhdx").identity != known


def test_a_table_that_is_too_large_for_our_reader_is_for_qemu(store: Store, tmp_path: Path) -> None:
    options = ["-q", "-f", "vhdx", "-o", "block_size=1M"]
    run("qemu-img", "create", *options, tmp_path / "large.vhdx", "2200G")
    found = stored_image(store, "large.vhdx")
    insist_on_reader(found)
    with open_image(found) as source:
        assert (type(source), source.size) == (NbdSource, 2200 * GIB)
    elsewhere = replace(found, files=(ImageFile(Elsewhere(store), found.file.info),))
    with pytest.raises(VmferryError, match="with features that are rare, which QEMU reads"):
        insist_on_reader(elsewhere)


def test_an_image_that_changes_while_it_is_read_is_told(store: Store, tmp_path: Path) -> None:
    (tmp_path / "one.vhdx").write_bytes(image("vhdx"))
    with pytest.raises(VmferryError, match="changed") as told, open_image(stored_image(store, "one.vhdx")):
        (tmp_path / "one.vhdx").write_bytes(image("vhdx"))
    assert told.value.kind == "conflict"


def test_an_archive_is_read_by_its_stream_and_proved_to_its_end(store: Store, tmp_path: Path) -> None:
    """Also ours, whose index says nothing of the sums."""
    (tmp_path / "disk.raw").write_bytes(guest())
    run("tar", "--format=oldgnu", "-cSzf", tmp_path / "theirs.tar.gz", "-C", tmp_path, "disk.raw")
    written("raw_tar_gz", tmp_path / "ours.tgz", len(guest()), [Extent(0, len(guest()), "data")])
    expected = {"theirs.tar.gz": guest(), "ours.tgz": content(0, len(guest()), 1)}
    for name, data in expected.items():
        for where in (store, Elsewhere(store)):
            found = stored_image(where, name)
            insist_on_reader(found)
            with open_image(found) as source:
                assert content_of(source, 0, len(data)) == data


DAMAGE = {
    "a byte of the sum": lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
    "the end is missing": lambda data: data[:-1],
    "more behind it": lambda data: data + b"something else",
    "a bomb behind it": lambda data: data + gzip.compress(bytes(80 << 20)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_only_the_end_of_an_archive_tells_is_an_error(store: Store, tmp_path: Path, name: str) -> None:
    (tmp_path / "disk.raw").write_bytes(guest())
    run("tar", "--format=oldgnu", "-cSzf", tmp_path / "a.tar.gz", "-C", tmp_path, "disk.raw")
    (tmp_path / "a.tar.gz").write_bytes(DAMAGE[name]((tmp_path / "a.tar.gz").read_bytes()))
    found = stored_image(store, "a.tar.gz")
    with open_image(found, in_part=True) as source:
        assert content_of(source, 0, 512) == guest()[:512]
    with pytest.raises(VmferryError) as told, open_image(found) as source:
        content_of(source)
    assert told.value.kind == "invalid_config"


def test_a_name_without_its_ending() -> None:
    found = [without_ending(name) for name in ("web.tar.gz", "Web.QCOW2", "web.1.vhdx", "web")]
    assert found == ["web", "Web", "web.1", "web"]


@pytest.mark.parametrize("url", ["/x/a.vhdx", "s3://b/a.QCOW2", "https://h/p/a.img", "file:///x/a.raw", "/x/a.vmdk"])
def test_a_name_says_that_it_is_an_image(url: str) -> None:
    assert names_image(url)
    assert not names_image(url.rpartition(".")[0])
    assert not names_image(f"{url}/exports")
