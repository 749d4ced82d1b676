# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inspector: what anybody's programs write is understood, and each lie is refused by its name."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.approved_node import approved_node
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.image import inspect_image
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.reading import ReadAhead
from ansible_collections.vmferry.migrate.plugins.module_utils._images.inspect.words import Description, Limits
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.codecs import codec_named

from . import hostile_images as hostile
from .disks import GIB, KIB, MIB, RangedFile, content, islands, packed, run
from .hostile_archives import of_disk, sealed, sparse
from .hostile_archives import put as put_in_header
from .hostile_images import SIZE, at_once, boot_sector, descriptor, disk_of, image, put, vhd, vhd_header, vhdx_headers
from .other_formats import written


def inspected(data: bytes, expected: str = "", limits: Limits | None = None, header_only: bool = False) -> Description:
    file = RangedFile(data)
    return inspect_image(file, file.size, expected=expected, limits=limits or Limits(), header_only=header_only)


def names(found: Description) -> list[str]:
    return [name for name, _unused in found.objections]


@pytest.mark.parametrize(
    ("options", "described"),
    {
        ("qcow2", ""): ("qcow2", "3"),
        ("qcow2", "compat=0.10"): ("qcow2", "2"),
        ("qcow2", "cluster_size=512"): ("qcow2", "3"),
        ("qcow2", "cluster_size=2M,extended_l2=on"): ("qcow2", "3"),
        ("qcow2", "preallocation=metadata"): ("qcow2", "3"),
        ("qcow2", "", "-c"): ("qcow2", "3"),
        ("qcow2", "compression_type=zstd", "-c"): ("qcow2", "3"),
        ("qcow", ""): ("qcow", "1"),
        ("qed", ""): ("qed", ""),
        ("vdi", ""): ("vdi", "dynamic"),
        ("vdi", "static=on"): ("vdi", "static"),
        ("vmdk", "subformat=monolithicSparse"): ("vmdk", "monolithicSparse"),
        ("vmdk", "subformat=streamOptimized"): ("vmdk", "streamOptimized"),
        ("vpc", "force_size=on"): ("vhd", "dynamic"),
        ("vpc", "subformat=fixed,force_size=on"): ("vhd", "fixed"),
        ("vhdx", ""): ("vhdx", "dynamic"),
        ("vhdx", "subformat=fixed"): ("vhdx", "fixed"),
        ("raw", ""): ("raw", ""),
    }.items(),
)
def test_what_qemu_writes_is_understood(options: tuple[str, ...], described: tuple[str, str]) -> None:
    found = inspected(image(*options))
    assert (found.objections, found.format, found.subformat, found.size) == ((), *described, SIZE)
    for expected in ("", described[0]):
        assert inspected(image(*options), expected, header_only=True).objections == ()


@pytest.mark.parametrize(
    ("options", "cluster"),
    [("", 64 * KIB), ("cluster_size=2M", 2 * MIB), ("cluster_size=2M,extended_l2=on", 2 * MIB)],
)
def test_a_file_that_ends_within_what_the_guest_has_in_its_last_cluster_is_cut_off(
    tmp_path: Path, options: str, cluster: int
) -> None:
    """QEMU would read zeros for what is missing."""
    (tmp_path / "disk").write_bytes(content(0, 2 * MIB + 512, 7))
    words = ["-f", "raw", "-O", "qcow2", *(["-o", options] if options else [])]
    run("qemu-img", "convert", *words, tmp_path / "disk", tmp_path / "image")
    whole = (tmp_path / "image").read_bytes()
    needed = (len(whole) - 1) // cluster * cluster + 512
    assert inspected(whole).objections == ()
    assert inspected(whole[:needed]).objections == (), "the rest is behind the end of the disk"
    assert names(inspected(whole[: needed - 1])) == ["truncated"]


