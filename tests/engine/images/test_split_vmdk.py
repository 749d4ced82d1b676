# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""VMDKs in several files: read by ourselves wherever they lie, and no file that is not theirs is ever opened."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent, Piece
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.joined_disks import JoinedDisks, Run
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.stored.disk_image import (
    open_image,
    stored_image,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .disks import MIB, assert_tiled, content_of, islands, run
from .hostile_images import SIZE, descriptor, guest, image, put


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(open_store(str(tmp_path), {})) as opened:
        yield opened


class Counted:
    """Plays BlockSource; `told`: extents so far."""

    def __init__(self, extents: list[Extent]) -> None:
        self.map, self.told, self.size = extents, 0, extents[-1].end

    def extents(self) -> Iterator[Extent]:
        for extent in self.map:
            self.told += 1
            yield extent

    def kind(self, offset: int) -> str:
        return self.map[bisect_right([one.offset for one in self.map], offset) - 1].kind

    def read_into(self, pieces: Sequence[Piece]) -> None:
        raise AssertionError("only its map is wanted")

    def close(self) -> None:
        """Nothing is held."""


def content(store: Store) -> bytes:
    with open_image(stored_image(store, "disk.vmdk")) as source:
        extents = list(source.extents())
        assert sum(extent.length for extent in extents) == source.size
        return content_of(source)


def flat(folder: Path, *extents: str, kind: str = "twoGbMaxExtentFlat") -> None:
    (folder / "disk.vmdk").write_bytes(descriptor(*extents, kind=kind))


def test_flat_parts_beside_their_descriptor_are_one_disk(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk-f001.vmdk").write_bytes(guest()[: 3 * MIB])
    (tmp_path / "disk-f002.vmdk").write_bytes(b"x" * 512 + guest()[3 * MIB :])
    flat(tmp_path, 'RW 6144 FLAT "disk-f001.vmdk" 0', 'RW 2048 FLAT "disk-f002.vmdk" 1')
    found = stored_image(store, "disk.vmdk")
    assert [file.name for file in found.files] == ["disk.vmdk", "disk-f001.vmdk", "disk-f002.vmdk"]
    assert content(store) == guest()
    with open_image(found) as source:
        part = bytearray(2 * MIB)
        source.read_into([(2 * MIB + 512, memoryview(part)[: MIB + 4096])])
        assert bytes(part[: MIB + 4096]) == guest()[2 * MIB + 512 :][: MIB + 4096]
    flat(tmp_path, "RW 8 ZERO", 'RW 8 VMFS "disk-f002.vmdk" 0', kind="vmfs")
    assert content(store)[:4097] == bytes(4096) + b"x"


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentFlat", "twoGbMaxExtentSparse"])
def test_what_qemu_writes_in_several_files_is_read(store: Store, tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(guest())
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", source, tmp_path / "disk.vmdk")
    assert content(store) == guest()


def test_the_second_part_of_a_large_disk_follows_the_first(store: Store, tmp_path: Path) -> None:
    size = (2 << 30) + 3 * MIB
    run("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", tmp_path / "disk.vmdk", size)
    write = [*("-c", "write -P 1 2147418112 64k"), *("-c", "write -P 2 2147483648 64k")]
    run("qemu-io", "-f", "vmdk", *write, tmp_path / "disk.vmdk")
    with open_image(stored_image(store, "disk.vmdk")) as source:
        assert (source.size, [extent.length for extent in source.extents() if extent.kind == "data"]) == (
            size,
            [1 << 16, 1 << 16],
        )
        assert content_of(source, (2 << 30) - 1, 3) == b"\1\2\2"


def test_a_hole_in_a_flat_part_is_told(store: Store, tmp_path: Path) -> None:
    with (tmp_path / "disk-flat.vmdk").open("wb") as file:
        file.truncate(SIZE)
        file.seek(2 * MIB)
        file.write(b"x" * 65536)
    flat(tmp_path, f'RW {SIZE // 512} FLAT "disk-flat.vmdk" 0', kind="monolithicFlat")
    with open_image(stored_image(store, "disk.vmdk")) as source:
        extents = list(source.extents())
    assert_tiled(extents, SIZE)
    assert [extent.kind for extent in extents] == ["zero", "data", "zero"]


REFUSED = {
    "another disk": ('RW 1 FLAT "other-flat.vmdk" 0', "outside"),
    "a name without the dash": ('RW 1 FLAT "diskette.vmdk" 0', "outside"),
    "a path": ('RW 1 FLAT "disk-/../../secret" 0', "outside"),
    "the disk of a VM of such a name": ('RW 1 FLAT "disk-2.vmdk" 0', "outside"),
    "the parts of a VM of such a name": ('RW 1 FLAT "disk-2-flat.vmdk" 0', "outside"),
    "digits of others": ('RW 1 FLAT "disk-f١١1.vmdk" 0', "outside"),
    "a name of another ending": ('RW 1 FLAT "disk-flat.raw" 0', "outside"),
    "a link": ('RW 1 FLAT "disk-f001.vmdk" 0', "symbolic link"),
    "a folder": ('RW 1 FLAT "disk-f002.vmdk" 0', "extents"),
    "a pipe": ('RW 1 FLAT "disk-f003.vmdk" 0', "extents"),
    "nothing": ('RW 1 FLAT "disk-f004.vmdk" 0', "extents"),
    "a short one": ('RW 1 FLAT "disk-f005.vmdk" 0', "truncated"),
    "bytes twice": ('RW 2 FLAT "disk-f006.vmdk" 0\nRW 2 FLAT "disk-f006.vmdk" 1', "overlap"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_part_that_is_none_is_refused(store: Store, tmp_path: Path, name: str) -> None:
    extents, word = REFUSED[name]
    secrets = ("other-flat.vmdk", "diskette.vmdk", "secret", "disk-2.vmdk", "disk-2-flat.vmdk", "disk-flat.raw")
    for secret in (*secrets, "disk-f١١1.vmdk", "disk-f006.vmdk"):
        (tmp_path / secret).write_bytes(b"x" * 4096)
    (tmp_path / "disk-f001.vmdk").symlink_to(tmp_path / "secret")
    (tmp_path / "disk-f002.vmdk").mkdir()
    os.mkfifo(tmp_path / "disk-f003.vmdk")
    (tmp_path / "disk-f005.vmdk").write_bytes(b"x" * 100)
    flat(tmp_path, extents)
    with pytest.raises(VmferryError, match=word if " " in word else rf"not opened \({word}\)"):
        stored_image(store, "disk.vmdk")


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vhdx", "vdi", "qed"])
def test_an_image_of_another_format_is_no_flat_part(store: Store, tmp_path: Path, kind: str) -> None:
    (tmp_path / "disk-flat.vmdk").write_bytes(image(kind))
    flat(tmp_path, 'RW 8 FLAT "disk-flat.vmdk" 0', kind="monolithicFlat")
    with pytest.raises(
        VmferryError,
        match=rf"not opened \(disguised\): it is said to be a run of a disk, and bears the marks of {kind}",
    ):
        stored_image(store, "disk.vmdk")


def test_what_a_guest_wrote_where_its_disk_was_split_is_no_mark(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk-f001.vmdk").write_bytes(b"x" * 4096)
    (tmp_path / "disk-f002.vmdk").write_bytes(b"\x1f\x8b\x08".ljust(4096, b"z"))
    flat(tmp_path, 'RW 8 FLAT "disk-f001.vmdk" 0', 'RW 8 FLAT "disk-f002.vmdk" 0')
    assert content(store)[4096:4100] == b"\x1f\x8b\x08z"


@pytest.mark.parametrize(
    "extents",
    [
        ('RW 2 FLAT "disk-f001.vmdk" 4', 'RW 2 FLAT "disk-f001.vmdk" 0'),
        ('RW 2 FLAT "disk-f001.vmdk" 0', 'RW 2 FLAT "disk-f002.vmdk" 0', 'RW 2 FLAT "disk-f001.vmdk" 4'),
    ],
)
def test_a_descriptor_that_goes_back_in_a_part_is_refused(
    store: Store, tmp_path: Path, extents: tuple[str, ...]
) -> None:
    for name in ("disk-f001.vmdk", "disk-f002.vmdk"):
        (tmp_path / name).write_bytes(b"x" * 4096)
    flat(tmp_path, *extents)
    with pytest.raises(VmferryError, match=r"not opened \(extents\): it goes back to 'disk-f001.vmdk'"):
        stored_image(store, "disk.vmdk")


def test_the_map_of_a_part_is_gone_through_once() -> None:
    """A descriptor can have many runs in one part, each of which would begin with its first extent otherwise."""
    disk = Counted(islands(64 * MIB, range(0, 64 * MIB, 2 * LEAF)))
    step = 96 << 10  # so that extents go over the ends of runs, and runs over those of extents
    runs = [Run(step, disk, at) for at in range(0, 60 * MIB, step)]
    joined = JoinedDisks([Run(512), *runs, Run(2 * MIB, disk, 62 * MIB)])
    found = list(joined.extents())
    assert [one.offset for one in found] == [0, *[one.end for one in found[:-1]]]
    assert found[-1].end == joined.size
    alone = [(at, disk.kind(at)) for at in (*range(0, 60 * MIB, LEAF), *range(62 * MIB, 64 * MIB, LEAF))]
    shift = {True: 512 - 2 * MIB, False: 512}
    for at, kind in alone:
        place = at + shift[at >= 62 * MIB]
        assert {one.kind for one in found if one.offset < place + LEAF and one.end > place} == {kind}
    assert disk.told <= len(disk.map) + 1
    assert list(JoinedDisks([Run(LEAF, disk, LEAF), Run(LEAF, disk)]).extents()) == [
        Extent(0, LEAF, "zero"),
        Extent(LEAF, LEAF, "data"),
    ]


def test_an_image_of_its_own_is_no_sparse_part(store: Store, tmp_path: Path) -> None:
    (tmp_path / "disk-s001.vmdk").write_bytes(image("vmdk"))
    flat(tmp_path, f'RW {SIZE // 512} SPARSE "disk-s001.vmdk"', kind="twoGbMaxExtentSparse")
    with pytest.raises(VmferryError, match=r"not opened \(disguised\): it .* is an image of its own"):
        stored_image(store, "disk.vmdk")


def test_parts_end_as_their_descriptor_does(store: Store, tmp_path: Path) -> None:
    """QEMU writes web-flat.VMDK for web.VMDK."""
    (tmp_path / "WEB-flat.VMDK").write_bytes(b"x" * 4096)
    (tmp_path / "WEB.VMDK").write_bytes(descriptor('RW 8 FLAT "WEB-flat.VMDK" 0', kind="monolithicFlat"))
    with open_image(stored_image(store, "WEB.VMDK")) as source:
        assert content_of(source) == b"x" * 4096


def test_a_sparse_part_is_inspected_as_well(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(guest())
    options = ["-o", "subformat=twoGbMaxExtentSparse"]
    run("qemu-img", "convert", "-f", "raw", "-O", "vmdk", *options, tmp_path / "source", tmp_path / "disk.vmdk")
    part = tmp_path / "disk-s001.vmdk"
    good, text = part.read_bytes(), (tmp_path / "disk.vmdk").read_text()
    directory = 512 * int.from_bytes(good[56:64], "little")
    table = 512 * int.from_bytes(good[directory : directory + 4], "little")
    twice = good[: table + 4] + good[table : table + 4] + good[table + 8 :]
    lies = {
        "overlap": twice,
        "unknown_feature": put("<I", 8, 1 << 16 | 3)(good),
        "truncated": good[:-513],
        "damaged": put("<Q", 12, SIZE // 512 - 128)(good),
    }
    for word, data in lies.items():
        part.write_bytes(data)
        with pytest.raises(VmferryError, match=rf"not opened \({word}\)"):
            stored_image(store, "disk.vmdk")
    part.write_bytes(good)
    (tmp_path / "disk.vmdk").write_text(text.replace(f"RW {SIZE // 512} ", f"RW {SIZE // 512 + 8} "))
    with pytest.raises(VmferryError, match="another size"):
        stored_image(store, "disk.vmdk")
