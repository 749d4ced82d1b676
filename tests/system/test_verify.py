# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports that lie in a bucket are looked at again, bit by bit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rigs.s3_server import S3Server

from .conftest import BUCKET, LEAF, OffVm
from .exports import Bench, refused

LEVELS = ("manifest", "stored", "content")


class StoredObjects:
    """Of one bench, behind the back of the store."""

    def __init__(self, bench: Bench, server: S3Server) -> None:
        self._client, self._prefix = server.client(), bench.store.url.rpartition("/")[2]

    def _key(self, export: dict[str, Any], name: str) -> dict[str, str]:
        folder = export["url"].partition(f"/{BUCKET}/")[2]
        return {"Bucket": BUCKET, "Key": f"{folder}/{name}"}

    def read(self, export: dict[str, Any], name: str) -> bytes:
        data: bytes = self._client.get_object(**self._key(export, name))["Body"].read()
        return data

    def change(self, export: dict[str, Any], name: str, how: Callable[[bytes], bytes]) -> None:
        self._client.put_object(**self._key(export, name), Body=how(self.read(export, name)))

    def remove(self, export: dict[str, Any], name: str) -> None:
        self._client.delete_object(**self._key(export, name))


@pytest.fixture
def objects(s3_bench: Bench, s3_server: S3Server) -> StoredObjects:
    return StoredObjects(s3_bench, s3_server)


def export_twice(bench: Bench, machine: OffVm) -> tuple[dict[str, Any], dict[str, Any]]:
    """A full export and an increment, whose leaf 20 is new."""
    full = bench.export(machine.name)["export"]
    machine.write(20, b"n" * LEAF)
    increment = bench.export(machine.name)["export"]
    assert increment["mode"] == "incremental"
    return full, increment


def problems(bench: Bench, words: str, **options: Any) -> list[dict[str, Any]]:
    error = refused(lambda: bench.verify(**options), "checksum_mismatch", words)
    assert (error.phase, error.retryable) == ("verifying", False)
    found: list[dict[str, Any]] = error.done["problems"]
    return found


def flipped(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_a_chain_in_a_bucket_passes_and_its_images_get_their_sha256(
    s3_bench: Bench,
    vm: OffVm,
    objects: StoredObjects,
) -> None:
    export_twice(s3_bench, vm)
    for level in LEVELS:
        made = s3_bench.verify(level=level)
        assert (made["changed"], made["problems"]) == (True, [])
    whole = hashlib.sha256(objects.read(made["export"], "disk-0.qcow2")).hexdigest()
    assert made["export"]["disks"][0]["sha256"] == whole
    (disk,) = json.loads(objects.read(made["export"], "manifest.json"))["disks"]
    assert disk["checksum"] == f"sha256:{whole}", "where other tools look for it"
    assert not s3_bench.verify(level="content", max_age=3600.0)["changed"]
    s3_bench.assert_nothing_left(vm.name, runs=False)


def test_damage_in_a_bucket_is_named(s3_bench: Bench, vm: OffVm, objects: StoredObjects) -> None:
    full, increment = export_twice(s3_bench, vm)
    sound = vm.disk.read_bytes()
    for export, leaf in ((full, 40), (increment, 20)):
        place = objects.read(export, "disk-0.qcow2").find(sound[leaf * LEAF : (leaf + 1) * LEAF])
        objects.change(export, "disk-0.qcow2", flipped(place + 77))
    found = problems(s3_bench, "disk-0 is damaged: bytes 1310720 to 1376256", level="content")
    assert [(one["export"], one["disk"], one["offset"]) for one in found] == [
        (increment["id"], "disk-0", 20 * LEAF),
        (full["id"], "disk-0", 40 * LEAF),
    ]
    found = problems(s3_bench, "differs from what was sent", level="stored")
    assert [(one["export"], one["object"]) for one in found] == [
        (full["id"], "disk-0.qcow2"),
        (increment["id"], "disk-0.qcow2"),
    ]


def test_what_is_gone_or_cut_off_in_a_bucket_is_named_at_every_level(
    s3_bench: Bench,
    vm: OffVm,
    objects: StoredObjects,
) -> None:
    full, increment = export_twice(s3_bench, vm)
    objects.change(full, "disk-0.qcow2", lambda data: data[:-LEAF])
    objects.remove(increment, "disk-0.digests")
    for level in LEVELS:
        first, second = problems(s3_bench, "bytes were sent", level=level)
        assert (first["export"], first["object"]) == (full["id"], "disk-0.qcow2")
        assert (second["export"], second["object"]) == (increment["id"], "disk-0.digests")
    objects.remove(full, "manifest.json")
    found = problems(s3_bench, "which is not there", level="manifest")
    assert found[0]["export"] == full["id"]


def test_a_chain_in_a_folder_passes_also_as_a_process_of_its_own(bench: Bench, vm: OffVm) -> None:
    _full, increment = export_twice(bench, vm)
    arguments = bench.module_arguments(vm=vm.name, level="stored", _ansible_diff=True)
    with bench.running_module("export_verify", arguments) as process:
        result = process.result()
    assert result["changed"], result
    assert result["export"]["id"] == increment["id"]
    assert result["diff"]["after"]["level"] == "stored"
    image = Path(increment["disks"][0]["url"].removeprefix("file://"))
    image.write_bytes(flipped(-1 % image.stat().st_size)(image.read_bytes()))
    with bench.running_module("export_verify", arguments) as process:
        result = process.result()
    assert (result["failed"], result["changed"], result["error"]["kind"]) == (True, True, "checksum_mismatch")
    assert result["problems"][0]["export"] == increment["id"]
    assert result["export"]["last_verified"]["passed"] is False
    assert result["job"]["kind"] == "verify"
    bench.assert_nothing_left(vm.name, runs=False)
