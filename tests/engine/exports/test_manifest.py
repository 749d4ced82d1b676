# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest says the same when it is read again, and nothing that lies is believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.checksums import with_checksums
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import read_manifest

from .samples import archived, manifest

SCHEMA = json.loads((Path(__file__).parents[3] / "docs" / "schema" / "manifest-1.json").read_text())
TEXT = manifest().to_json(lambda file: f"/backups/{file}")


def changed(change: Callable[[Any], object]) -> bytes:
    document = json.loads(TEXT)
    change(document)
    return json.dumps(document).encode()


def test_what_is_written_is_read_back() -> None:
    assert read_manifest(TEXT, "here") == manifest()


def test_the_manifest_follows_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(TEXT), SCHEMA)


def test_checksums_are_filled_in_and_nothing_else_changes() -> None:
    sums = {disk.id: f"{number:x}" * 64 for number, disk in enumerate(manifest().disks, 10)}
    filled = with_checksums(TEXT, sums)
    assert filled is not None
    jsonschema.validate(json.loads(filled), SCHEMA)
    document = json.loads(filled)
    assert {disk["id"]: disk.pop("checksum") for disk in document["disks"]} == {
        name: f"sha256:{one}" for name, one in sums.items()
    }
    assert document == json.loads(TEXT)
    assert read_manifest(filled, "here") == manifest()
    assert with_checksums(filled, sums) is None, "it says so already"
    assert with_checksums(filled, {}) is None
    assert with_checksums(filled, {manifest().disks[0].id: "f" * 64}) is not None, "a wrong one does not stay"


def test_an_increment_is_read_back_and_follows_the_schema() -> None:
    disks = tuple(replace(disk, parent_root="99" * 32) for disk in manifest().disks)
    token = "vmferry-0badc0de-1a2b3c4d"
    made = manifest(mode="incremental", parent="20261120T063000Z-0a0b0c0d", disks=disks, change_token=token)
    text = made.to_json(str)
    assert read_manifest(text, "here") == made
    jsonschema.validate(json.loads(text), SCHEMA)


def test_a_change_token_may_hold_the_change_ids_of_many_disks() -> None:
    made = manifest(change_token="vsphere-1-" + "x" * 20_000)
    text = made.to_json(str)
    assert read_manifest(text, "here") == made
    jsonschema.validate(json.loads(text), SCHEMA)


