# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of a module says is returned, is returned, in the type it says, and nothing else is."""

from __future__ import annotations

import ast
import json
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from engine.exports.shelves import begin, commit

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.retention_rules import Limits, Protections
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.clean_up_exports import clean_up_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import (
    CleanupRequest,
    JobRequest,
    MigrateRequest,
    VmRequest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_jobs import list_jobs
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.migrate_vm import migrate_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import BootMarkers, Placement
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from rigs import guests
from rigs.domain import Disk, Guest, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import Bench, refused

MODULES = Path(__file__).resolve().parents[2] / "plugins" / "modules"
TYPES = {"str": str, "int": int, "bool": bool, "float": (int, float), "list": list, "dict": dict}
OF_ANSIBLE = {"changed", "warnings"}  # which modules need not document
WATCHED = "outside async and check mode"  # added by the action that watches; the plays look at them
NULL = {"eta", "error", "undone", "kept"}  # of a job that went well


def documented(module: str) -> dict[str, Any]:
    tree = ast.parse((MODULES / f"{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "RETURN":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} documents no results")


def assert_returned(described: dict[str, Any], result: dict[str, Any], where: str) -> None:
    unknown = sorted(result.keys() - described.keys())
    assert not unknown, f"{where} has {unknown}, documented nowhere"
    for name, what in described.items():
        path = f"{where}.{name}"
        if what["returned"] == WATCHED and name not in result:
            continue
        assert name in result, f"{path} is documented and missing"
        value = result[name]
        if name in NULL:
            assert value is None, f"{path} is {value!r}: look at its type as well"
            continue
        if what["type"] != "raw":
            assert isinstance(value, TYPES[what["type"]]), f"{path} is {value!r}, not {what['type']}"
        if "contains" in what:
            assert value, f"{path} is empty, so nothing in it was looked at"
        for one in value if isinstance(value, list) else [value]:
            if "elements" in what:
                assert isinstance(one, TYPES[what["elements"]]), f"{path} has {one!r}"
            if "contains" in what:
                assert_returned(what["contains"], one, path)


def assert_documented(module: str, result: dict[str, Any], *names: str) -> None:
    result = json.loads(json.dumps(result))  # as Ansible reads it
    described = documented(module)
    assert result.keys() <= {*described, *OF_ANSIBLE}, f"{module} returns {sorted(result)}"
    returned = {name: result[name] for name in result if name in names}
    assert_returned({name: described[name] for name in names}, returned, module)


def test_what_is_documented_of_an_export_is_returned(bench: Bench, small: Guest) -> None:
    exported = bench.export("small", tags=("daily",), verify="none")
    assert_documented("vm_export", exported, "unchanged_since", "export", "job", "diff")
    planned = bench.export("small", check_mode=True)
    assert_documented("vm_export", planned, "findings", "plan", "diff")
    failed = bench.refused_export("nobody", "not_found", "nobody").job
    assert_documented("vm_export", {"job": failed}, "job")
    job = exported["job"]["id"]
    assert_documented("job_info", list_jobs(str(bench.state), job, "", "", 50), "jobs")
    assert_documented("job", end_job(JobRequest(job, "finished", 5.0, str(bench.state)), check_mode=False), "job")


def test_what_is_documented_of_an_import_is_returned(bench: Bench, off: str) -> None:
    bench.export(off, verify="none")
    planned = bench.import_(off, check_mode=True)  # a name that is taken is something to find
    assert_documented("vm_import", planned, "findings", "plan", "diff")
    made = bench.import_("documented")
    bench.rig.connect().lookupByName("documented").undefine()
    assert_documented("vm_import", made, "vm", "export", "job", "diff")


def test_what_is_documented_of_a_migration_is_returned(bench: Bench, off: str) -> None:
    where = Placement(f"{off}-moved", storage=str(bench.images))
    asked = MigrateRequest(bench.provider, bench.provider, off, where, transfer=bench.transfer())
    planned = migrate_vm(replace(asked, placement=replace(where, name="")), check_mode=True)  # a name that is taken
    assert_documented("vm_migrate", planned, "findings", "plan", "diff")
    made = migrate_vm(asked, check_mode=False)
    bench.rig.connect().lookupByName(where.name).undefine()
    assert_documented("vm_migrate", made, "vm", "source", "migration", "job", "diff")


def test_what_is_documented_of_a_store_is_returned(bench: Bench, off: str) -> None:
    bench.stored(bench.export(off, verify="none")).with_name("manifest.json").write_text("{")
    bench.export(off, tags=("daily",), verify="none")
    listed = list_exports(bench.store, "", "", [], "", statistics=True)
    assert_documented("export_info", listed, "exports", "broken", "statistics")


def test_what_is_documented_of_a_cleanup_is_returned(bench: Bench, off: str) -> None:
    bench.export(off, mode="full", verify="none", tags=("daily",))
    stored = bench.stored(bench.export(off, mode="full", verify="none")).parent
    with closing(open_store(bench.store.url, bench.store.settings)) as store:
        begin(store, lease=-1.0)  # of another VM, as what cannot be read is, or nothing would go
        begin(store, lease=-1.0, held=60.0, number=1)
        commit(store, 1)
        store.put("other-99999999/20261121T063000Z-1a2b3c4d/manifest.json", b"{")
    request = CleanupRequest(bench.store, Limits(max_count=1), Protections(), orphans=True)
    cleaned = clean_up_exports(request, check_mode=False)
    assert_documented("export_cleanup", cleaned, "exports", "deleted", "freed", "orphans", "held", "broken", "diff")
    assert len(cleaned["deleted"]) == 1
    assert stored.name not in cleaned["deleted"]
    bench.export(off, name="next", mode="incremental", verify="none")
    merged = clean_up_exports(replace(request, merge=True), check_mode=False)
    assert_documented("export_cleanup", merged, "exports", "merged")


def test_what_is_documented_of_a_verification_is_returned(bench: Bench, off: str) -> None:
    image = bench.stored(bench.export(off, verify="none"))
    asked: dict[str, Any] = {"level": "boot", "markers": BootMarkers(guests.boot_marker(off))}
    planned = bench.verify(check_mode=True, storage="/nowhere", **asked)
    assert_documented("export_verify", planned, "findings", "plan", "diff")
    assert_documented("export_verify", bench.verify(**asked), "export", "level", "boot", "job", "diff")
    data = bytearray(image.read_bytes())
    data[len(data) // 2] ^= 1
    image.write_bytes(data)
    found: dict[str, Any] = {}  # of what is known at one level or the other
    for level in ("stored", "content"):
        failed = refused(partial(bench.verify, level=level), "checksum_mismatch", "disk-0").done
        assert_documented("export_verify", {**failed, "job": failed["job"]}, "export", "level", "job", "diff")
        found.update({name: value for name, value in failed["problems"][0].items() if value is not None})
    assert_documented("export_verify", {"problems": [found]}, "problems")


def test_what_is_documented_of_a_vm_is_returned(bench: Bench, rig: LibvirtRig) -> None:
    disk = guests.place(guests.mbr_disk(rig.directory / "shown.seed", "shown"), rig.directory / "shown.qcow2")
    domain = rig.connect().defineXML(domain_xml(Machine("shown", (Disk(disk),), network=True), rig.directory))
    try:
        domain.snapshotCreateXML("<domainsnapshot><name>before</name><description>x</description></domainsnapshot>")
        assert_documented("vm_info", describe_vms(bench.provider, ["shown"], {}), "vms")
        assert_documented("vm", bring_vm(VmRequest(bench.provider, "shown", "powered_on"), True), "vm", "diff")
    finally:
        remove_domain(domain)
