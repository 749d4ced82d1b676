# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asked again, checked only, looked at: what changes and what does not."""

from __future__ import annotations

import json
import re
import stat
import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.manifest import (
    MANIFEST,
    Manifest,
    read_manifest,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.list_exports import list_exports
from rigs.domain import Guest, remove_domain

from .exports import MIB, SLOW, Bench


def manifest_of(bench: Bench) -> Manifest:
    """Of the only export."""
    (key,) = (key for key in bench.keys() if key.endswith(MANIFEST))  # noqa: SIM118 - no dictionary
    return read_manifest(bench.read(key), key)


def test_export_of_that_name_is_not_made_twice(bench: Bench, off: str) -> None:
    first = bench.export(off, name="nightly")
    again = bench.export(off, name="nightly")
    assert (first["changed"], again["changed"]) == (True, False)
    assert again["export"]["id"] == first["export"]["id"]
    assert again["diff"]["before"] == again["diff"]["after"]
    bench.assert_nothing_left(off, runs=False)


def test_export_of_that_name_with_other_parameters_is_a_conflict(bench: Bench, linux: Guest) -> None:
    bench.export("linux", name="nightly", disks=("vdb",))
    keys = bench.keys()
    bench.refused_export("linux", "conflict", "nightly", name="nightly", disks=("vdc",))
    bench.refused_export("linux", "conflict", "nightly", name="nightly", disks=("vdb",), format="raw")
    assert bench.keys() == keys
    assert not manifest_of(bench).all_disks, "retention must not think that the VM has no others"
    bench.assert_nothing_left("linux")


def test_young_export_is_enough(bench: Bench, off: str) -> None:
    first = bench.export(off)
    assert manifest_of(bench).all_disks
    assert not bench.export(off, max_age=3600.0)["changed"]
    time.sleep(1.1)
    second = bench.export(off, max_age=1.0, mode="full")
    assert second["changed"]
    assert second["diff"]["before"]["exports"] == [first["export"]["id"]]
    assert second["diff"]["after"]["exports"] == [first["export"]["id"], second["export"]["id"]]


def test_what_is_sent_is_not_more_than_check_mode_said(bench: Bench, off: str) -> None:
    plan = bench.export(off, check_mode=True, mode="full")["plan"]
    folder = bench.stored(bench.export(off, mode="full")).parent
    sent = sum(path.stat().st_size for path in folder.glob("disk-*"))
    assert plan["bytes_to_read"] < sent <= plan["bytes_to_send"] < plan["bytes_to_read"] + MIB
    assert plan["bytes_saved"] == plan["disks"][0]["size"] - plan["bytes_to_send"]


def test_check_mode_tells_the_plan_and_writes_nothing(bench: Bench, small: Guest) -> None:
    before = sorted(bench.folder.rglob("*"))
    result = bench.export("small", check_mode=True)
    assert result["changed"]
    assert [disk["name"] for disk in result["plan"]["disks"]] == ["vda"]
    assert 20 * MIB <= result["plan"]["bytes_to_read"] <= 24 * MIB
    assert len(result["diff"]["after"]["exports"]) == len(result["diff"]["before"]["exports"]) + 1
    assert sorted(bench.folder.rglob("*")) == before
    bench.assert_nothing_left("small")


def test_check_mode_writes_nothing_to_s3(s3_bench: Bench, small: Guest) -> None:
    assert s3_bench.export("small", check_mode=True)["changed"]
    assert s3_bench.keys() == []
    assert s3_bench.uploads() == []
    s3_bench.assert_nothing_left("small")


def test_exports_are_listed_with_what_they_hold(bench: Bench, off: str) -> None:
    made = bench.export(off, tags=("a", "b"), purpose="drill")["export"]
    listed = list_exports(bench.store, off, "", ["a"], "drill", True)
    assert [export["id"] for export in listed["exports"]] == [made["id"]]
    assert listed["statistics"]["bytes_stored"] == made["disks"][0]["bytes_stored"]
    assert list_exports(bench.store, off, "", ["c"], "", False)["exports"] == []


def test_record_tells_how_far_a_job_is(bench: Bench, small: Guest) -> None:
    seen: list[dict[str, Any]] = []
    arguments = bench.module_arguments(vm="small", bandwidth_limit="6MiB/s", verify="content")
    with bench.running_module("vm_export", arguments) as exporter:
        exporter.wait_for_bytes()
        while exporter.process.poll() is None:
            seen += bench.jobs(vm="small")
            time.sleep(0.1)
        result = exporter.result()
    assert not result.get("failed"), result
    (job,) = bench.jobs(job=exporter.job)
    assert bench.jobs(state="ready") == [job]
    assert bench.jobs(vm="another") == bench.jobs(state="running") == []
    running = [one for one in seen if not one["finished"]]
    percents = [one["percent"] for one in running if one["phase"] == "exporting"]
    assert percents == sorted(percents)
    assert 0 < percents[-1] <= 100
    assert max(one["percent"] for one in seen) <= 100
    assert {one["state"] for one in running} == {"running"}
    assert all(one["alive"] for one in running)
    assert all(0 <= time.time() - one["heartbeat"] < 60 for one in seen)
    beats = [one["heartbeat"] for one in running]
    assert max(b - a for a, b in zip(beats, beats[1:], strict=False)) < 3.0
    assert (job["phase"], job["percent"], job["finished"], job["error"]) == ("ready", 100, True, None)
    assert (job["kind"], job["vm"], job["retries"]) == ("export", "small", 0)
    under_way = [one for one in running if one["phase"] == "exporting" and one["percent"] > 0]
    assert {(one["disk"], one["disks"]) for one in under_way} == {(1, 1)}
    assert {20 * MIB <= one["bytes_total"] <= 24 * MIB for one in under_way} == {True}
    assert job["bytes_read"] >= 20 * MIB
    assert result["job"]["record"] == str(bench.state / "jobs" / exporter.job / "record.json")


def test_what_is_written_is_for_its_owner_alone(bench: Bench, small: Guest) -> None:
    bench.export("small")
    found = [*(bench.folder / "store").rglob("*"), *bench.state.rglob("*"), bench.state]
    assert len(found) > 8
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in found}
    wanted = {str(path): 0o700 if path.is_dir() else 0o600 for path in found}
    assert modes == wanted