def test_what_this_collection_writes_is_understood(tmp_path: Path) -> None:
    runs = [Extent(0, 3 * LEAF, "data"), Extent(600 * MIB, 2 * LEAF, "data")]
    plain = packed(tmp_path / "plain", GIB, runs).read_bytes()
    assert inspected(plain).objections == ()
    assert inspected(plain).size == GIB
    made = packed(tmp_path / "packed", GIB, runs, codec=codec_named("zlib"))
    assert inspected(made.read_bytes()).objections == ()
    child = inspected(packed(tmp_path / "child", LEAF, [], backing="../parent/disk-0.qcow2").read_bytes())
    assert (names(child), child.backing_file) == (["backing_file"], "../parent/disk-0.qcow2")


@pytest.mark.parametrize("format", ["vmdk", "vmdk_sparse", "vhd", "vhd_dynamic", "vhdx", "raw"])
def test_further_formats_of_this_collection_are_understood(format: str, tmp_path: Path) -> None:
    size = 70 * MIB  # of whole mebibytes, as a VHD is
    runs = [Extent(0, 3 * LEAF, "data"), Extent(40 * MIB, 2 * LEAF, "data")]
    found = inspected(written(format, tmp_path / "image", size, runs).read_bytes())
    assert (found.objections, found.format, found.size) == ((), format.partition("_")[0], size)


def test_a_disk_in_a_gzipped_archive_is_understood_and_not_told_to_qemu(tmp_path: Path) -> None:
    runs = [Extent(number * 2 * MIB, LEAF, "data") for number in range(30)]
    data = written("raw_tar_gz", tmp_path / "image", 70 * MIB, runs).read_bytes()
    for expected in ("", "raw_tar_gz"):
        found = inspected(data, expected)
        assert (found.objections, found.format, found.subformat, found.size) == ((), "raw_tar_gz", "sparse", GIB)
    with pytest.raises(VmferryError, match="which QEMU does not read"):
        approved_node(found, "/image", "it")
    plain = of_disk(sealed(put_in_header(124, b"%011o" % (2 * GIB))))
    assert names(inspected(plain)) == ["expansion"]
    assert inspected(plain, limits=Limits(decompressed=2 * GIB)).objections == ()
    assert names(inspected(data, limits=Limits(virtual_size=GIB - 1))) == ["virtual_size"]


RAW_DISKS: dict[str, tuple[dict[int, bytes], str]] = {
    "mbr": ({0: boot_sector()}, "mbr"),
    "gpt": ({0: boot_sector(), 512: b"EFI PART"}, "gpt, mbr"),
    "iso": ({0x8001: b"CD001"}, "iso"),
    "an iso to boot from": ({0: boot_sector(), 0x8001: b"CD001"}, "mbr, iso"),
    "nothing": ({}, ""),
}


@pytest.mark.parametrize("kind", RAW_DISKS)
def test_what_a_raw_disk_holds_is_told(kind: str) -> None:
    holds, described = RAW_DISKS[kind]
    data = disk_of(holds) if holds else b""
    found = inspected(data, "raw")
    assert (found.objections, found.format, found.subformat, found.size) == ((), "raw", described, len(data))


qcow2, sparse_vmdk = partial(image, "qcow2"), partial(image, "vmdk")
stream = partial(image, "vmdk", "subformat=streamOptimized")
dynamic_vhd, vhdx = partial(image, "vpc", "force_size=on"), partial(image, "vhdx")
BEYOND_ALL = 1 << 50  # 1 PiB

