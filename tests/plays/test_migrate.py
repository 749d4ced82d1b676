# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM gets to another hypervisor, and boots there; whatever stops it is named, and the next run goes on from there."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from rigs.ports import free_port

from . import migration_rig
from .migration_rig import RUN, Migration

there, migration = migration_rig.there, migration_rig.migration  # fixtures
FAST_FORCE = {"vm_migrate_power_off_timeout": "1", "vm_migrate_power_off_force": True}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_running_vm_is_migrated_and_boots_there_while_the_source_runs_on(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    before = source.XMLDesc(), digest(migration.folder / "disks/web01.raw")
    first = migration.run()
    assert first.rc == 0, first.output
    assert first.changed == {"web01"}
    assert first.states() == {"web01": "migrated"}
    assert "kvm02/web01" in first.line("web01")
    assert first.row("web01")["export"] in first.line("web01")
    assert source.isActive()
    assert (source.XMLDesc(), digest(migration.folder / "disks/web01.raw")) == before, "the source is left as it is"
    assert migration.exports() == [], "the staging store is cleaned up"
    made = migration.target("web01")
    assert made is not None
    again = migration.run()
    assert (again.rc, again.changed, again.states()) == (0, set(), {"web01": "done"}), again.output
    assert migration.jobs() == ["export", "import"], "nothing is done twice"
    migration.has_booted("web01", "web01")


def test_the_preflight_tells_all_at_once_and_nothing_is_done(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    migration.add("web02", network=True)
    migration.there.connect().defineXML(source.XMLDesc().replace(source.UUIDString(), ""))
    staging = migration.folder / "no_folder"
    staging.touch()
    ended = migration.run(vm_migrate_power_off=True, vm_migrate_staging={"url": f"file://{staging}"})
    assert ended.rc == 2
    assert ended.states() == {"web01": "failed", "web02": "failed"}
    said = {row["vm"]: "\n".join(row["findings"]) for row in ended.report}
    assert "destination: error: A VM named web01 exists already." in said["web01"]
    assert "destination: error: There is no network production for nic-0 of web02." in said["web02"]
    for vm in said:
        assert f"source: error: file://{staging}" in said[vm]
        assert {row["error"]["step"] for row in ended.report} == {"preflight"}
    assert source.isActive()
    assert migration.jobs() == []


def test_check_mode_shows_the_plan_and_does_nothing(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    ended = migration.run("--check", vm_migrate_power_off=True)
    assert (ended.rc, ended.changed, ended.states()) == (0, set(), {"web01": "planned"}), ended.output
    assert "1 to migrate" in ended.output
    assert source.isActive()
    assert (migration.jobs(), migration.exports(), migration.target("web01")) == ([], [], None)


def test_each_step_that_fails_is_named_and_the_next_run_goes_on_from_there(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    disk = migration.folder / "disks/web01.raw"
    port = free_port()
    wanted = {
        "vm_migrate_name": "web01-moved",
        "vm_migrate_power_off": True,
        "vm_migrate_delete_source": True,
        "vm_migrate_reachable": {"host": "127.0.0.1", "port": port, "timeout": 1},
    }

    def fails(step: str, words: str, **variables: object) -> None:
        ended = migration.run(**{**wanted, **variables})
        assert (ended.rc, ended.states()) == (2, {"web01": "failed"}), ended.output
        assert f"The migration of web01 failed at the step {step}." in ended.output
        assert words in ended.row("web01")["error"]["message"]
        assert ended.line("web01").count(f"{step}: ") == 1

    fails("power_off", "web01 did not power off within 1 s.", vm_migrate_power_off_timeout="1")
    assert source.isActive()
    assert migration.jobs() == []
    fails("export", "bandwidth_limit", **FAST_FORCE, vm_export_bandwidth_limit="fast")
    assert not source.isActive(), "this guest hears nothing, and its power was cut"
    fails("import", "bandwidth_limit", vm_import_bandwidth_limit="fast")
    (export,) = migration.exports()
    fails("reach", f"web01-moved did not answer at 127.0.0.1:{port}.")
    target = migration.target("web01-moved")
    assert target is not None
    assert migration.exports() == [export], "the export is taken again"
    with socket.create_server(("127.0.0.1", port)):
        with disk.open("r+b") as file:
            file.seek(512 + 100)
            file.write(b"written after the export")
        fails("delete_source", "web01 is kept. It was written to after it was exported")
        assert migration.source("web01") is not None
        with disk.open("r+b") as file:
            file.seek(512 + 100)
            file.write(bytes(24))
        ended = migration.run(**wanted)
    assert (ended.rc, ended.states()) == (0, {"web01": "done"}), ended.output
    assert migration.source("web01") is None
    assert not disk.exists()
    again = migration.target("web01-moved")
    assert again is not None
    assert again.UUIDString() == target.UUIDString(), "it was made once"
    assert migration.jobs().count("import") == 1
    assert migration.exports() == []
    migration.has_booted("web01-moved", "web01")


def test_a_source_is_not_deleted_where_nothing_could_confirm_the_target(migration: Migration) -> None:
    migration.add("web01")
    ended = migration.run(vm_migrate_delete_source=True)
    assert ended.rc == 2
    assert "Nothing would show that web01 works before web01 is deleted." in ended.row("web01")["error"]["message"]
    assert migration.source("web01") is not None
    assert migration.target("web01") is None


@pytest.mark.parametrize(
    ("policy", "after_failure", "after_success"), [("always", 0, 0), ("on_success", 1, 0), ("never", 1, 1)]
)
def test_the_staging_store_is_cleaned_up_as_the_policy_says(
    migration: Migration, policy: str, after_failure: int, after_success: int
) -> None:
    migration.add("web01")
    failed = migration.run(vm_migrate_cleanup=policy, vm_import_bandwidth_limit="fast")
    assert failed.row("web01")["error"]["step"] == "import"
    assert len(migration.exports()) == after_failure
    done = migration.run(vm_migrate_cleanup=policy, vm_migrate_power_on=False)
    assert done.states() == {"web01": "migrated"}, done.output
    assert len(migration.exports()) == after_success
    target = migration.target("web01")
    assert target is not None
    assert not target.isActive()


def test_one_that_cannot_be_migrated_keeps_no_other_from_it(migration: Migration) -> None:
    migration.add("web01")
    migration.add("web02", network=True)
    ended = migration.run()
    assert (ended.rc, ended.failed) == (2, {"web02"}), ended.output
    assert ended.states() == {"web01": "migrated", "web02": "failed"}
    migration.has_booted("web01", "web01")
    migration.hosts["web01"] = {}
    stopped = migration.run(migrate_preflight="require", vm_migrate_run=f"{RUN}anew", vm_migrate_name="another")
    assert (stopped.failed, stopped.changed) == ({"web02"}, set())
    assert migration.target("another") is None


def test_a_source_that_ran_again_since_its_export_is_not_migrated_as_it_was(migration: Migration) -> None:
    source = migration.add("web01")
    migration.run(vm_migrate_power_off=True, vm_import_bandwidth_limit="fast")
    assert len(migration.exports()) == 1
    source.create()
    refused = migration.run(vm_migrate_power_off=True)
    assert "and runs again" in refused.row("web01")["error"]["message"]
    assert source.isActive()
    anew = migration.run(vm_migrate_power_off=True, vm_migrate_run="second-try", **FAST_FORCE)
    assert anew.states() == {"web01": "migrated"}, anew.output
    assert len(migration.exports()) == 1, "what another run exported is left alone"
