# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports into HTTP stores: ordinary files on the server, that come back byte for byte."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent, Part
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    StoreSpec,
    TransferOptions,
    VerifyRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.verify_export import verify_export
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.retrying import RetryingStore
from rigs.fault_proxy import Fault

from .chains import HOME, LEAF, Chain, Guest, MemoryDisk, assert_opened_by_qemu, assert_whole, export
from .dav_rig import NginxDavRig
from .patience import Patience

in_each = pytest.mark.parametrize("rig", ["nginx_dav", "rclone_dav"], indirect=True)


def spec(rig: NginxDavRig, store: Store, url: str = "") -> StoreSpec:
    return StoreSpec(url or store.url, dict(rig.server.settings))


def sent_as(result: dict[str, Any]) -> list[str]:
    return [disk["sent_as"] for disk in result["export"]["disks"]]


@in_each
def test_a_chain_comes_back_and_qemu_alone_opens_what_lies_on_the_server(rig: NginxDavRig, tmp_path: Path) -> None:
    guest, chain, store = Guest(), Chain(), rig.open()
    for turn in range(2):
        result = export(spec(rig, store), guest, tmp_path / "state", verify="content")
        chain.add(result["export"]["id"], guest.now)
        assert sent_as(result) == ["joined_parts", "joined_parts"]
        if turn == 0:
            guest.write("disk-0", 3)
            guest.clear("disk-0", 9)
    assert assert_whole(store, chain) == chain.ids
    for one in chain.ids:
        for name, data in chain.held[one].items():
            assert_opened_by_qemu(rig.folder(store) / HOME / one / f"{name}.qcow2", data)
    assert not [name for name in rig.leftovers(store) if ".part" in name]


class HalfEmpty(MemoryDisk):
    """Tells of a hole, and has leaves of zeros that it does not tell of."""

    def extents(self) -> Iterator[Extent]:
        hole = len(self.data) // LEAF // 2 * LEAF
        yield Extent(0, hole, "data")
        if hole + 4 * LEAF < len(self.data):
            yield Extent(hole, 4 * LEAF, "zero")
            hole += 4 * LEAF
        yield Extent(hole, len(self.data) - hole, "data")


