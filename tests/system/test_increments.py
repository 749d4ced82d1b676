# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Increments of a VM whose changes nobody tracks, found by digests: what is stored, refused, and comes back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import iso_time
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting import take_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.exporting.write_export import write_export
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from rigs.domain import remove_domain

from .conftest import LEAF, SIZE, OffVm
from .exports import Bench, check, compare

DAY = 86400.0


def restored(bench: Bench, export: str, name: str) -> Path:
    """The disk of a VM imported from this export."""
    bench.import_(name, export=export, placement={"disk_format": "raw"})
    domain = bench.rig.connect().lookupByName(name)
    remove_domain(domain)
    (disk,) = bench.images.glob(f"{name}-disk-0*")
    return disk


def test_an_increment_holds_what_differs_and_every_export_of_the_chain_comes_back(bench: Bench, vm: OffVm) -> None:
    copies: dict[str, Path] = {}
    for turn in range(3):
        made = bench.export(vm.name)["export"]
        copies[made["id"]] = Path(shutil.copy(vm.disk, bench.folder / f"copy-{turn}.raw"))
        assert made["mode"] == ("incremental" if turn else "full")
        assert made["structure"] == list(copies)
        vm.write(3 + turn, b"changed".ljust(LEAF, b"!"))
        vm.write(20, bytes(LEAF))
        vm.write(200 + turn, b"grown")
    (disk,) = made["disks"]
    assert disk["bytes_changed"] == 2 * LEAF, "leaf 20 was zeroed before the first increment, and stays so"
    assert disk["bytes_stored"] < 10 * LEAF
    assert made["fell_back"] == ""
    for number, (export, copy) in enumerate(copies.items()):
        compare(restored(bench, export, f"back-{number}"), "raw", copy, "raw")
    bench.assert_nothing_left(vm.name, runs=False)


def test_an_increment_is_opened_by_qemu_img_alone_also_where_it_was_copied_to(bench: Bench, vm: OffVm) -> None:
    bench.export(vm.name)
    vm.write(1, bytes(LEAF))  # what is zero now hides what the parent has
    vm.write(100, b"x" * LEAF)
    newest = bench.stored(bench.export(vm.name))
    check(newest)
    compare(newest, "qcow2", vm.disk, "raw")
    elsewhere = shutil.copytree(newest.parents[1], bench.folder / "copy")
    shutil.rmtree(newest.parents[1])
    copied = elsewhere / newest.parent.name / newest.name
    chain = json.loads(
        subprocess.run(
            ["qemu-img", "info", "--output=json", "--backing-chain", str(copied)],
            check=True, capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    assert [Path(image["filename"]).parent.parent.resolve() for image in chain] == [elsewhere] * 2
    flat = bench.folder / "flat.raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(copied), str(flat)], check=True)
    compare(flat, "raw", vm.disk, "raw")


def test_a_chain_in_a_bucket_is_read_straight_from_there(s3_bench: Bench, vm: OffVm) -> None:
    s3_bench.export(vm.name)
    vm.write(5, bytes(3 * LEAF))
    vm.write(130, b"y" * LEAF)
    made = s3_bench.export(vm.name, verify="content")["export"]
    assert made["mode"] == "incremental"
    compare(restored(s3_bench, made["id"], "back"), "raw", vm.disk, "raw")
    s3_bench.assert_nothing_left(vm.name, runs=False)


def test_where_nothing_changed_nothing_is_written_but_that_it_was_looked(bench: Bench, vm: OffVm) -> None:
    first = bench.export(vm.name)
    keys = bench.keys()
    again = bench.export(vm.name)
    assert (again["changed"], again["export"]["id"]) == (False, first["export"]["id"])
    assert (first["unchanged_since"], again["unchanged_since"]) == ("", first["export"]["id"])
    assert again["export"]["checked_at"] >= first["export"]["taken_at"]
    assert bench.jobs(job=again["job"]["id"])[0]["note"] == f"nothing changed since {first['export']['id']}"
    assert again["diff"]["before"] == again["diff"]["after"]
    (checked,) = set(bench.keys()) - set(keys)
    assert checked.startswith(bench.stored(first).parent.parent.name)
    assert checked.endswith("/checked.json")
    (listed,) = list_exports(bench.store, vm.name, "", [], "", False)["exports"]
    assert listed["taken_at"] <= listed["checked_at"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bench.assert_nothing_left(vm.name, runs=False)


def test_what_has_a_name_is_made_though_nothing_changed(bench: Bench, vm: OffVm) -> None:
    bench.export(vm.name)
    named = bench.export(vm.name, name="before the upgrade")
    assert named["changed"]
    assert named["export"]["mode"] == "incremental"
    compare(restored(bench, "before the upgrade", "back"), "raw", vm.disk, "raw")


def test_a_machine_that_changed_is_exported_though_its_disks_did_not(bench: Bench, vm: OffVm) -> None:
    bench.export(vm.name)
    domain = bench.rig.connect().lookupByName(vm.name)
    domain.setMaxMemory(48 * 1024)
    made = bench.export(vm.name)
    assert made["changed"]
    assert made["export"]["disks"][0]["bytes_changed"] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"full_after": 0.5}, "older than full_after"),
        ({"max_chain": 1}, "as many as max_chain allows"),
        ({"format": "raw"}, "format raw"),
        ({"disks": ("vda",)}, ""),
    ],
)
def test_auto_says_why_it_took_a_full_export_and_incremental_refuses(
    bench: Bench, vm: OffVm, options: dict[str, object], words: str
) -> None:
    bench.export(vm.name)
    vm.write(1, b"1" * LEAF)
    bench.export(vm.name)
    vm.write(2, b"2" * LEAF)
    if words:
        bench.refused_export(vm.name, "conflict", words, mode="incremental", **options)
    made = bench.export(vm.name, **options)["export"]
    assert made["mode"] == ("full" if words else "incremental")
    assert words in made["fell_back"]
    assert made["reason"]


