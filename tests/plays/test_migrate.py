# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM gets to another hypervisor, and boots there; whatever stops it is named, and the next run goes on from there."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

from engine.exports.keys import key, pem

from rigs.ports import free_port

from . import migration_rig
from .migration_rig import GUEST, UNREACHABLE, Migration

here, there, migration = migration_rig.here, migration_rig.there, migration_rig.migration  # fixtures
MIB = 1 << 20
CUT_POWER = {"vm_migrate_power_off_timeout": "1", "vm_migrate_power_off_force": True}
WRONG_IMPORT: dict[str, Any] = {"vm_import_bandwidth_limit": "fast"}  # which only the import itself hears of


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_running_vm_is_migrated_and_boots_there_while_the_source_runs_on(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    before = source.XMLDesc(), digest(migration.disk("web01"))
    first = migration.run()
    assert first.rc == 0, first.output
    assert first.changed == {"web01"}
    assert first.states() == {"web01": "migrated"}
    assert "kvm02/web01" in first.line("web01")
    assert first.row("web01")["export"] in first.line("web01")
    assert source.isActive()
    assert (source.XMLDesc(), digest(migration.disk("web01"))) == before, "the source is left as it is"
    assert migration.exports() == [], "the staging store is cleaned up"
    made = migration.target("web01")
    assert made is not None
    again = migration.run()
    assert (again.rc, again.changed, again.states()) == (0, set(), {"web01": "done"}), again.output
    assert "exists already" not in again.output, "what an earlier run made is no obstacle"
    assert migration.jobs() == ["export", "import"], "nothing is done twice"
    migration.has_booted("web01", "web01")


def test_the_preflight_tells_all_at_once_and_nothing_is_done(migration: Migration) -> None:
    nowhere = migration.folder / "no_folder"
    nowhere.touch()
    source = migration.add("web01", runs=True, vm_migrate_staging={"url": f"file://{nowhere}"})
    migration.add("web02", network=True)
    migration.add("web03", vm_migrate_delete_source=True)
    migration.hosts["web04"] = {"vm_migrate_cleanup": "sometimes"}
    migration.add("web05")
    migration.there.connect().defineXML(source.XMLDesc().replace(source.UUIDString(), ""))
    ended = migration.run(vm_migrate_power_off=True, migrate_preflight="require")
    assert (ended.rc, ended.failed) == (2, {"web01", "web02", "web03", "web04"}), ended.output
    assert ended.states()["web05"] == "planned"
    assert {row["error"]["step"] for row in ended.report if "error" in row} == {"preflight"}
    said = {row["vm"]: "\n".join(row["findings"]) for row in ended.report}
    assert f"source: error: file://{nowhere}" in said["web01"]
    assert "destination: error: A VM named web01 exists already." in said["web01"]
    assert "destination: error: There is no network production for nic-0 of web02." in said["web02"]
    assert "destination: error: Nothing would show that web03 works before web03 is deleted." in said["web03"]
    assert "vm_migrate_cleanup" in ended.line("web04")
    assert source.isActive()
    assert (migration.jobs(), migration.target("web05")) == ([], None), "where all must be well"


def test_check_mode_shows_the_plan_and_does_nothing(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    ended = migration.run("--check", vm_migrate_power_off=True)
    assert (ended.rc, ended.changed) == (0, set()), ended.output
    assert "1 to migrate" in ended.output
    assert source.isActive()
    assert (migration.jobs(), migration.exports(), migration.target("web01")) == ([], [], None)


def test_each_step_that_fails_is_named_and_the_next_run_goes_on_from_there(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    port = free_port()
    wanted: dict[str, Any] = {
        "vm_migrate_run": "tonight",
        "vm_migrate_name": "web01-moved",
        "vm_migrate_power_off": True,
        "vm_migrate_delete_source": True,
        "vm_migrate_reachable": {"host": "127.0.0.1", "port": port, "timeout": 1},
    }

    def fails(step: str, words: str, **variables: Any) -> None:
        ended = migration.run(**{**wanted, **variables})
        assert (ended.rc, ended.states()) == (2, {"web01": "failed"}), ended.output
        if step != "preflight":
            assert f"The migration of web01 failed at the step {step}." in ended.output
            assert ("web01 stays shut down." in ended.output) is (step != "power_off")
        assert words in ended.row("web01")["error"]["message"], ended.output
        assert f"{step}: " in ended.line("web01"), "the summary"

    fails("power_off", "web01 did not power off within 1 s.", vm_migrate_power_off_timeout="1")
    assert source.isActive()
    assert migration.jobs() == []
    fails("export", "Connection refused", **CUT_POWER, vm_export_worker=UNREACHABLE)
    assert not source.isActive(), "this guest hears nothing, and its power was cut"
    fails("import", "bandwidth_limit", **WRONG_IMPORT)
    (export,) = migration.exports()
    assert migration.manifest()["name"] == "tonight"
    source.create()
    fails("preflight", "and runs again")
    assert source.isActive()
    source.destroy()
    fails("reach", f"web01-moved did not answer at 127.0.0.1:{port}.")
    target = migration.target("web01-moved")
    assert target is not None
    assert migration.exports() == [export], "the export is taken again"
    with socket.create_server(("127.0.0.1", port)):
        ended = migration.run(**wanted)
    assert (ended.rc, ended.states()) == (0, {"web01": "done"}), ended.output
    assert migration.source("web01") is None
    assert not migration.disk("web01").exists()
    again = migration.target("web01-moved")
    assert again is not None
    assert again.UUIDString() == target.UUIDString(), "it was made once"
    assert migration.jobs().count("import") == 2, "one made it, and the other found it there"
    assert migration.exports() == []
    migration.has_booted("web01-moved", "web01")


def test_a_guest_that_listens_and_lets_nobody_in_is_not_reached_and_its_source_stays(migration: Migration) -> None:
    hung = migration.folder / "ssh-that-hangs"
    hung.write_text("#!/bin/sh\nexec sleep 300\n")
    hung.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts, and never speaks SSH
        port = silent.getsockname()[1]
        ssh = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": port, "ansible_timeout": 1}
        migration.guests.update(mute=ssh, deaf={**ssh, "ansible_ssh_executable": str(hung)})
        for vm, guest in (("web01", "mute"), ("web02", "deaf")):
            answers = {"host": "127.0.0.1", "port": port, "inventory_host": guest, "timeout": 1}
            migration.add(vm, vm_migrate_reachable=answers)
        migration.add("web03", vm_migrate_reachable={"inventory_host": "gest"})
        migration.add("web04", vm_migrate_reachable={"timeout": 5})
        ended = migration.run(vm_migrate_delete_source=True)
    assert (ended.rc, set(ended.states().values())) == (2, {"failed"}), ended.output
    errors = {vm: row["error"] for vm in migration.hosts if (row := ended.row(vm))}
    assert [errors[vm]["step"] for vm in migration.hosts] == ["reach", "reach", "preflight", "preflight"]
    assert "Nobody can log in to web01 as the inventory host mute." in errors["web01"]["message"]
    assert "timed out during banner exchange" in errors["web01"]["message"], "what SSH said"
    assert "Nobody can log in to web02 as the inventory host deaf." in errors["web02"]["message"]
    assert errors["web03"]["message"] == "gest is to be logged in to, and is no host of the inventory."
    assert errors["web04"]["message"] == "Nothing would show that web04 works before web04 is deleted."
    assert all(migration.source(vm) is not None and migration.disk(vm).exists() for vm in migration.hosts)
    target = migration.target("web01")
    assert target is not None
    migration.hosts = {"web01": {"vm_migrate_reachable": {"inventory_host": GUEST, "timeout": 30}}}
    ended = migration.run("--become", vm_migrate_delete_source=True)
    assert (ended.rc, ended.states()) == (0, {"web01": "done"}), ended.output
    assert migration.source("web01") is None
    again = migration.target("web01")
    assert again is not None
    assert again.UUIDString() == target.UUIDString(), "it went on from there"


def test_a_source_that_is_not_what_was_migrated_is_never_deleted(migration: Migration) -> None:
    migration.add("web01")
    assert migration.run(vm_migrate_cleanup="never").rc == 0
    with migration.disk("web01").open("r+b") as file:
        file.seek(MIB // 2)
        file.write(b"written after the export")
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = {"host": "127.0.0.1", "port": server.getsockname()[1], "timeout": 5}
        for _again in range(2):
            ended = migration.run(vm_migrate_delete_source=True, vm_migrate_reachable=answers)
            assert ended.row("web01")["error"]["step"] == "delete_source", ended.output
            assert "It was written to after it was exported" in ended.row("web01")["error"]["message"]
    assert migration.source("web01") is not None
    assert migration.disk("web01").exists()


def test_the_staging_store_is_cleaned_up_as_the_policy_says(migration: Migration) -> None:
    signing: dict[str, Any] = {
        "vm_migrate_signing": {"key": pem(1).decode()},
        "vm_migrate_trusted_keys": [key(2).public_key],
    }
    migration.add("web01", vm_migrate_cleanup="always", **WRONG_IMPORT)
    migration.add("web02", vm_migrate_cleanup="never", **signing)
    failed = migration.run()
    assert {row["error"]["step"] for row in failed.report} == {"import"}, failed.output
    assert "which is not trusted" in failed.row("web02")["error"]["message"]
    del migration.hosts["web01"]["vm_import_bandwidth_limit"]
    migration.hosts["web02"]["vm_migrate_trusted_keys"] = [key(1).public_key]
    assert migration.exported_vms() == ["web02"], "the chain of steps above shows what on_success does"
    migration.hosts["web01"]["vm_migrate_power_on"] = False
    done = migration.run()
    assert set(done.states().values()) == {"migrated"}, done.output
    assert migration.exported_vms() == ["web02"]
    running = {vm: bool(domain.isActive()) for vm in done.states() if (domain := migration.target(vm)) is not None}
    assert running == {"web01": False, "web02": True}
    (manifest,) = migration.staging.glob("*/*/manifest.json")
    manifest.with_name("pinned").write_text("audit")
    migration.hosts["web02"]["vm_migrate_cleanup"] = "on_success"
    stays = migration.run()
    assert stays.states() == {"web01": "done", "web02": "failed"}, stays.output
    assert stays.row("web02")["error"]["step"] == "cleanup"
    assert "stays. It is pinned: audit" in stays.row("web02")["error"]["message"]


def test_one_that_cannot_be_migrated_keeps_no_other_from_it(migration: Migration) -> None:
    migration.add("web01")
    migration.add("web02", network=True)
    migration.add("web03", vm_migrate_destination_worker=UNREACHABLE)
    migration.add("web04", memory_mib=1 << 30)
    behind = {"hosts": "vms", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "goes on"}}]}
    whole = migration.folder / "whole.json"
    whole.write_text(json.dumps([{"import_playbook": migration_rig.PLAYBOOK}, behind]))
    ended = migration.run(playbook=whole)
    assert (ended.rc, ended.failed) == (2, {"web02", "web03", "web04"}), ended.output
    assert ended.states()["web01"] == "migrated"
    steps = {vm: ended.row(vm)["error"]["step"] for vm in ended.failed}
    assert steps == {"web02": "preflight", "web03": "preflight", "web04": "power_on"}
    assert "Connection refused" in ended.line("web03")
    assert ended.output.count('"msg": "goes on"') == 1, "a play behind the playbook goes on without those that failed"
    migration.has_booted("web01", "web01")


def test_no_vm_at_all_is_a_mistake(migration: Migration) -> None:
    migration.add("web01")
    ended = migration.run(migrate_hosts="wbe")
    assert ended.rc == 2
    assert 'No host fits migrate_hosts, which is "wbe".' in ended.output.replace('\\"', '"')
