# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet playbook under the real `ansible-runner`: what it shows, and what becomes of the jobs when it is ended."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rigs.libvirt import LibvirtRig
from rigs.seaweedfs import seaweedfs

from .fleet_rig import Fleet, off_vms
from .runner_rig import Runners

BUCKET = "exports"
SILENCE = 8.0  # seconds, as controller_timeout: more than a busy machine takes between two polls
SLOWLY = {"export_fleet_bandwidth_limit": "1MiB/s", "export_fleet_verify": "none"}


@pytest.fixture
def runners(fleet: Fleet) -> Iterator[Runners]:
    fleet.variables["vm_export_controller_timeout"] = f"{SILENCE:.0f}s"
    made = Runners(fleet)
    yield made
    made.end()


def test_events_have_the_lines_the_stats_the_failed_vms_and_no_artefact_the_credentials(
    fleet: Fleet, rig: LibvirtRig, runners: Runners
) -> None:
    fleet.add_hosts(["app01", "app02", "app03"], "kvm01", export_fleet_bandwidth_limit="2MiB/s")
    with off_vms(rig, ["app01", "app03"], mib=4), seaweedfs() as server:
        server.client().create_bucket(Bucket=BUCKET)
        run = runners.start(
            injected={
                "AWS_ACCESS_KEY_ID": server.access_key,
                "AWS_SECRET_ACCESS_KEY": server.secret_key,
                "AWS_ENDPOINT_URL_S3": server.endpoint_url,
                "AWS_REGION": "us-east-1",
                "ANSIBLE_CALLBACKS_ENABLED": "vmferry.migrate.transfers",
            },
            verbosity=3,
            export_fleet_url=f"s3://{BUCKET}/vms",
        )
        assert run.wait() == "failed"
        os.kill(server.pid, signal.SIGKILL)  # nothing of it is kept, and its own way out takes half a minute
    assert run.stats("failures") == {"app02"}
    assert run.stats("dark") == set()
    assert run.stats("changed") == {"app01", "app03"}
    for host in ("app01", "app03"):
        assert [line for line in run.lines(host) if "exporting disk 1/1 · " in line]
        assert "ready in" in run.lines(host)[-1]
    assert run.lines("app02") == []
    assert re.search(r"^TRANSFERS: .*\b2 ready\b", (run.artifacts / "stdout").read_text(), re.MULTILINE)
    own = [run.folder / "env/envvars", run.artifacts / "command"]  # in which ansible-runner keeps all it was given
    assert holders(fleet.folder, server.secret_key) == sorted(own)


def test_a_cancelled_run_stops_its_jobs_and_another_does_the_rest(
    fleet: Fleet, rig: LibvirtRig, runners: Runners
) -> None:
    names = ["app01", "app02", "app03"]
    fleet.add_hosts(names, "kvm01")
    for host in ("app02", "app03"):
        fleet.hosts[host].update(SLOWLY)
    with off_vms(rig, names, mib=16):
        run = runners.start(export_fleet_name="nightly")
        fleet.wait_for(lambda: moving(fleet) == ["app02", "app03"] and fleet.exports() == ["app01"])
        processes = run.descendants()
        assert run.cancel() == "canceled"
        cancelled = time.time()
        fleet.wait_for(lambda: all(one["finished"] for one in fleet.records()))
        stopped = reasons(fleet)
        assert set(stopped) == {"app02", "app03"}
        for record in fleet.records():  # the workers of ansible-playbook live on to see its end
            assert record["finished"] < cancelled + SILENCE
        assert {
            reason for reason in stopped.values() if "the end of ansible-playbook asked for it" not in reason
        } == set()
        fleet.wait_for(lambda: not any(map(run.has, processes)))
        assert fleet.exports() == ["app01"]

        again = runners.start(export_fleet_name="nightly", export_fleet_bandwidth_limit="0", vm_export_busy_delay=1)
        assert again.wait() == "successful"
    assert again.stats("ok") >= set(names)
    assert again.stats("changed") == {"app02", "app03"}
    assert again.stats("failures") == set()
    assert "ready in" in again.lines("app02")[-1]
    assert_only_exports_are_left(fleet, names)


def test_killed_with_all_its_processes_it_loses_its_jobs_and_killed_alone_none(
    fleet: Fleet, rig: LibvirtRig, runners: Runners
) -> None:
    """Alone: `ansible-playbook`, which is not of its process group, lives on and goes on to look at its jobs."""
    names = ["app01", "app02"]
    fleet.add_hosts(names, "kvm01", **SLOWLY)
    with off_vms(rig, names, mib=20):
        whole, alone = (runners.start(hosts=[name], export_fleet_name="nightly") for name in names)
        fleet.wait_for(lambda: moving(fleet) == names)
        playbook, *_workers = alone.descendants()
        whole.kill_all()
        alone.kill_alone()
        killed = time.time()
        fleet.wait_for(lambda: all(one["finished"] for one in fleet.records()))
        assert alone.has(playbook)
        lost, kept = sorted(fleet.records(), key=lambda record: str(record["vm"]))
        assert (lost["phase"], kept["phase"]) == ("cancelled", "ready")
        assert "its controller has not been heard of for 8 s" in lost["error"]["message"]
        assert lost["finished"] < killed + 1.5 * SILENCE
        assert kept["finished"] > killed + SILENCE, "somebody renewed its lease"
        assert fleet.exports() == ["app02"]

        again = runners.start(export_fleet_name="nightly", export_fleet_bandwidth_limit="0")
        assert again.wait() == "successful"
    assert again.stats("changed") == {"app01"}
    assert_only_exports_are_left(fleet, names)


def moving(fleet: Fleet) -> list[str]:
    return sorted(one["vm"] for one in fleet.records() if one["phase"] == "exporting" and one.get("bytes_sent"))


def reasons(fleet: Fleet) -> dict[str, str]:
    """Of the jobs that were cancelled."""
    return {one["vm"]: one["error"]["message"] for one in fleet.records() if one["phase"] == "cancelled"}


def assert_only_exports_are_left(fleet: Fleet, exports: Sequence[str]) -> None:
    """In the store; and nothing in the scratch folder."""
    assert fleet.exports() == exports
    files = [path for path in (fleet.folder / "store").rglob("*") if path.is_file()]
    committed = [path.parent for path in files if path.name == "manifest.json"]
    assert [path for path in files if not any(path.is_relative_to(folder) for folder in committed)] == []
    assert list((fleet.folder / "scratch").iterdir()) == []


def holders(folder: Path, secret: str) -> list[Path]:
    """Files that hold it."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes())
