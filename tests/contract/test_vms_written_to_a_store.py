# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM is written into an object store as files: one pass for what is packed, and nothing left of what failed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest
from engine.images.disks import MIB, run
from engine.vm_files.shelf import refused
from engine.vm_files.written import WritingShelf

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files import import_session
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.file_place import FilePlace
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.vm_files.import_note import (
    MARK,
    ImportNote,
    undo,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.pieces import Pieces

from .dav_rig import NginxDavRig
from .objects_rig import opened, place
from .store_rigs import S3Rig

DISK = bytes(MIB) + Random(11).randbytes(8 * MIB) + b"end!" * 128  # more than a part


@dataclass(frozen=True)
class ShelfInStore(WritingShelf):
    where: StoreSpec

    @property
    def target(self) -> ProviderSpec:
        return ProviderSpec("image", {"url": self.where.url, "storage": self.where.settings})


@pytest.fixture
def shelf(kind: str, request: pytest.FixtureRequest, tmp_path: Path, s3: S3Rig) -> ShelfInStore:
    (tmp_path / "images").mkdir()
    where = place("s3", tmp_path, s3)
    if kind == "dav":
        rig: NginxDavRig = request.getfixturevalue("nginx_dav")
        with closing(rig.fresh()) as fresh:
            where = StoreSpec(fresh.url, dict(rig.server.settings))
    made = ShelfInStore(tmp_path, where)
    made.raw("web.raw", DISK)
    return made


@pytest.fixture
def store(shelf: ShelfInStore) -> Iterator[Store]:
    with opened(shelf.where) as found:
        yield found


def keys(store: Store) -> list[str]:
    return [info.key for info in store.list("")]


def content(store: Store, key: str) -> bytes:
    info = store.stat(key)
    assert info is not None
    data = bytearray(info.size)
    store.read_into(key, 0, memoryview(data))
    return bytes(data)


@pytest.mark.parametrize(("kind", "disk_format"), [("s3", "ova"), ("s3", "qcow2"), ("dav", "vhd")])
def test_a_vm_is_written_whole_and_found_again(shelf: ShelfInStore, store: Store, disk_format: str) -> None:
    made = shelf.bring(shelf.at("web.raw"), disk_format=disk_format)
    if disk_format == "ova":
        assert keys(store) == ["web.ova"]
        with tarfile.open(fileobj=io.BytesIO(content(store, "web.ova"))) as tar:
            files = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]
    else:
        files = {key.partition("/")[2]: content(store, key) for key in keys(store)}
    listed = dict(re.findall(r"SHA256\((.*)\)= ([0-9a-f]{64})\n", files["web.mf"].decode()))
    assert listed == {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != "web.mf"}
    (name,) = (name for name in files if "-disk1." in name)
    (shelf.folder / name).write_bytes(files[name])
    size = made["vm"]["disks"][0]["size"]
    (shelf.folder / "expected.raw").write_bytes(DISK.ljust(size, b"\0"))
    kind = {"vhd": "vpc", "qcow2": "qcow2"}.get(disk_format, "vmdk")
    run("qemu-img", "compare", "-f", kind, "-F", "raw", shelf.folder / name, shelf.folder / "expected.raw")
    assert shelf.told() == [made["vm"]]
    assert not shelf.bring(shelf.at("web.raw"), disk_format=disk_format)["changed"]


@pytest.mark.parametrize(("kind", "disk_format"), [("s3", "ova"), ("s3", "qcow2"), ("dav", "qcow2")])
def test_an_import_that_fails_leaves_no_object_and_no_upload(
    shelf: ShelfInStore, store: Store, disk_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = import_session.FileImport.take

    def changed(session: Any, *given: Any) -> None:
        take(session, *given)
        shelf.raw("web.raw", DISK[::-1])

    monkeypatch.setattr(import_session.FileImport, "take", changed)
    refused(lambda: shelf.bring(shelf.at("web.raw"), disk_format=disk_format), "conflict", "web.raw")
    assert keys(store) == []
    assert store.abort_uploads("") == 0


@pytest.mark.parametrize("kind", ["s3"])
def test_what_a_killed_import_left_is_removed_and_nothing_of_others(shelf: ShelfInStore, store: Store) -> None:
    """An upload under way, an object that it made, and one by the name of a third that somebody else put there."""
    keys_to_be = ["web/web.ovf", "web/web.mf", "web/web-disk1.qcow2", "web/web-disk2.qcow2"]
    now = time.time()
    intent = Intent("20261122T110000Z-1a2b3c4d", "j" * 32, "made-of", "web", now, now - 900, {}, written_at=now)
    made = dict.fromkeys(keys_to_be[1:], "")
    told = {**json.loads(intent.to_json()), "attempt": "1a2b3c4d", "keys": keys_to_be, "made": made}
    store.put("vmferry-import-web.json", json.dumps(told).encode())
    store.put(keys_to_be[2], b"made", metadata={MARK: "1a2b3c4d"})
    store.put(keys_to_be[1], b"theirs")
    parts = store.open_parts(keys_to_be[3])
    parts.write_part(Part(1, 0, 5 * MIB), memoryview(bytes(5 * MIB)))
    assert shelf.told() == []
    refused(lambda: shelf.bring(shelf.at("web.raw")), "conflict", "web/web.mf exists already")
    assert (keys(store), content(store, keys_to_be[1])) == ([keys_to_be[1]], b"theirs")
    assert store.abort_uploads("") == 0


@pytest.mark.parametrize("kind", ["s3"])
@pytest.mark.parametrize("keys_to_be", [["web.ova"], ["web/web.ovf", "web/web-disk1.vmdk"]], ids=["ova", "ovf"])
@pytest.mark.parametrize("is_joined", [False, True], ids=["under way", "joined"])
def test_pieces_of_what_a_killed_import_sent_are_removed(
    store: Store, keys_to_be: list[str], is_joined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: Any = store.open_parts(keys_to_be[-1])
    part = Part(1, 0, 10 * MIB)
    for number in (1, 2):
        parts.write_piece(part, number, memoryview(bytes(5 * MIB)))
    if is_joined:
        monkeypatch.setattr(Pieces, "_remove", lambda *_given: None)  # it was killed just before
        parts.join_pieces(part)
    theirs = f"{keys_to_be[-1]}.pieces/of-somebody-else"
    store.put(theirs, b"theirs")
    now = time.time()
    intent = Intent("20261122T110000Z-1a2b3c4d", "j" * 32, "made-of", "web", now, now - 900, {}, written_at=now)
    undo(FilePlace(store, is_path=False, keeps_metadata=True), ImportNote(intent, "1a2b3c4d", tuple(keys_to_be)))
    assert keys(store) == [theirs]
    assert store.abort_uploads("") == 0


@pytest.mark.parametrize("kind", ["s3"])
def test_objects_say_which_import_wrote_them(shelf: ShelfInStore, store: Store) -> None:
    shelf.raw("web.raw", DISK[: 2 * MIB])
    shelf.bring(shelf.at("web.raw"))
    (mark,) = {info.metadata.get(MARK) for info in map(store.stat, keys(store)) if info is not None}
    assert re.fullmatch("[0-9a-f]{8}", mark or "")
