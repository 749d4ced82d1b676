# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chains whose exports are compressed in different ways, in a store."""

from __future__ import annotations

import struct
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem

from .chains import LEAF, Chain, Guest, assert_whole, export


def text(guest: Guest, leaf: int, word: bytes) -> None:
    guest.disks["disk-0"][leaf * LEAF : (leaf + 1) * LEAF] = (word * LEAF)[:LEAF]


@pytest.fixture
def guest() -> Guest:
    found = Guest()
    for leaf in range(2, 20):
        text(found, leaf, b"leaf %d " % leaf)
    return found


@pytest.fixture
def root(tmp_path: Path) -> StoreSpec:
    return StoreSpec((tmp_path / "store").as_uri())


def made(spec: StoreSpec, guest: Guest, folder: Path, chain: Chain, **options: object) -> dict[str, object]:
    told = export(spec, guest, folder / "state", **options)["export"]
    chain.add(told["id"], guest.now)
    return dict(told)


def test_a_chain_of_every_compression_is_verified_restored_and_merged(
    tmp_path: Path, root: StoreSpec, guest: Guest
) -> None:
    chain = Chain()
    whole = made(root, guest, tmp_path, chain, compression="zstd", compression_level=3)
    assert whole["compression"] == "zstd"
    assert whole["disks"][0]["bytes_stored"] <= 12 * LEAF  # type: ignore[index]
    for number, how in enumerate(("zlib", "none", "zstd")):
        text(guest, number + 4, b"anew")
        guest.write("disk-1", number)
        told = made(root, guest, tmp_path, chain, compression=how, mode="incremental")
        assert told["compression"] == how
    with closing(open_filesystem(root.url, {})) as store:
        assert_whole(store, chain, tools=True)
        request = VerifyRequest(root, "content", transfer=TransferOptions(state_dir=str(tmp_path)))
        assert verify_export(request, False)["problems"] == []
        asked = CleanupRequest(root, Limits(max_count=2), Protections(keep_last=1, min_retention=0), merge=True)
        clean_up_exports(asked, False)
        assert len(assert_whole(store, chain, tools=True)) == 2
        assert {entry.manifest.compression for entry in Catalog(store).read()[0]} <= {"zlib", "none", "zstd"}


@pytest.mark.parametrize("how", ["zstd", "zlib"])
def test_what_cannot_be_unpacked_is_told_as_damage_of_its_place_with_all_else(
    tmp_path: Path, root: StoreSpec, guest: Guest, how: str
) -> None:
    told = made(root, guest, tmp_path, Chain(), compression=how)
    path = Path(unquote(urlsplit(told["disks"][0]["url"]).path))  # type: ignore[index]
    # The first bytes of a compressed leaf are of its header: nothing of it can be unpacked without them.
    places = {leaf: compressed_place(path, leaf) for leaf in (5, 9)}
    with path.open("r+b") as image:
        for place in places.values():
            image.seek(place)
            image.write(b"\xff" * 16)
    with pytest.raises(VmferryError) as raised:
        verify_export(VerifyRequest(root, "content", transfer=TransferOptions(state_dir=str(tmp_path))), False)
    assert raised.value.kind == "checksum_mismatch"
    problems = raised.value.done["problems"]
    assert [(one["disk"], one["offset"], one["length"]) for one in problems] == [
        ("disk-0", leaf * LEAF, LEAF) for leaf in places
    ]


def compressed_place(image: Path, leaf: int) -> int:
    """Where the bytes of a compressed cluster begin: qcow2.txt of QEMU, "Compressed Clusters Descriptor"."""
    data = image.read_bytes()
    (l1,) = struct.unpack_from(">Q", data, 40)
    (l2,) = struct.unpack_from(">Q", data, l1)
    (entry,) = struct.unpack_from(">Q", data, (l2 & (1 << 56) - 512) + 8 * leaf)
    assert entry >> 62 & 1, "compressed"
    return int(entry & (1 << 62 - (16 - 8)) - 1)


def test_a_name_is_of_one_compression(tmp_path: Path, root: StoreSpec, guest: Guest) -> None:
    made(root, guest, tmp_path, Chain(), name="monthly", compression="zlib")
    assert not export(root, guest, tmp_path / "state", name="monthly", compression="zlib")["changed"]
    with pytest.raises(VmferryError, match="compression zlib") as told:
        export(root, guest, tmp_path / "state", name="monthly")
    assert told.value.kind == "conflict"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"compression": "zstd", "format": "raw"}, "format raw cannot be compressed"),
        ({"compression": "zlib", "compression_level": 10}, "levels from 1 to 9"),
        ({"compression": "zstd", "compression_level": 0}, "levels from 1 to 19"),
        ({"compression_level": 3}, "without compression"),
    ],
)
def test_what_cannot_be_compressed_is_told_before_the_first_byte(
    tmp_path: Path, root: StoreSpec, guest: Guest, options: dict[str, object], words: str
) -> None:
    with pytest.raises(VmferryError, match=words) as told:
        export(root, guest, tmp_path / "state", **options)
    assert told.value.kind == "invalid_config"
    assert not (tmp_path / "store").exists()
