# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inspector: what anybody's programs write is understood, and each lie is refused by its name."""

from __future__ import annotations

import gzip
import struct
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


@pytest.mark.parametrize(
    ("data", "described"),
    {
        "mbr": (disk_of({0: boot_sector()}), "mbr"),
        "gpt": (disk_of({0: boot_sector(), 512: b"EFI PART"}), "gpt, mbr"),
        "iso": (disk_of({0x8001: b"CD001"}), "iso"),
        "an iso to boot from": (disk_of({0: boot_sector(), 0x8001: b"CD001"}), "mbr, iso"),
        "nothing": (b"", ""),
    }.values(),
)
def test_what_a_raw_disk_holds_is_told(data: bytes, described: str) -> None:
    found = inspected(data, "raw")
    assert (found.objections, found.format, found.subformat, found.size) == ((), "raw", described, len(data))


QCOW2, STREAM, SPARSE = image("qcow2"), image("vmdk", "subformat=streamOptimized"), image("vmdk")
VHD, VHDX = image("vpc", "force_size=on"), image("vhdx")
BEYOND_ALL = 1 << 50  # 1 PiB

LIES: dict[str, tuple[bytes, str]] = {
    "qcow2 on a file of the host": (hostile.qcow2_backed_by("/etc/shadow")(QCOW2), "backing_file"),
    "qcow2 on a file beside it": (hostile.qcow2_backed_by("secret")(QCOW2), "backing_file"),
    "qcow2 on json:": (hostile.qcow2_backed_by('json:{"driver":"raw"}')(QCOW2), "backing_file"),
    "qcow2 on a server": (hostile.qcow2_backed_by("nbd://169.254.169.254/x")(QCOW2), "backing_file"),
    "qcow2 on a name without length": (put(">Q", 8, 4096)(QCOW2), "backing_file"),
    "qcow2 on a name of 60 KiB": (put(">QI", 8, 512, 60 * KIB)(QCOW2), "backing_file"),
    "qcow2 on a name beyond its cluster": (put(">QI", 8, 1 << 40, 8)(QCOW2), "backing_file"),
    "qcow2 with a data file": (hostile.qcow2_data_file("/etc/shadow")(QCOW2), "data_file"),
    "qcow2 with a data file and no name": (put(">Q", 72, 4)(QCOW2), "data_file"),
    "qcow2 with a data file's name": (hostile.qcow2_with_extension(0x44415441, b"/etc/shadow")(QCOW2), "data_file"),
    "qcow2 of a PiB": (put(">Q", 24, BEYOND_ALL)(QCOW2), "virtual_size"),
    "qcow2 with an L1 bomb": (put(">I", 36, 0xFFFFFFFF)(QCOW2), "tables"),
    "qcow2 with a refcount bomb": (put(">I", 56, 0xFFFFFFFF)(QCOW2), "tables"),
    "qcow2 with a snapshot bomb": (put(">I", 60, 0xFFFFFFFF)(QCOW2), "tables"),
    "qcow2 with a short L1 table": (put(">Q", 24, 1 << 40)(QCOW2), "damaged"),
    "qcow2 with an L1 table off its place": (put(">Q", 40, 8)(QCOW2), "damaged"),
    "qcow2 with its header as L1 table": (put(">Q", 40, 0)(QCOW2), "overlap"),
    "qcow2 of version 4": (put(">I", 4, 4)(QCOW2), "unknown_feature"),
    "qcow2 with a feature of the future": (put(">Q", 72, 1 << 5)(QCOW2), "unknown_feature"),
    "qcow2 with another feature of the future": (put(">Q", 72, 1 << 63)(QCOW2), "unknown_feature"),
    "qcow2 with a header of the future": (hostile.qcow2_with_extension(0x12345678, b"x")(QCOW2), "unknown_feature"),
    "qcow2 with a longer header": (at_once(put(">I", 100, 120), put(">Q", 112, 1))(QCOW2), "unknown_feature"),
    "qcow2 with an endless extension": (hostile.qcow2_with_extension(0x6803F857, b"x", 1 << 31)(QCOW2), "damaged"),
    "qcow2 encrypted in an unknown way": (put(">I", 32, 3)(QCOW2), "unknown_feature"),
    "qcow2 encrypted": (put(">I", 32, 1)(QCOW2), "encrypted"),
    "qcow2 compressed in an unknown way": (at_once(put(">Q", 72, 8), put(">B", 104, 2))(QCOW2), "unknown_feature"),
    "qcow2 that was not closed": (put(">Q", 72, 1)(QCOW2), "dirty"),
    "qcow2 that is corrupt": (put(">Q", 72, 2)(QCOW2), "corrupt"),
    "qcow2 with a snapshot": (put(">I", 60, 1)(QCOW2), "internal_snapshots"),
    "qcow2 with clusters of 2 GiB": (put(">I", 20, 31)(QCOW2), "damaged"),
    "qcow2 with one cluster twice": (hostile.qcow2_cluster_twice(QCOW2), "overlap"),
    "qcow2 with a table as data": (hostile.qcow2_table_as_data(QCOW2), "overlap"),
    "qcow2 with one table twice": (hostile.qcow2_table_twice(QCOW2), "overlap"),
    "qcow2 with data beyond its end": (hostile.qcow2_beyond(QCOW2), "truncated"),
    "qcow2 with a compressed cluster everywhere": (hostile.packed_twice(image("qcow2", "", "-c")), "overlap"),
    "qcow2 with a compressed bomb": (hostile.compressed_bomb(4096), "expansion"),
    "qcow2 cut off": (QCOW2[: 5 * 64 * KIB], "truncated"),
    "qcow of a PiB": (put(">Q", 24, BEYOND_ALL)(image("qcow")), "virtual_size"),
    "qcow with an L1 bomb": (at_once(put(">Q", 24, 1 << 45), put(">BB", 32, 9, 6))(image("qcow")), "tables"),
    "qcow on another": (put(">QI", 8, 48, 8)(image("qcow")), "backing_file"),
    "qcow encrypted": (put(">I", 36, 1)(image("qcow")), "encrypted"),
    "qed on another": (put("<QQQQQII", 16, 1, 0, 0, 64 * KIB, SIZE, 64, 8)(image("qed")), "backing_file"),
    "qed with a feature of the future": (put("<Q", 16, 8)(image("qed")), "unknown_feature"),
    "qed with tables of a GiB": (put("<II", 4, 64 << 20, 16)(image("qed")), "tables"),
    "qed of a PiB": (put("<Q", 48, BEYOND_ALL)(image("qed")), "virtual_size"),
    "qed that was not closed": (put("<Q", 16, 2)(image("qed")), "dirty"),
    "vdi on another": (put("<I", 0x4C, 4)(image("vdi")), "backing_file"),
    "vdi that names a parent": (put("<B", 0x1B8, 1)(image("vdi")), "backing_file"),
    "vdi with a bomb of a map": (at_once(put("<I", 0x180, 1 << 31), put("<I", 0x158, 1 << 31))(image("vdi")), "tables"),
    "vdi of a PiB": (put("<Q", 0x170, BEYOND_ALL)(image("vdi")), "virtual_size"),
    "vdi with one block twice": (put("<II", 0x200, 0, 0)(image("vdi")), "overlap"),
    "vdi of another version": (put("<I", 0x44, 0x00020001)(image("vdi")), "unknown_feature"),
    "vmdk in a file of the host": (descriptor('RW 8192 FLAT "/etc/shadow" 0'), "outside"),
    "vmdk in a file above": (descriptor('RW 8192 FLAT "../secret" 0'), "outside"),
    "vmdk in a file of Windows": (descriptor('RW 8192 FLAT "..\\\\secret" 0'), "outside"),
    "vmdk on a server": (descriptor('RW 8192 FLAT "nbd:127.0.0.1:80" 0'), "outside"),
    "vmdk in json:": (descriptor('RW 8192 FLAT "json:{}" 0'), "outside"),
    "vmdk in a file beside it": (descriptor('RW 8192 FLAT "secret" 0'), "extents"),
    "vmdk in two files": (descriptor('RW 8192 FLAT "a" 0', 'RW 8 FLAT "b" 0', kind="twoGbMaxExtentFlat"), "extents"),
    "vmdk as a text that is none": (descriptor('RW 8192 SPARSE "x"', kind="monolithicSparse"), "unknown_feature"),
    "vmdk of a device": (descriptor('RW 8192 FLAT "sda" 0', kind="fullDevice"), "unknown_feature"),
    "vmdk with an unknown line": (descriptor('RW 8 FLAT "a" 0', more="loadFrom=/etc/shadow"), "unknown_feature"),
    "vmdk with an unknown extent": (descriptor('RW 8 FLAT "a" 0', 'RW 8 HTTP "b"'), "unknown_feature"),
    "vmdk with a line twice": (descriptor('RW 8 FLAT "a" 0', more="version=1"), "damaged"),
    "vmdk on another": (descriptor('RW 8 FLAT "a" 0', more='parentFileNameHint="/etc/shadow"'), "backing_file"),
    "vmdk of a PiB": (descriptor('RW 2199023255552 FLAT "a" 0'), "virtual_size"),
    "vmdk with a descriptor of a MiB": (descriptor(*["# " + "x" * 1022] * 1024), "tables"),
    "vmdk that says version first": (b"version=1\n" + descriptor('RW 8 FLAT "/etc/shadow" 0'), "damaged"),
    "vmdk whose descriptor counts": (put("<Q", 12, 0)(SPARSE), "extents"),
    "vmdk whose sparse data lie elsewhere": (
        hostile.with_descriptor(b'SPARSE "disk.img"', b'SPARSE "/etc/shadow"')(SPARSE), "outside"
    ),
    "vmdk with a flat extent inside": (
        hostile.with_descriptor(b'SPARSE "disk.img"', b'FLAT "disk.img" 0')(SPARSE), "extents"
    ),
    "vmdk sparse on another": (hostile.with_descriptor(b"parentCID=ffffffff", b"parentCID=1")(SPARSE), "backing_file"),
    "vmdk sparse that says that it is flat": (
        hostile.with_descriptor(b"monolithicSparse", b"monolithicFlat")(SPARSE), "unknown_feature"
    ),
    "vmdk of two sizes": (hostile.with_descriptor(b"RW 8192", b"RW 4096")(SPARSE), "damaged"),
    "vmdk with a descriptor of a GiB": (put("<Q", 36, 1 << 21)(SPARSE), "tables"),
    "vmdk sparse of a PiB": (put("<Q", 12, BEYOND_ALL >> 9)(SPARSE), "virtual_size"),
    "vmdk with a flag of the future": (put("<I", 8, 1 << 20 | 3)(SPARSE), "unknown_feature"),
    "vmdk sent as a text": (put("<4s", 73, b"\n \n\n")(SPARSE), "corrupt"),
    "vmdk with one grain twice": (hostile.vmdk_grain_twice(SPARSE), "overlap"),
    "vmdk with one compressed grain twice": (hostile.vmdk_grain_twice(STREAM), "overlap"),
    "vmdk stream without its end": (put("<Q", 56, (1 << 64) - 1)(STREAM), "truncated"),
    "vmdk of ESX 3": (b"COWD" + bytes(4 * MIB), "unknown_format"),
    "vmdk of ESX 6.5": (struct.pack("<Q", 0xCAFEBABE) + bytes(4 * MIB), "unknown_format"),
    "vhd on another": (vhd(put(">I", 60, 4))(VHD), "backing_file"),
    "vhd that names a parent": (vhd_header(put(">B", 40, 1))(VHD), "backing_file"),
    "vhd that names a parent's place": (vhd_header(put(">4s", 576, b"W2ku"))(VHD), "backing_file"),
    "vhd of a PiB": (vhd(put(">Q", 48, BEYOND_ALL))(VHD), "virtual_size"),
    "vhd with a bomb of a table": (vhd_header(put(">I", 28, 1 << 31))(VHD), "tables"),
    "vhd with one block twice": (hostile.vhd_block_twice(VHD), "overlap"),
    "vhd of a kind of the future": (vhd(put(">I", 60, 9))(VHD), "unknown_feature"),
    "vhd with a wrong checksum": (put(">Q", -512 + 48, SIZE + 512)(VHD), "corrupt"),
    "vhd without its footer": (VHD[:-512], "truncated"),
    "vhd fixed, of more than it holds": (
        vhd(put(">Q", 48, 2 * SIZE))(image("vpc", "subformat=fixed,force_size=on")), "damaged"
    ),
    "vhdx on another": (hostile.vhdx_with_parent(VHDX), "backing_file"),
    "vhdx that must be replayed": (vhdx_headers(put("<B", 48, 1))(VHDX), "log"),
    "vhdx of version 2": (vhdx_headers(put("<H", 66, 2))(VHDX), "unknown_feature"),
    "vhdx with a region of the future": (hostile.vhdx_regions(put("<B27xI", 16, 0, 1))(VHDX), "unknown_feature"),
    "vhdx with a bomb of regions": (hostile.vhdx_regions(put("<I", 8, 1 << 31))(VHDX), "tables"),
    "vhdx with metadata of the future": (hostile.vhdx_unknown_metadata(VHDX), "unknown_feature"),
    "vhdx with one block twice": (hostile.vhdx_block_twice(image("vhdx", "block_size=1M")), "overlap"),
    "vhdx without a sound header": (at_once(put("<B", 65544, 9), put("<B", 131080, 9))(VHDX), "corrupt"),
    "vhdx with two region tables": (put("<B", 200 * KIB, 9)(VHDX), "corrupt"),
    "LUKS": (disk_of({0: b"LUKS\xba\xbe"}), "unknown_format"),
    "DMG": (disk_of({SIZE - 512: b"koly"}), "unknown_format"),
    "a packed disk": (hostile.gzipped(), "archive"),
    "a packed archive of another file": (of_disk(sealed(put_in_header(0, b"disc"))), "archive"),
    "a packed archive with runs over one another": (
        of_disk(sealed(sparse((0, 2 * MIB), (MIB, MIB)))), "damaged"
    ),
    "a packed archive of a disk of a PiB": (of_disk(sealed(sparse((0, 3 * MIB), size=BEYOND_ALL))), "virtual_size"),
    "a packed archive that ends in its header": (
        gzip.compress(gzip.decompress(of_disk(sealed(sparse())))[:511]), "archive"
    ),
    "a packed archive that ends in its map": (
        gzip.compress(gzip.decompress(of_disk(sealed(put_in_header(482, b"\1"), sparse())))[:700]), "truncated"
    ),
    "a tar": (disk_of({257: b"ustar"}), "archive"),
    "qcow2 and vhd": (QCOW2 + vhd(put(">Q", 48, SIZE))(VHD)[-512:], "polyglot"),
    "qcow2 and vdi": (put("<I", 64, 0xBEDA107F)(QCOW2), "polyglot"),
    "qcow2 and an iso": (QCOW2[:0x8001] + b"CD001" + QCOW2[0x8006:], "polyglot"),
    "vmdk and an mbr": (SPARSE[:446] + boot_sector()[446:] + SPARSE[512:], "polyglot"),
    "a fixed vhd that is qcow2": (QCOW2 + image("vpc", "subformat=fixed,force_size=on")[-512:], "polyglot"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_refused_by_its_name(lie: str) -> None:
    data, objection = LIES[lie]
    found = inspected(data)
    assert objection in names(found), found
    with pytest.raises(VmferryError) as refused:
        found.approve("/images/one")
    assert refused.value.kind == "invalid_config"
    assert refused.value.message.startswith("/images/one is not opened (")
    assert refused.value.hint


@pytest.mark.parametrize(
    "data",
    [
        QCOW2,
        image("qed"),
        image("vdi"),
        SPARSE,
        descriptor('RW 8 FLAT "a" 0'),
        VHD,
        VHDX,
        disk_of({0: b"LUKS\xba\xbe"}),
    ],
    ids=[
        "qcow2",
        "qed",
        "vdi",
        "vmdk",
        "flat vmdk",
        "vhd",
        "vhdx",
        "luks",
    ],  # bytes differ by process
)
def test_a_raw_disk_that_bears_the_marks_of_another_format_is_one_only_where_that_is_known(data: bytes) -> None:
    found = inspected(data, "raw")
    assert names(found) == ["disguised"]
    assert (found.format, found.size) == ("raw", len(data))
    found.approve("it", despite=frozenset({"disguised"}))


def test_another_format_than_the_announced_one_is_refused() -> None:
    assert names(inspected(QCOW2, "vmdk")) == ["other_format"]
    assert names(inspected(bytes(MIB), "qcow2")) == ["other_format"]


def test_limits_are_the_callers() -> None:
    assert names(inspected(QCOW2, limits=Limits(virtual_size=SIZE))) == []
    assert names(inspected(QCOW2, limits=Limits(virtual_size=SIZE - 1))) == ["virtual_size"]
    assert names(inspected(QCOW2, limits=Limits(table=64 * KIB - 1))) == ["tables"]
    assert names(inspected(QCOW2, limits=Limits(walked=2 * 64 * KIB))) == ["tables"]
    assert names(inspected(QCOW2, limits=Limits(host_clusters=4))) == ["tables"]
    few = Limits(expansion=0, decompressed=64 * KIB)
    assert names(inspected(image("qcow2", "", "-c"), limits=few)) == ["expansion"]
    assert names(inspected(STREAM, limits=few)) == ["expansion"]
    assert names(inspected(SPARSE, limits=Limits(descriptor=100))) == ["tables"]


def test_a_disk_larger_than_allowed_is_refused_without_being_read() -> None:
    def read_at(offset: int, buffer: memoryview) -> None:
        assert len(buffer) <= 64 * KIB

    assert names(inspect_image(read_at, BEYOND_ALL, expected="raw")) == ["virtual_size"]


def test_every_beginning_of_an_image_is_refused_or_raw() -> None:
    for data in (QCOW2, image("qcow"), image("qed"), image("vdi"), SPARSE, STREAM, VHDX):
        for length in (0, 3, 4, 8, 60, 72, 100, 103, 112, 511, 512, 513, 4 * KIB, len(data) // 2):
            found = inspected(data[:length])
            assert found.objections or found.format == "raw", (data[:8], length)
    assert names(inspected(STREAM[: 64 * KIB + 600])) == ["truncated"]


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
