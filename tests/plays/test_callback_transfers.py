# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells of its transfers at the end. Real exports of machines that are off."""

from __future__ import annotations

import json
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rigs.libvirt import LibvirtRig

from .playing import Play, Stage

METRICS_AND_AUDIT = Path(__file__).resolve().parents[2] / "docs" / "metrics_and_audit.md"
MIB = 1 << 20
SECRET = "correct-horse-battery"
GHOST_STORE = {"endpoint_url": "http://127.0.0.1:1", "access_key": "nobody", "secret_key": SECRET, "region": "x"}


@dataclass(frozen=True)
class Reports:
    stage: Stage
    play: Play

    @property
    def metrics_file(self) -> Path:
        return self.stage.folder / "transfers.prom"

    @property
    def audit_log(self) -> Path:
        return self.stage.folder / "audit.jsonl"

    @property
    def table(self) -> list[str]:
        """Without the titles."""
        (found,) = self.play.output.split("\nTRANSFERS: ")[1:]
        return [line.rstrip() for line in found.splitlines()[2:] if line.strip()]

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]

    def samples(self, vm: str) -> dict[str, float]:
        """By the metric's short name; all of them have the same labels."""
        families = list(text_string_to_metric_families(self.metrics_file.read_text()))
        labels = {"host": "kvm1", "vm": vm, "kind": "export"}
        found = [one for family in families for one in family.samples if one.labels == labels]
        return {one.name.removeprefix("vmferry_transfer_"): one.value for one in found}


def run(stage: Stage, *tasks: Mapping[str, Any], code: int = 0) -> Reports:
    environment = {
        "ANSIBLE_CALLBACKS_ENABLED": "vmferry.migrate.transfers",
        "VMFERRY_TRANSFERS_METRICS_FILE": str(stage.folder / "transfers.prom"),
        "VMFERRY_TRANSFERS_AUDIT_LOG": str(stage.folder / "audit.jsonl"),
    }
    play = stage.play(*tasks, environment=environment, name="Nightly")
    return Reports(stage, play.wait(code))


@pytest.fixture(scope="module")
def scene(rig: LibvirtRig, vms: tuple[str, ...]) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="vmferry-play-", dir="/tmp") as made:
        for name in ("scratch", "store"):
            (Path(made) / name).mkdir()
        stage = Stage(rig, Path(made), vms[0], vms)
        yield stage
        stage.end()


@pytest.fixture(scope="module")
def night(scene: Stage) -> Reports:
    """One export that succeeds, one that fails, two in a loop, the second of which is there already, two by async."""
    ghost = {"vm": "ghost", "url": "s3://nowhere/vms", "storage": GHOST_STORE}
    fast = {"verify": "none", "progress": "none"}
    return run(
        scene,
        scene.export({"name": "One"}, **fast),
        scene.export({"name": "None", "ignore_errors": True}, **fast, **ghost),
        scene.export({"name": "Two", "loop": ["web02", "web01"]}, **fast, vm="{{ item }}", max_age="1h"),
        scene.export({"name": "Waited for", "async": 60, "poll": 1}, **fast, vm="web03"),
        scene.export({"name": "Asked for later", "async": 60, "poll": 0}, **fast, vm="web04"),
        {
            "name": "Ask",
            "ansible.builtin.async_status": {"jid": "{{ done.ansible_job_id }}"},
            "register": "asked",
            "until": "asked.finished",
            "retries": 100,
            "delay": 1,
        },
    )


def test_the_table_tells_of_all_transfers(night: Reports) -> None:
    rows = [line.split() for line in night.table]
    ready, unchanged = ["kvm1", "export", "ready", "full"], ["kvm1", "export", "unchanged", "full"]
    assert "TRANSFERS: 4 ready, 1 failed, 1 unchanged" in night.play.output
    told = [(row[0], *row[2:5], row[1]) for row in rows if row[0] == "kvm1" and row[3] != "failed"]
    expected = [(*ready, "web01"), (*ready, "web02"), (*unchanged, "web01"), (*ready, "web03"), (*ready, "web04")]
    assert told == expected
    assert rows[0][5:7] == ["21.0", "MB"]
    assert rows[0][-1].startswith(f"file://{night.stage.store}/web01-")


def test_the_table_tells_why_a_transfer_failed_and_what_to_do(night: Reports) -> None:
    at = next(number for number, line in enumerate(night.table) if "failed" in line)
    error = next(result["error"] for result in night.play.results() if "error" in result)
    assert "ghost" in night.table[at]
    assert "not_found: " in night.table[at]
    assert error["hint"]
    assert night.table[at + 1].strip() == error["hint"]
    sample = METRICS_AND_AUDIT.read_text()
    said = night.table[at].partition("not_found: ")[2].replace("ghost", "mail")
    assert said.replace(night.stage.rig.uri, "qemu:///system") in sample
    assert f" {error['hint']}\n" in sample


