# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation of a module says is returned, is returned, in the type it says."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import yaml

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.describe_vms import describe_vms
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.end_job import end_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.requests import JobRequest
from rigs import guests
from rigs.domain import Disk, Guest, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

from .exports import Bench

MODULES = Path(__file__).resolve().parents[2] / "plugins" / "modules"
TYPES = {"str": str, "int": int, "bool": bool, "float": (int, float), "list": list, "dict": dict}
NULL = {"eta", "error"}  # of a job that went well


def documented(module: str) -> dict[str, Any]:
    tree = ast.parse((MODULES / f"{module}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "RETURN":
            return yaml.safe_load(ast.literal_eval(node.value))
    raise AssertionError(f"{module} documents no results")


def assert_returned(described: dict[str, Any], result: dict[str, Any], where: str) -> None:
    for name, what in described.items():
        path = f"{where}.{name}"
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
    assert_returned({name: documented(module)[name] for name in names}, result, module)


def test_what_is_documented_of_an_export_is_returned(bench: Bench, small: Guest) -> None:
    exported = bench.export("small", tags=("daily",), verify="none")
    assert_documented("vm_export", exported, "export", "job", "diff")
    planned = bench.export("small", check_mode=True)
    assert_documented("vm_export", planned, "findings", "plan", "diff")
    job = exported["job"]["id"]
    assert_documented("job_info", {"jobs": bench.jobs(job=job)}, "jobs")
    assert_documented("job", end_job(JobRequest(job, "finished", 5.0, str(bench.state)), check_mode=False), "job")


def test_what_is_documented_of_an_import_is_returned(bench: Bench, off: str) -> None:
    bench.export(off, verify="none")
    planned = bench.import_(off, check_mode=True)  # a name that is taken is something to find
    assert_documented("vm_import", planned, "findings", "plan", "diff")
    made = bench.import_("documented")
    bench.rig.connect().lookupByName("documented").undefine()
    assert_documented("vm_import", made, "vm", "export", "job", "diff")


def test_what_is_documented_of_a_store_is_returned(bench: Bench, off: str) -> None:
    bench.stored(bench.export(off, verify="none")).with_name("manifest.json").write_text("{")
    bench.export(off, tags=("daily",), verify="none")
    listed = list_exports(bench.store, "", "", [], "", statistics=True)
    assert_documented("export_info", listed, "exports", "broken", "statistics")


def test_what_is_documented_of_a_vm_is_returned(bench: Bench, rig: LibvirtRig) -> None:
    disk = guests.place(guests.mbr_disk(rig.directory / "shown.seed", "shown"), rig.directory / "shown.qcow2")
    domain = rig.connect().defineXML(domain_xml(Machine("shown", (Disk(disk),), network=True), rig.directory))
    try:
        domain.snapshotCreateXML("<domainsnapshot><name>before</name><description>x</description></domainsnapshot>")
        assert_documented("vm_info", describe_vms(bench.provider, ["shown"], {}), "vms")
    finally:
        remove_domain(domain)