def test_the_schema_refuses_what_the_reader_refuses() -> None:
    for lie in (lambda d: d["x_vmferry"].pop("chain_id"), lambda d: d["disks"][0].pop("boot_order_hint")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(json.loads(changed(lie)), SCHEMA)


def test_a_small_vm_leaves_out_the_memory_that_the_standard_cannot_say() -> None:
    small = manifest(machine=manifest().machine.__class__("libvirt", "u", "n", 1, 512, "bios"))
    document = json.loads(small.to_json(str))
    assert "mem_gb" not in document["vm"]
    jsonschema.validate(document, SCHEMA)


@pytest.mark.parametrize(
    "lie",
    [
        lambda d: d.pop("x_vmferry"),
        lambda d: d["x_vmferry"].update(schema="1"),
        lambda d: d["x_vmferry"].update(export_id="../../root"),
        lambda d: d["x_vmferry"].update(chain_id="nothex!!"),
        lambda d: d["x_vmferry"].update(disks=[]),
        lambda d: d["x_vmferry"]["disks"][0].update(file="../../../etc/shadow"),
        lambda d: d["x_vmferry"]["disks"][0].update(file="/etc/shadow"),
        lambda d: d["x_vmferry"]["disks"][0].update(file=".."),
        lambda d: d["x_vmferry"]["disks"][0]["digests"].update(path="a/../../b"),
        lambda d: d["x_vmferry"]["files"][1].update(path="native/../../../x"),
        lambda d: d["x_vmferry"]["disks"][0].update(size=-1),
        lambda d: d["x_vmferry"]["disks"][0].update(size=1 << 62),
        lambda d: d["x_vmferry"]["disks"][0].update(size=True),
        lambda d: d["x_vmferry"]["disks"][0].update(bytes_stored=1),
        lambda d: d["x_vmferry"]["disks"][0].update(digest_root="zz"),
        lambda d: d["x_vmferry"]["disks"][0]["object_proof"].update(algorithm="crc32"),
        lambda d: d["x_vmferry"]["disks"][1].update(id="disk-0"),
        lambda d: d["x_vmferry"]["disks"][1].update(file="disk-0.qcow2"),
        lambda d: d["x_vmferry"].update(mode="incremental"),
        lambda d: d["x_vmferry"].update(mode="incremental", parent="../../other"),
        lambda d: d["x_vmferry"].update(parent="20261120T063000Z-1a2b3c4d"),
        lambda d: d["x_vmferry"].update(change_token="--all"),
        lambda d: d["x_vmferry"].update(change_token="x" * 32_769),
        lambda d: d["x_vmferry"].update(taken_at="yesterday"),
        lambda d: d["x_vmferry"].update(tags="nightly"),
        lambda d: d["x_vmferry"]["machine"].update(firmware="openfirmware"),
    ],
)
def test_a_manifest_that_lies_is_refused(lie: Callable[[Any], object]) -> None:
    with pytest.raises(VmferryError) as refused:
        read_manifest(changed(lie), "s3://backups/x/manifest.json")
    assert refused.value.kind == "invalid_config"
    assert "s3://backups/x/manifest.json" in str(refused.value)


def test_the_disks_of_an_ova_lie_in_one_object_that_is_proven_once() -> None:
    made = archived()
    document = json.loads(made.to_json(str))
    jsonschema.validate(document, SCHEMA)
    assert read_manifest(made.to_json(str), "here") == made
    assert [one.file for _disk, one in made.objects] == ["web01.ova"]
    assert {(disk["source_format"], disk["bytes"]) for disk in document["disks"]} == {("ova", (1 << 20) + 4096)}
    assert "object_proof" not in document["x_vmferry"]["disks"][0]
    assert [one.file for _disk, one in manifest().objects] == ["disk-0.qcow2", "disk-1.qcow2"]


@pytest.mark.parametrize(
    "lie",
    [
        lambda own: own.update(format="qcow2"),
        lambda own: own.pop("archive"),
        lambda own: own.update(mode="incremental", parent="20261120T063000Z-0a0b0c0d"),
        lambda own: own["archive"].update(size=4096),
        lambda own: own["archive"].update(file="../web01.ova"),
        lambda own: own["archive"]["object_proof"].update(algorithm="crc32"),
        lambda own: own["disks"][0].update(file="vm.json"),
        lambda own: own["disks"][1].update(offset=1 << 20),
        lambda own: own["disks"][1].update(offset=-512),
        lambda own: own["disks"][1].pop("offset"),
    ],
)
def test_an_archive_that_is_not_what_it_is_said_to_be_is_refused(lie: Callable[[Any], object]) -> None:
    document = json.loads(archived().to_json(str))
    lie(document["x_vmferry"])
    with pytest.raises(VmferryError) as refused:
        read_manifest(json.dumps(document).encode(), "here")
    assert refused.value.kind == "invalid_config"


def test_a_newer_schema_is_unsupported_not_guessed_at() -> None:
    with pytest.raises(VmferryError) as refused:
        read_manifest(changed(lambda d: d["x_vmferry"].update(schema=2)), "here")
    assert refused.value.kind == "unsupported"


@given(st.binary(max_size=200))
def test_noise_is_refused_with_one_sentence(noise: bytes) -> None:
    with pytest.raises(VmferryError):
        read_manifest(noise, "here")


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(VmferryError, match="here"):
        read_manifest(text, "here")