def test_without_an_export_to_stand_on_auto_is_full_and_says_so(bench: Bench, vm: OffVm) -> None:
    bench.refused_export(vm.name, "conflict", "there is no export to stand on", mode="incremental")
    assert bench.export(vm.name)["export"]["fell_back"] == "there is no export to stand on"


def test_after_an_export_from_the_future_increments_go_on(bench: Bench, vm: OffVm) -> None:
    first = bench.stored(bench.export(vm.name)).with_name("manifest.json")
    taken = json.loads(first.read_text())["x_vmferry"]["taken_at"]
    first.write_text(first.read_text().replace(taken, iso_time(time.time() + DAY)))
    made = []
    for leaf in range(3):
        vm.write(leaf, b"!" * LEAF)
        made.append(bench.export(vm.name, mode="full" if leaf == 1 else "auto"))
    assert [one["export"]["mode"] for one in made] == ["incremental", "full", "incremental"]
    assert made[2]["export"]["parent"] == made[1]["export"]["id"]
    assert "which is yet to come" in made[2]["warnings"][0]


def test_an_increment_lies_beside_what_it_stands_on_also_where_the_vm_has_two_folders(bench: Bench, vm: OffVm) -> None:
    """As after a VM was renamed, and two stores were put together."""
    old = bench.stored(bench.export(vm.name)).parents[1]
    aside = bench.folder / "aside"
    old.rename(aside)
    bench.export(vm.name, mode="full")
    aside.rename(old.with_name(f"zeta-{old.name.rpartition('-')[2]}"))
    vm.write(2, b"2" * LEAF)
    made = bench.export(vm.name)["export"]
    assert made["mode"] == "incremental"
    compare(restored(bench, made["id"], "back"), "raw", vm.disk, "raw")


def test_full_begins_a_new_chain(bench: Bench, vm: OffVm) -> None:
    first = bench.export(vm.name)["export"]
    second = bench.export(vm.name, mode="full")["export"]
    assert (second["mode"], second["fell_back"]) == ("full", "")
    assert second["chain_id"] != first["chain_id"]
    vm.write(2, b"2" * LEAF)
    assert bench.export(vm.name)["export"]["parent"] == second["id"]


def test_damage_of_the_parents_digests_makes_the_export_a_full_one(bench: Bench, vm: OffVm) -> None:
    first = bench.stored(bench.export(vm.name))
    digests = first.with_name("disk-0.digests")
    text = bytearray(digests.read_bytes())
    text[-7] ^= 1
    digests.write_bytes(bytes(text))
    vm.write(2, b"2" * LEAF)
    made = bench.export(vm.name)
    assert made["export"]["mode"] == "full"
    assert "is not what its manifest names" in made["export"]["fell_back"]
    assert any("A full export is made instead" in warning for warning in made["warnings"])
    compare(bench.stored(made), "qcow2", vm.disk, "raw")