def test_the_audit_log_has_a_line_for_each_transfer(night: Reports) -> None:
    assert stat.S_IMODE(night.audit_log.stat().st_mode) == 0o600
    told = [(entry["task"], entry["vm"], entry["outcome"]) for entry in night.entries]
    assert told == [
        ("One", "web01", "ready"),
        ("None", "ghost", "failed"),
        ("Two", "web02", "ready"),
        ("Two", "web01", "unchanged"),
        ("Waited for", "web03", "ready"),
        ("Asked for later", "web04", "ready"),
    ]
    first, second = night.entries[:2]
    assert (first["play"], first["host"], first["check"], first["error"]) == ("Nightly", "kvm1", False, None)
    assert first["bytes_read"] == 20 * MIB
    assert first["bytes_stored"] > 20 * MIB
    assert (first["job"], first["url"].split("/")[-1]) == (night.stage.records()[0]["id"], first["export"])
    assert second["error"]["kind"] == "not_found"
    assert "ghost" in second["error"]["message"]


def test_a_secret_of_the_store_is_in_no_report(night: Reports) -> None:
    for text in (night.audit_log.read_text(), night.metrics_file.read_text(), night.play.output):
        assert "ghost" in text
        assert SECRET not in text


def test_metrics_tell_of_each_vm(night: Reports) -> None:
    assert stat.S_IMODE(night.metrics_file.stat().st_mode) == 0o644
    web02, ghost = night.samples("web02"), night.samples("ghost")
    assert web02["success"] == 1
    assert web02["bytes_read"] == 20 * MIB
    assert time.time() - 300 < web02["export_taken_timestamp_seconds"] < web02["last_success_timestamp_seconds"]
    assert ghost["success"] == 0
    assert "last_success_timestamp_seconds" not in ghost


def test_a_run_that_fails_keeps_when_the_last_success_was(night: Reports) -> None:
    before, other = night.samples("web01"), night.samples("web02")
    blocked = night.stage.folder / "blocked"
    blocked.touch()
    failing = run(night.stage, night.stage.export(url=f"file://{blocked}/store"), code=2)
    after = failing.samples("web01")
    assert (before["success"], after["success"]) == (1, 0)
    assert after["last_run_timestamp_seconds"] > before["last_run_timestamp_seconds"]
    for name in ("last_success_timestamp_seconds", "export_taken_timestamp_seconds"):
        assert after[name] == before[name]
    assert failing.samples("web02") == other


def test_a_transfer_under_async_that_fails_is_told_with_its_vm(scene: Stage) -> None:
    (scene.folder / "a file").touch()
    impossible = f"file://{scene.folder}/a file/store"
    waiting = {"name": "Under async", "async": 60, "poll": 1, "ignore_errors": True}
    failing = run(scene, scene.export(waiting, url=impossible, vm="web04"))
    entry = failing.entries[-1]
    assert (entry["task"], entry["vm"], entry["outcome"]) == ("Under async", "web04", "failed")
    assert entry["url"] == impossible
    assert failing.samples("web04")["success"] == 0


def test_a_transfer_under_async_that_is_cancelled_is_told_with_its_vm(scene: Stage) -> None:
    job, patient = "0123456789abcdef", {"retries": 100, "delay": 1}
    cancelled = run(
        scene,
        scene.export(
            {"name": "Begun", "async": 300, "poll": 0}, bandwidth_limit="256KiB/s", vm="web03", job_id=job, mode="full"
        ),
        {
            "name": "Wait",
            "vmferry.migrate.job_info": {"job": job, "state_dir": str(scene.state)},
            "register": "begun",
            "until": "begun.jobs | length > 0 and begun.jobs[0].bytes_read > 0",
            **patient,
        },
        {"name": "Cancel", "vmferry.migrate.job": {"job": job, "state": "cancelled", "state_dir": str(scene.state)}},
        {
            "name": "Ask",
            "ansible.builtin.async_status": {"jid": "{{ done.ansible_job_id }}"},
            "register": "asked",
            "until": "asked is finished",
            "ignore_errors": True,
            **patient,
        },
    )
    entry = cancelled.entries[-1]
    assert (entry["task"], entry["vm"], entry["outcome"]) == ("Begun", "web03", "cancelled")
    assert (entry["job"], entry["error"]["kind"]) == (job, "cancelled")
    assert cancelled.samples("web03")["success"] == 0
