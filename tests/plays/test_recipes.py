# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays of examples/ that put several things together, run as their first lines say."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.s3_server import S3Server

from . import migration_rig
from .fleet_rig import Ended, Fleet, off_vms
from .migration_rig import GUEST, Migration
from .playing import ROOT, Play, Stage
from .test_live_credentials import BUCKET, s3_server

__all__ = ["s3_server"]  # a fixture
here, there, migration = migration_rig.here, migration_rig.there, migration_rig.migration  # fixtures
EXAMPLES = ROOT / "examples"
EVERY_DAY, NEVER = list(range(1, 8)), list[int]()
KEEP_THE_NEWEST = {"max_age": "1s", "keep_daily": 0, "keep_weekly": 0, "keep_monthly": 0}
MIB = 1 << 20


def metrics(file: Path) -> dict[str, float]:
    families = text_string_to_metric_families(file.read_text())
    return {sample.name.removeprefix("vmferry_transfer_"): sample.value for one in families for sample in one.samples}


def test_a_complete_backup_takes_what_changed_proves_it_and_deletes_nothing_that_is_protected(
    stage: Stage, s3_server: S3Server
) -> None:
    report = stage.folder / "backup.prom"
    environment = {
        "ANSIBLE_CALLBACKS_ENABLED": "vmferry.migrate.transfers",
        "VMFERRY_TRANSFERS_METRICS_FILE": str(report),
        "VMFERRY_STATE_DIR": str(stage.state),
        "LIBVIRT_DEFAULT_URI": stage.rig.uri,
    }

    def back_up(*arguments: str, **variables: Any) -> Play:
        given = {"vm": "db01", "url": f"s3://{BUCKET}/vms", "s3": s3_server.settings, "limit": "64MiB/s", **variables}
        whole = ["-e", json.dumps(given), *arguments]
        playbook = EXAMPLES / "complete_backup.yml"
        return stage.play(playbook=playbook, arguments=whole, environment=environment).wait()

    with off_vms(stage.rig, ["db01"], mib=4):
        looked = back_up("--check")
        assert "db01: full, since " in looked.output
        assert "to send at most" in looked.output
        assert "0 exports to delete" in looked.output
        assert s3_server.client().list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
        first = back_up(read_all_on=EVERY_DAY)
        assert "full, powered_off, made; all of it was read back; 0 exports deleted" in first.output
        assert metrics(report)["success"] == 1
        with (stage.rig.directory / "db01.raw").open("r+b") as disk:
            disk.seek(MIB)
            disk.write(random.Random(1).randbytes(MIB // 4))
        second = back_up(max_count=1, read_all_on=NEVER)
        assert "incremental, powered_off, made; what is new was read back; 0 exports deleted" in second.output
        assert metrics(report)["bytes_stored"] < MIB
        third = back_up(read_all_on=EVERY_DAY)
        assert (
            "incremental, powered_off, equal to the VM, which did not change; all of it was read back" in third.output
        )
        assert list((stage.state / "bandwidth").iterdir())


def test_a_safe_migration_keeps_the_source_until_it_is_asked_to_delete_it(migration: Migration) -> None:
    source = migration.add("web01", runs=True)
    libvirts = {
        f"vm_migrate_{end}": {"libvirt": {"uri": rig.uri, "scratch_dir": str(migration.folder / "scratch")}}
        for end, rig in (("source", migration.here), ("destination", migration.there))
    }
    deaf_guest = {"vm_migrate_power_off_timeout": "1", "vm_migrate_power_off_force": True}

    def migrate(**variables: Any) -> Ended:
        given = {
            "vm": "web01",
            "from": "kvm01",
            "to": "kvm02",
            "staging": f"file://{migration.staging}",
            "where": str(migration.images),
            "limit": "64MiB/s",
            "vm_migrate_state_dir": str(migration.folder / "state"),
        }
        everything = {**given, **libvirts, **deaf_guest, **variables}
        return migration.run(playbook=EXAMPLES / "safe_migration.yml", **everything)

    with socket.create_server(("127.0.0.1", 0)) as server:
        answers = {"answers_at": "127.0.0.1", "answers_on": server.getsockname()[1], "answers_within": 5}
        first = migrate(**answers)
        assert first.rc == 0, first.output
        assert not source.isActive()
        assert len(migration.exports()) == 1, "with which the source can be compared"
        assert list((migration.folder / "state" / "bandwidth").iterdir())
        target = migration.target("web01")
        assert target is not None
        second = migrate(**answers, delete_source=True, log_in_to=GUEST)
        assert second.rc == 0, second.output
        assert f"kvm01 -> {GUEST}" in second.output
    assert migration.source("web01") is None
    assert not migration.disk("web01").exists()
    assert migration.exports() == []
    again = migration.target("web01")
    assert again is not None
    assert again.UUIDString() == target.UUIDString()
    migration.has_booted("web01", "web01")


@contextmanager
def bootable_vms(rig: LibvirtRig, names: Sequence[str]) -> Iterator[None]:
    made = []
    for name in names:
        disk = guests.mbr_disk(rig.directory / f"{name}.raw", name)
        machine = Machine(name, disks=(Disk(disk, "raw"),), memory_mib=32)
        made.append(rig.connect().defineXML(domain_xml(machine, rig.directory)))
    try:
        yield
    finally:
        for domain in made:
            remove_domain(domain)
        for name in names:
            (rig.directory / f"{name}.raw").unlink()


def stored(fleet: Fleet, vm: str) -> list[Path]:
    """The folders of its exports, oldest first."""
    return sorted(path.parent for path in fleet.folder.glob(f"*/{vm}-*/*/manifest.json"))


def passed(export: Path) -> set[str]:
    """The levels of verification."""
    return {one["level"] for one in json.loads((export / "verified.json").read_text())["passed"]}


def test_a_daily_backup_goes_on_without_the_vms_that_fail_and_deletes_nothing_of_these(
    fleet: Fleet, rig: LibvirtRig
) -> None:
    fleet.add_hosts(["app01", "app02"], "kvm01")
    fleet.add_hosts(["app03"], "kvm01", export_fleet_url=f"file://{fleet.folder}/other")  # with a retention of its own

    def back_up(**variables: Any) -> Ended:
        given = {"where": str(fleet.folder), "boots_with": {"serial": "BOOT-OK app0[13] END"}, **variables}
        return fleet.run(playbook=EXAMPLES / "daily_backup.yml", **given)

    with bootable_vms(rig, ["app01", "app03"]):
        first = back_up(boot_on=EVERY_DAY)
        assert (first.rc, first.failed) == (2, {"app02"}), first.output
        assert first.states() == {"app01": "exported", "app02": "failed", "app03": "exported"}
        (sound,), (damaged,) = stored(fleet, "app01"), stored(fleet, "app03")
        assert passed(sound) == passed(damaged) == {"boot"}
        with (rig.directory / "app01.raw").open("r+b") as disk:
            disk.seek(MIB // 2)
            disk.write(b"news")
        (damaged / "verified.json").unlink()
        image = damaged / "disk-0.qcow2"
        image.write_bytes(image.read_bytes().replace(b"BOOT-OK", b"BOOT-KO"))  # as long as before
        tonight = {"export_fleet_max_age": "1s", "keep": KEEP_THE_NEWEST}
        second = back_up(**tonight, boot_on=NEVER, read_on=EVERY_DAY)
        assert (second.rc, second.failed) == (2, {"app02", "app03"}), second.output
        assert stored(fleet, "app01")[0] == sound, "the new one stands on it"
        assert passed(stored(fleet, "app01")[1]) == {"content"}
        third = back_up(**tonight, export_fleet_mode="full", boot_on=NEVER, read_on=NEVER)
    assert third.failed == {"app02"}, third.output
    assert [len(stored(fleet, vm)) for vm in ("app01", "app03")] == [1, 1]