def test_a_missing_or_swapped_layer_is_named_before_a_vm_is_made(bench: Bench, vm: OffVm) -> None:
    first = bench.export(vm.name)
    vm.write(2, b"2" * LEAF)
    second = bench.export(vm.name)["export"]
    manifest = bench.stored(first).with_name("manifest.json")
    text = manifest.read_text()
    manifest.unlink()
    bench.refused_import(
        "back", "not_found", f"stands on {first['export']['id']}, which is not there", export=second["id"]
    )
    root = first["export"]["disks"][0]["digest_root"]
    manifest.write_text(text.replace(root, root[::-1]))
    bench.refused_import("back", "conflict", "was not taken against what", export=second["id"])
    bench.assert_no_machine("back")
    vm.write(3, b"3" * LEAF)
    assert "the chain is broken" in bench.export(vm.name)["export"]["fell_back"]


def test_a_parent_that_is_removed_meanwhile_is_noticed_before_the_manifest(bench: Bench, vm: OffVm) -> None:
    first = bench.stored(bench.export(vm.name))
    vm.write(2, b"2" * (8 * LEAF))
    with bench.running_module("vm_export", bench.module_arguments(vm=vm.name, bandwidth_limit="256KiB/s")) as process:
        process.wait_for_bytes()
        first.with_name("manifest.json").unlink()
        result = process.result()
    assert result["error"]["kind"] == "conflict"
    assert "was removed meanwhile" in result["msg"]
    assert not any("manifest" in key for key in bench.keys())  # noqa: SIM118 - no dictionary


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("lost", "spoil"), [("disk-0.qcow2", Path.unlink), ("disk-0.qcow2", shorten), ("disk-0.digests", Path.unlink)]
)
def test_nothing_stands_on_an_export_that_is_not_whole_and_nothing_is_said_to_equal_it(
    bench: Bench, vm: OffVm, lost: str, spoil: Callable[[Path], None]
) -> None:
    full = bench.stored(bench.export(vm.name))
    vm.write(2, b"2" * LEAF)
    bench.export(vm.name)
    spoil(full.with_name(lost))
    made = bench.export(vm.name)
    assert (made["changed"], made["unchanged_since"], made["export"]["mode"]) == (True, "", "full")
    assert made["export"]["fell_back"].startswith(f"the chain is broken: file://{full.with_name(lost)} ")


def test_nothing_is_said_to_equal_an_export_whose_machine_is_gone(bench: Bench, vm: OffVm) -> None:
    bench.stored(bench.export(vm.name)).with_name("vm.json").unlink()
    made = bench.export(vm.name)
    assert (made["changed"], made["export"]["mode"]) == (True, "full")


def test_an_export_that_goes_while_it_is_compared_is_not_said_to_be_equalled(
    bench: Bench, vm: OffVm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a cleanup on another host may do it, which looked before the intent was there."""
    first = bench.stored(bench.export(vm.name))

    def late(*arguments: Any) -> Any:
        made = write_export(*arguments)
        shutil.rmtree(first.parent)
        return made

    monkeypatch.setattr(take_export, "write_export", late)
    bench.refused_export(vm.name, "conflict", "was removed meanwhile")
    assert bench.keys() == []


def test_check_mode_says_what_an_increment_would_read_and_send(bench: Bench, vm: OffVm) -> None:
    first = bench.export(vm.name)["export"]
    plan = bench.export(vm.name, check_mode=True)["plan"]
    assert (plan["mode"], plan["parent"], plan["fell_back"]) == ("incremental", first["id"], "")
    assert plan["bytes_to_read"] <= SIZE
    full = bench.export(vm.name, check_mode=True, mode="full")["plan"]
    assert (full["mode"], full["parent"]) == ("full", "")
    refused = bench.export(vm.name, check_mode=True, mode="incremental", max_chain=1, full_after=0.0001)
    assert any("older than full_after" in finding["message"] for finding in refused["findings"])
    assert not refused["changed"]