def half_empty(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = guest.disks["disk-0"]
    disk[12 * LEAF : 16 * LEAF] = bytes(4 * LEAF)
    for leaf in (0, 5, 6, 20, 23):
        guest.clear("disk-0", leaf)
    monkeypatch.setattr("contract.chains.MemoryDisk", HalfEmpty)


@in_each
@pytest.mark.parametrize("format_", ["qcow2", "raw"])
def test_what_nobody_is_to_go_on_with_is_sent_once(
    rig: NginxDavRig, format_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest, store = Guest(), rig.open(url=rig.proxy.endpoint_url)
    half_empty(guest, monkeypatch)
    rig.proxy.reset()
    result = export(spec(rig, store), guest, tmp_path / "state", format=format_, on_failure="undo", verify="none")
    assert sent_as(result) == ["stream", "stream"]
    images = [one for one in rig.proxy.requests if one.method == "PUT" and f".{format_}." in one.target]
    assert [one.length for one in images] == [disk["bytes_stored"] for disk in result["export"]["disks"]]
    made = result["export"]["id"]
    assert assert_whole(store, Chain([made], {made: guest.now})) == [made]
    for name, data in guest.now.items():
        path = rig.folder(store) / HOME / made / f"{name}.{format_}"
        if format_ == "raw":
            assert path.read_bytes() == data
        else:
            assert_opened_by_qemu(path, data)


def test_an_increment_stands_on_what_was_sent_in_one_stream(nginx_dav: NginxDavRig, tmp_path: Path) -> None:
    guest, chain, store = Guest(), Chain(), nginx_dav.open()
    for _unused in range(2):
        result = export(spec(nginx_dav, store), guest, tmp_path / "state", on_failure="undo")
        chain.add(result["export"]["id"], guest.now)
        guest.write("disk-0", 3)
    assert sent_as(result) == ["joined_parts", "joined_parts"]
    assert assert_whole(store, chain) == chain.ids


@pytest.mark.parametrize(
    "fault",
    [
        Fault(reset_after=400_000, method="PUT", path="disk-0.qcow2"),
        Fault(answer=507, method="PUT", path="disk-0.qcow2"),
        Fault(lose_answer=True, method="PUT", path="disk-0.qcow2"),
    ],
    ids=repr,
)
def test_a_stream_that_breaks_fails_the_export_and_leaves_nothing(
    nginx_dav: NginxDavRig, tmp_path: Path, fault: Fault
) -> None:
    store = nginx_dav.open(url=nginx_dav.proxy.endpoint_url)
    nginx_dav.proxy.reset()
    nginx_dav.proxy.fail_next(fault)
    with pytest.raises(VmferryError) as raised:
        export(spec(nginx_dav, store), Guest(), tmp_path / "state", on_failure="undo")
    nginx_dav.proxy.reset()
    assert raised.value.kind == ("no_space" if fault.answer else "network")
    assert "disk-0.qcow2" in raised.value.message
    assert nginx_dav.leftovers(store) == []


def test_a_guest_that_cannot_be_read_ends_a_stream_that_waits_for_it(nginx_dav: NginxDavRig, tmp_path: Path) -> None:
    guest, store, reads = Guest(), nginx_dav.open(), []

    def fail() -> None:
        reads.append(None)
        raise VmferryError("network", "The disk is gone.", retryable=False)

    guest.reading = fail
    with pytest.raises(VmferryError, match="The disk is gone"):
        export(spec(nginx_dav, store), guest, tmp_path / "state", on_failure="undo")
    assert reads
    assert nginx_dav.leftovers(store) == []


def test_the_parts_of_a_stream_wait_for_their_turn_and_for_nothing_else(nginx_dav: NginxDavRig) -> None:
    store = nginx_dav.open()
    data = bytes(range(256)) * 4096
    parts = [Part(number, (number - 1) * 100_000, 100_000) for number in range(1, 11)]
    stream = store.open_stream("vm/a", 1_000_000)
    assert stream is not None

    def send(part: Part) -> None:
        stream.write_part(part, memoryview(data)[part.offset : part.offset + part.size])

    threads = [threading.Thread(target=send, args=(part,)) for part in reversed(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert store.stat("vm/a") is None
    assert stream.complete([], 1_000_000).size == 1_000_000
    assert store.get("vm/a") == data[:1_000_000]


@pytest.mark.parametrize("fault", [Fault(lose_answer=True, method="MOVE"), Fault(answer=503, method="MOVE")], ids=repr)
def test_the_end_of_a_stream_is_asked_for_again(nginx_dav: NginxDavRig, fault: Fault) -> None:
    nginx_dav.proxy.reset()
    store = RetryingStore(nginx_dav.open(url=nginx_dav.proxy.endpoint_url), Patience())
    stream = store.open_stream("vm/a", 10)
    assert stream is not None
    stream.write_part(Part(1, 0, 10), memoryview(b"0123456789"))
    nginx_dav.proxy.fail_next(fault)
    assert stream.complete([], 10).size == 10
    assert store.get("vm/a") == b"0123456789"
    assert nginx_dav.leftovers(store) == ["vm/a"]


def test_a_stream_that_is_left_alone_is_removed_with_what_it_left(nginx_dav: NginxDavRig) -> None:
    store = nginx_dav.open()
    stream = store.open_stream("vm/a", 200_000)
    assert stream is not None
    stream.write_part(Part(1, 0, 100_000), memoryview(bytes(100_000)))
    stream.leave()
    assert store.resume_parts("vm/a", stream.token, 100_000) is None
    assert nginx_dav.leftovers(store) == []


def test_an_export_is_verified_where_it_lies(nginx_dav: NginxDavRig, tmp_path: Path) -> None:
    guest, store = Guest(), nginx_dav.open()
    made = export(spec(nginx_dav, store), guest, tmp_path / "state")["export"]["id"]
    image = nginx_dav.folder(store) / HOME / made / "disk-0.qcow2"
    asked = VerifyRequest(spec(nginx_dav, store), transfer=TransferOptions(state_dir=str(tmp_path / "state")))
    verify_export(asked, False)
    data = bytearray(image.read_bytes())
    data[-3 * LEAF] ^= 1
    image.write_bytes(data)
    with pytest.raises(VmferryError) as raised:
        verify_export(asked, False)
    assert raised.value.kind == "checksum_mismatch"