LIES: dict[str, tuple[Callable[[], bytes], str]] = {  # each made where it is told
    "qcow2 on a file of the host": (lambda: hostile.qcow2_backed_by("/etc/shadow")(qcow2()), "backing_file"),
    "qcow2 on a file beside it": (lambda: hostile.qcow2_backed_by("secret")(qcow2()), "backing_file"),
    "qcow2 on json:": (lambda: hostile.qcow2_backed_by('json:{"driver":"raw"}')(qcow2()), "backing_file"),
    "qcow2 on a server": (lambda: hostile.qcow2_backed_by("nbd://169.254.169.254/x")(qcow2()), "backing_file"),
    "qcow2 on a name without length": (lambda: put(">Q", 8, 4096)(qcow2()), "backing_file"),
    "qcow2 on a name of 60 KiB": (lambda: put(">QI", 8, 512, 60 * KIB)(qcow2()), "backing_file"),
    "qcow2 on a name beyond its cluster": (lambda: put(">QI", 8, 1 << 40, 8)(qcow2()), "backing_file"),
    "qcow2 with a data file": (lambda: hostile.qcow2_data_file("/etc/shadow")(qcow2()), "data_file"),
    "qcow2 with a data file and no name": (lambda: put(">Q", 72, 4)(qcow2()), "data_file"),
    "qcow2 with a data file's name": (
        lambda: hostile.qcow2_with_extension(0x44415441, b"/etc/shadow")(qcow2()), "data_file"
    ),
    "qcow2 of a PiB": (lambda: put(">Q", 24, BEYOND_ALL)(qcow2()), "virtual_size"),
    "qcow2 with an L1 bomb": (lambda: put(">I", 36, 0xFFFFFFFF)(qcow2()), "tables"),
    "qcow2 with a refcount bomb": (lambda: put(">I", 56, 0xFFFFFFFF)(qcow2()), "tables"),
    "qcow2 with a snapshot bomb": (lambda: put(">I", 60, 0xFFFFFFFF)(qcow2()), "tables"),
    "qcow2 with a short L1 table": (lambda: put(">Q", 24, 1 << 40)(qcow2()), "damaged"),
    "qcow2 with an L1 table off its place": (lambda: put(">Q", 40, 8)(qcow2()), "damaged"),
    "qcow2 with its header as L1 table": (lambda: put(">Q", 40, 0)(qcow2()), "overlap"),
    "qcow2 of version 4": (lambda: put(">I", 4, 4)(qcow2()), "unknown_feature"),
    "qcow2 with a feature of the future": (lambda: put(">Q", 72, 1 << 5)(qcow2()), "unknown_feature"),
    "qcow2 with another feature of the future": (lambda: put(">Q", 72, 1 << 63)(qcow2()), "unknown_feature"),
    "qcow2 with a header of the future": (
        lambda: hostile.qcow2_with_extension(0x12345678, b"x")(qcow2()), "unknown_feature"
    ),
    "qcow2 with a longer header": (lambda: at_once(put(">I", 100, 120), put(">Q", 112, 1))(qcow2()), "unknown_feature"),
    "qcow2 with an endless extension": (
        lambda: hostile.qcow2_with_extension(0x6803F857, b"x", 1 << 31)(qcow2()), "damaged"
    ),
    "qcow2 encrypted in an unknown way": (lambda: put(">I", 32, 3)(qcow2()), "unknown_feature"),
    "qcow2 encrypted": (lambda: put(">I", 32, 1)(qcow2()), "encrypted"),
    "qcow2 compressed in an unknown way": (
        lambda: at_once(put(">Q", 72, 8), put(">B", 104, 2))(qcow2()), "unknown_feature"
    ),
    "qcow2 that was not closed": (lambda: put(">Q", 72, 1)(qcow2()), "dirty"),
    "qcow2 that is corrupt": (lambda: put(">Q", 72, 2)(qcow2()), "corrupt"),
    "qcow2 with a snapshot": (lambda: put(">I", 60, 1)(qcow2()), "internal_snapshots"),
    "qcow2 with clusters of 2 GiB": (lambda: put(">I", 20, 31)(qcow2()), "damaged"),
    "qcow2 with one cluster twice": (lambda: hostile.qcow2_cluster_twice(qcow2()), "overlap"),
    "qcow2 with a table as data": (lambda: hostile.qcow2_table_as_data(qcow2()), "overlap"),
    "qcow2 with one table twice": (lambda: hostile.qcow2_table_twice(qcow2()), "overlap"),
    "qcow2 with data beyond its end": (lambda: hostile.qcow2_beyond(qcow2()), "truncated"),
    "qcow2 with a compressed cluster everywhere": (lambda: hostile.packed_twice(image("qcow2", "", "-c")), "overlap"),
    "qcow2 with a compressed bomb": (lambda: hostile.compressed_bomb(4096), "expansion"),
    "qcow2 cut off": (lambda: qcow2()[: 5 * 64 * KIB], "truncated"),
    "qcow of a PiB": (lambda: put(">Q", 24, BEYOND_ALL)(image("qcow")), "virtual_size"),
    "qcow with an L1 bomb": (lambda: at_once(put(">Q", 24, 1 << 45), put(">BB", 32, 9, 6))(image("qcow")), "tables"),
    "qcow on another": (lambda: put(">QI", 8, 48, 8)(image("qcow")), "backing_file"),
    "qcow encrypted": (lambda: put(">I", 36, 1)(image("qcow")), "encrypted"),
    "qed on another": (lambda: put("<QQQQQII", 16, 1, 0, 0, 64 * KIB, SIZE, 64, 8)(image("qed")), "backing_file"),
    "qed with a feature of the future": (lambda: put("<Q", 16, 8)(image("qed")), "unknown_feature"),
    "qed with tables of a GiB": (lambda: put("<II", 4, 64 << 20, 16)(image("qed")), "tables"),
    "qed of a PiB": (lambda: put("<Q", 48, BEYOND_ALL)(image("qed")), "virtual_size"),
    "qed that was not closed": (lambda: put("<Q", 16, 2)(image("qed")), "dirty"),
    "vdi on another": (lambda: put("<I", 0x4C, 4)(image("vdi")), "backing_file"),
    "vdi that names a parent": (lambda: put("<B", 0x1B8, 1)(image("vdi")), "backing_file"),
    "vdi with a bomb of a map": (
        lambda: at_once(put("<I", 0x180, 1 << 31), put("<I", 0x158, 1 << 31))(image("vdi")), "tables"
    ),
    "vdi of a PiB": (lambda: put("<Q", 0x170, BEYOND_ALL)(image("vdi")), "virtual_size"),
    "vdi with one block twice": (lambda: put("<II", 0x200, 0, 0)(image("vdi")), "overlap"),
    "vdi of another version": (lambda: put("<I", 0x44, 0x00020001)(image("vdi")), "unknown_feature"),
    "vmdk in a file of the host": (lambda: descriptor('RW 8192 FLAT "/etc/shadow" 0'), "outside"),
    "vmdk in a file above": (lambda: descriptor('RW 8192 FLAT "../secret" 0'), "outside"),
    "vmdk in a file of Windows": (lambda: descriptor('RW 8192 FLAT "..\\\\secret" 0'), "outside"),
    "vmdk on a server": (lambda: descriptor('RW 8192 FLAT "nbd:127.0.0.1:80" 0'), "outside"),
    "vmdk in json:": (lambda: descriptor('RW 8192 FLAT "json:{}" 0'), "outside"),
    "vmdk in a file beside it": (lambda: descriptor('RW 8192 FLAT "secret" 0'), "extents"),
    "vmdk in two files": (
        lambda: descriptor('RW 8192 FLAT "a" 0', 'RW 8 FLAT "b" 0', kind="twoGbMaxExtentFlat"), "extents"
    ),
    "vmdk as a text that is none": (
        lambda: descriptor('RW 8192 SPARSE "x"', kind="monolithicSparse"), "unknown_feature"
    ),
    "vmdk of a device": (lambda: descriptor('RW 8192 FLAT "sda" 0', kind="fullDevice"), "unknown_feature"),
    "vmdk with an unknown line": (
        lambda: descriptor('RW 8 FLAT "a" 0', more="loadFrom=/etc/shadow"), "unknown_feature"
    ),
    "vmdk with an unknown extent": (lambda: descriptor('RW 8 FLAT "a" 0', 'RW 8 HTTP "b"'), "unknown_feature"),
    "vmdk with a line twice": (lambda: descriptor('RW 8 FLAT "a" 0', more="version=1"), "damaged"),
    "vmdk on another": (lambda: descriptor('RW 8 FLAT "a" 0', more='parentFileNameHint="/etc/shadow"'), "backing_file"),
    "vmdk of a PiB": (lambda: descriptor('RW 2199023255552 FLAT "a" 0'), "virtual_size"),
    "vmdk with a descriptor of a MiB": (lambda: descriptor(*["# " + "x" * 1022] * 1024), "tables"),
    "vmdk that says version first": (lambda: b"version=1\n" + descriptor('RW 8 FLAT "/etc/shadow" 0'), "damaged"),
    "vmdk whose descriptor counts": (lambda: put("<Q", 12, 0)(sparse_vmdk()), "extents"),
    "vmdk whose sparse data lie elsewhere": (
        lambda: hostile.with_descriptor(b'SPARSE "disk.img"', b'SPARSE "/etc/shadow"')(sparse_vmdk()), "outside"
    ),
    "vmdk with a flat extent inside": (
        lambda: hostile.with_descriptor(b'SPARSE "disk.img"', b'FLAT "disk.img" 0')(sparse_vmdk()), "extents"
    ),
    "vmdk sparse on another": (
        lambda: hostile.with_descriptor(b"parentCID=ffffffff", b"parentCID=1")(sparse_vmdk()), "backing_file"
    ),
    "vmdk sparse that says that it is flat": (
        lambda: hostile.with_descriptor(b"monolithicSparse", b"monolithicFlat")(sparse_vmdk()), "unknown_feature"
    ),
    "vmdk of two sizes": (lambda: hostile.with_descriptor(b"RW 8192", b"RW 4096")(sparse_vmdk()), "damaged"),
    "vmdk with a descriptor of a GiB": (lambda: put("<Q", 36, 1 << 21)(sparse_vmdk()), "tables"),
    "vmdk sparse of a PiB": (lambda: put("<Q", 12, BEYOND_ALL >> 9)(sparse_vmdk()), "virtual_size"),
    "vmdk with a flag of the future": (lambda: put("<I", 8, 1 << 20 | 3)(sparse_vmdk()), "unknown_feature"),
    "vmdk sent as a text": (lambda: put("<4s", 73, b"\n \n\n")(sparse_vmdk()), "corrupt"),
    "vmdk with one grain twice": (lambda: hostile.vmdk_grain_twice(sparse_vmdk()), "overlap"),
    "vmdk with one compressed grain twice": (lambda: hostile.vmdk_grain_twice(stream()), "overlap"),
    "vmdk stream without its end": (lambda: put("<Q", 56, (1 << 64) - 1)(stream()), "truncated"),
    "vmdk of ESX 3": (lambda: b"COWD" + bytes(4 * MIB), "unknown_format"),
    "vmdk of ESX 6.5": (lambda: struct.pack("<Q", 0xCAFEBABE) + bytes(4 * MIB), "unknown_format"),
    "vhd on another": (lambda: vhd(put(">I", 60, 4))(dynamic_vhd()), "backing_file"),
    "vhd that names a parent": (lambda: vhd_header(put(">B", 40, 1))(dynamic_vhd()), "backing_file"),
    "vhd that names a parent's place": (lambda: vhd_header(put(">4s", 576, b"W2ku"))(dynamic_vhd()), "backing_file"),
    "vhd of a PiB": (lambda: vhd(put(">Q", 48, BEYOND_ALL))(dynamic_vhd()), "virtual_size"),
    "vhd with a bomb of a table": (lambda: vhd_header(put(">I", 28, 1 << 31))(dynamic_vhd()), "tables"),
    "vhd with one block twice": (lambda: hostile.vhd_block_twice(dynamic_vhd()), "overlap"),
    "vhd of a kind of the future": (lambda: vhd(put(">I", 60, 9))(dynamic_vhd()), "unknown_feature"),
    "vhd with a wrong checksum": (lambda: put(">Q", -512 + 48, SIZE + 512)(dynamic_vhd()), "corrupt"),
    "vhd without its footer": (lambda: dynamic_vhd()[:-512], "truncated"),
    "vhd fixed, of more than it holds": (
        lambda: vhd(put(">Q", 48, 2 * SIZE))(image("vpc", "subformat=fixed,force_size=on")), "damaged"
    ),
    "vhdx on another": (lambda: hostile.vhdx_with_parent(vhdx()), "backing_file"),
    "vhdx that must be replayed": (lambda: vhdx_headers(put("<B", 48, 1))(vhdx()), "log"),
    "vhdx of version 2": (lambda: vhdx_headers(put("<H", 66, 2))(vhdx()), "unknown_feature"),
    "vhdx with a region of the future": (
        lambda: hostile.vhdx_regions(put("<B27xI", 16, 0, 1))(vhdx()), "unknown_feature"
    ),
    "vhdx with a bomb of regions": (lambda: hostile.vhdx_regions(put("<I", 8, 1 << 31))(vhdx()), "tables"),
    "vhdx with metadata of the future": (lambda: hostile.vhdx_unknown_metadata(vhdx()), "unknown_feature"),
    "vhdx with one block twice": (lambda: hostile.vhdx_block_twice(image("vhdx", "block_size=1M")), "overlap"),
    "vhdx without a sound header": (lambda: at_once(put("<B", 65544, 9), put("<B", 131080, 9))(vhdx()), "corrupt"),
    "vhdx with two region tables": (lambda: put("<B", 200 * KIB, 9)(vhdx()), "corrupt"),
    "LUKS": (lambda: disk_of({0: b"LUKS\xba\xbe"}), "unknown_format"),
    "DMG": (lambda: disk_of({SIZE - 512: b"koly"}), "unknown_format"),
    "a packed disk": (lambda: hostile.gzipped(), "archive"),
    "a packed archive of another file": (lambda: of_disk(sealed(put_in_header(0, b"disc"))), "archive"),
    "a packed archive with runs over one another": (
        lambda: of_disk(sealed(sparse((0, 2 * MIB), (MIB, MIB)))), "damaged"
    ),
    "a packed archive of a disk of a PiB": (
        lambda: of_disk(sealed(sparse((0, 3 * MIB), size=BEYOND_ALL))), "virtual_size"
    ),
    "a packed archive that ends in its header": (
        lambda: gzip.compress(gzip.decompress(of_disk(sealed(sparse())))[:511]), "archive"
    ),
    "a packed archive that ends in its map": (
        lambda: gzip.compress(gzip.decompress(of_disk(sealed(put_in_header(482, b"\1"), sparse())))[:700]), "truncated"
    ),
    "a tar": (lambda: disk_of({257: b"ustar"}), "archive"),
    "qcow2 and vhd": (lambda: qcow2() + vhd(put(">Q", 48, SIZE))(dynamic_vhd())[-512:], "polyglot"),
    "qcow2 and vdi": (lambda: put("<I", 64, 0xBEDA107F)(qcow2()), "polyglot"),
    "qcow2 and an iso": (lambda: qcow2()[:0x8001] + b"CD001" + qcow2()[0x8006:], "polyglot"),
    "vmdk and an mbr": (lambda: sparse_vmdk()[:446] + boot_sector()[446:] + sparse_vmdk()[512:], "polyglot"),
    "a fixed vhd that is qcow2": (lambda: qcow2() + image("vpc", "subformat=fixed,force_size=on")[-512:], "polyglot"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_refused_by_its_name(lie: str) -> None:
    made, objection = LIES[lie]
    found = inspected(made())
    assert objection in names(found), found
    with pytest.raises(VmferryError) as refused:
        found.approve("/images/one")
    assert refused.value.kind == "invalid_config"
    assert refused.value.message.startswith("/images/one is not opened (")
    assert refused.value.hint


DISGUISED: dict[str, Callable[[], bytes]] = {
    "qcow2": qcow2,
    "qed": lambda: image("qed"),
    "vdi": lambda: image("vdi"),
    "vmdk": sparse_vmdk,
    "flat vmdk": lambda: descriptor('RW 8 FLAT "a" 0'),
    "vhd": dynamic_vhd,
    "vhdx": vhdx,
    "luks": lambda: disk_of({0: b"LUKS\xba\xbe"}),
}


@pytest.mark.parametrize("bears", DISGUISED)
def test_a_raw_disk_that_bears_the_marks_of_another_format_is_one_only_where_that_is_known(bears: str) -> None:
    data = DISGUISED[bears]()
    found = inspected(data, "raw")
    assert names(found) == ["disguised"]
    assert (found.format, found.size) == ("raw", len(data))
    found.approve("it", despite=frozenset({"disguised"}))


def test_another_format_than_the_announced_one_is_refused() -> None:
    assert names(inspected(qcow2(), "vmdk")) == ["other_format"]
    assert names(inspected(bytes(MIB), "qcow2")) == ["other_format"]


def test_limits_are_the_callers() -> None:
    assert names(inspected(qcow2(), limits=Limits(virtual_size=SIZE))) == []
    assert names(inspected(qcow2(), limits=Limits(virtual_size=SIZE - 1))) == ["virtual_size"]
    assert names(inspected(qcow2(), limits=Limits(table=64 * KIB - 1))) == ["tables"]
    assert names(inspected(qcow2(), limits=Limits(walked=2 * 64 * KIB))) == ["tables"]
    assert names(inspected(qcow2(), limits=Limits(host_clusters=4))) == ["tables"]
    few = Limits(expansion=0, decompressed=64 * KIB)
    assert names(inspected(image("qcow2", "", "-c"), limits=few)) == ["expansion"]
    assert names(inspected(stream(), limits=few)) == ["expansion"]
    assert names(inspected(sparse_vmdk(), limits=Limits(descriptor=100))) == ["tables"]


def test_a_disk_larger_than_allowed_is_refused_without_being_read() -> None:
    def read_at(offset: int, buffer: memoryview) -> None:
        assert len(buffer) <= 64 * KIB

    assert names(inspect_image(read_at, BEYOND_ALL, expected="raw")) == ["virtual_size"]


def test_every_beginning_of_an_image_is_refused_or_raw() -> None:
    for data in (qcow2(), image("qcow"), image("qed"), image("vdi"), sparse_vmdk(), stream(), vhdx()):
        for length in (0, 3, 4, 8, 60, 72, 100, 103, 112, 511, 512, 513, 4 * KIB, len(data) // 2):
            found = inspected(data[:length])
            assert found.objections or found.format == "raw", (data[:8], length)
    assert names(inspected(stream()[: 64 * KIB + 600])) == ["truncated"]


def ending(rest: bytes) -> bytes:
    """A VMDK whose descriptor has this behind the zero at its end."""
    text = hostile.descriptor('RW 8192 FLAT "a-flat.vmdk" 0')
    return text + b"\0" + rest + bytes(64)


def test_a_cid_that_became_shorter_leaves_an_end_behind_as_qemu_img_does() -> None:
    text = ending(b"").rstrip(b"\0")
    for count in range(8):
        assert names(inspected(ending(text[len(text) - count :]), "vmdk")) == ["extents"]
    assert names(inspected(ending(text[-8:]), "vmdk")) == ["damaged"], "a CID has no more digits"
    assert names(inspected(ending(b"x"), "vmdk")) == ["damaged"], "this was never its end"


def test_a_flat_vmdk_tells_where_its_data_lie() -> None:
    found = inspected(descriptor('RW 8192 FLAT "a-f001.vmdk" 0', 'RW 100 FLAT "b" 63', kind="twoGbMaxExtentFlat"))
    told = [(one.name, one.kind, one.length, one.offset) for one in found.extents]
    assert told == [("a-f001.vmdk", "FLAT", 8192 * 512, 0), ("b", "FLAT", 51200, 63 * 512)]
    assert (found.size, names(found)) == (8292 * 512, ["extents"])
    assert names(inspected(descriptor("RW 1 ZERO", 'RW 7 VMFS "a" 0', kind="vmfs"))) == ["extents"]


def test_tables_in_a_row_are_read_in_few_requests(tmp_path: Path) -> None:
    """Of a store that takes a hundredth of a second for each, and of a disk that has thousands of them."""
    size = 64 << 30
    file = RangedFile(written("vmdk_sparse", tmp_path / "disk.vmdk", size, islands(size, [0, size // 2])))
    found = inspect_image(file, file.size)
    assert (found.size, found.objections) == (size, ())
    assert len(file.requests) < 40
    assert max(length for _at, length in file.requests) <= MIB


def test_what_is_read_ahead_is_what_lies_there() -> None:
    data, file = bytes(Random(1).randbytes(3 * MIB)), RangedFile(Random(1).randbytes(3 * MIB))
    ahead, at = ReadAhead(file, file.size), 0
    for length in (10, 10, 2000, 500, 70_000, 1, MIB, 5, MIB + 17):
        for place in (at, at, max(0, at - 7)):
            found = bytearray(min(length, 3 * MIB - place))
            ahead(place, memoryview(found))
            assert found == data[place : place + len(found)]
        at = min(at + length, 3 * MIB - 1)
