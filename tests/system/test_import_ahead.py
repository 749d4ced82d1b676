# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check mode looks at an import before there is an export, by a description of the VM."""

from __future__ import annotations

from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec

from .exports import Bench, refused


def described(bench: Bench, vm: str) -> dict[str, Any]:
    found: dict[str, Any] = describe_vms(bench.provider, [vm], {})["vms"][0]
    return found


def test_what_stands_in_the_way_is_found_before_there_is_an_export(bench: Bench, off: str) -> None:
    vm = described(bench, off)
    ahead = bench.import_("restored", check_mode=True, source_vm=vm)
    assert [one for one in ahead["findings"] if one["severity"] == "error"] == []
    assert ahead["changed"]
    assert ahead["plan"]["export"] == ""
    assert 0 < ahead["plan"]["bytes_to_read"] <= vm["disks"][0]["size"]
    taken = bench.import_(off, check_mode=True, source_vm=vm, placement={"network_map": {"nowhere": "lab"}})
    assert [one["kind"] for one in taken["findings"]] == ["conflict", "invalid_config"]
    assert not taken["changed"]
    assert bench.keys() == []


def test_an_export_that_is_there_says_more_than_a_description(bench: Bench, off: str) -> None:
    vm = described(bench, off)
    made = bench.export(off, verify="none", name="nightly")["export"]["id"]
    assert bench.import_("restored", check_mode=True, source_vm=vm)["plan"]["export"] == made
    assert bench.import_("restored", check_mode=True, source_vm=vm, export="other")["plan"]["export"] == ""
    refused(lambda: bench.import_("restored", check_mode=True, export="other"), "not_found", "other")
    bench.refused_import("restored", "not_found", "other", source_vm=vm, export="other")


def test_a_store_that_is_not_there_yet_is_a_warning(bench: Bench, off: str) -> None:
    store = StoreSpec(f"{bench.store.url}/later")
    ahead = bench.import_("restored", check_mode=True, source_vm=described(bench, off), store=store)
    assert [(one["severity"], one["kind"]) for one in ahead["findings"]] == [("warning", "not_found")]
    assert ahead["changed"]


def test_what_does_not_describe_a_vm_is_refused(bench: Bench) -> None:
    for nonsense in ({}, {"name": "web01"}, {"disks": [{"id": "disk-0"}]}, {"disks": 3}):
        bench.refused_import("restored", "invalid_config", "source_vm", source_vm=nonsense, check_mode=True)