def test_what_an_export_needs_meanwhile_is_for_its_owner_alone(bench: Bench, small: Guest) -> None:
    asked = bench.module_arguments(vm="small", bandwidth_limit=SLOW, on_failure="undo")
    with bench.running_module("vm_export", asked) as exporter:
        exporter.wait_for_bytes()
        (folder,) = bench.scratch.iterdir()
        modes = {path: path.lstat().st_mode for path in [folder, *folder.rglob("*")]}
        exporter.process.terminate()
        assert exporter.result()["error"]["kind"] == "cancelled"
    assert {"nbd", "vda.scratch", "watchdog"} <= {path.name for path in modes}
    assert stat.S_IMODE(modes.pop(folder)) == 0o711  # QEMU, another user, goes through it to its own
    closed = {path for path, mode in modes.items() if stat.S_ISDIR(mode) and stat.S_IMODE(mode) == 0o700}
    seen = {path.name: oct(mode) for path, mode in modes.items() if mode & 0o077 and path.parent not in closed}
    assert seen == {}
    assert {path.name: oct(mode) for path, mode in modes.items() if stat.S_ISREG(mode) and mode & 0o077} == {}
    bench.assert_nothing_left("small")


def test_disks_of_an_import_are_for_their_owner_alone(bench: Bench, off: str) -> None:
    bench.export(off)
    bench.import_("private")
    try:
        modes = {stat.S_IMODE(path.stat().st_mode) for path in bench.images.iterdir()}
        assert modes == {0o600}
    finally:
        remove_domain(bench.rig.connect().lookupByName("private"))


def test_secrets_show_up_nowhere(s3_bench: Bench, small: Guest) -> None:
    secret = s3_bench.store.settings["secret_key"]
    seen: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.01):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    command = process.read_bytes()
                except OSError:
                    continue
                if secret.encode() in command:
                    seen.append(command.decode())

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    arguments = s3_bench.module_arguments(vm="small", _ansible_verbosity=3)
    with s3_bench.running_module("vm_export", arguments) as exporter:
        result = exporter.result()
        said = exporter.output + exporter.errors
    broken = s3_bench.module_arguments(vm="small", _ansible_verbosity=3)
    broken["storage"] = {**broken["storage"], "secret_key": f"{secret}+/%", "session_token": f"token-{secret}"}
    with s3_bench.running_module("vm_export", broken) as refused:
        assert refused.result()["failed"]
        said += refused.output + refused.errors
    over.set()
    looking.join()
    assert not result.get("failed"), result
    assert not seen
    assert secret not in said
    written = [path for path in s3_bench.folder.rglob("*") if path.is_file()]
    assert any(path.name == "record.json" for path in written)
    for path in written:
        assert secret.encode() not in path.read_bytes(), path
    for key in list(s3_bench.keys()):  # a method of the bench
        if re.search(r"\.(json|xml)$", key):
            target = s3_bench.folder / "object"
            s3_bench.download(f"{s3_bench.store.url.rsplit('/', 1)[1]}/{key}", target)
            assert secret.encode() not in target.read_bytes(), key
            if key.endswith(".json"):
                json.loads(target.read_text())
    s3_bench.assert_nothing_left("small")
