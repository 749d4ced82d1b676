# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Group `fleet`: what watching costs the control node, how soon a job begins, and how well many share a hypervisor."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from plays.playing import ROOT, Play, Stage

from benchmarks.measure import Figure
from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.record_hammer import hammer
from rigs.sshd import sshd

MIB = 1 << 20
WATCHED = 8  # hosts at once, each with its VM
SHORT, LONG = 5.0, 45.0  # seconds
FLEET, FLEET_DISK, MAX_JOBS = 50, 64 * MIB, 4


def measure(folder: Path, runs: int) -> Iterator[Figure]:
    with LibvirtRig() as rig:
        with machines(rig, [f"watched{number}" for number in range(WATCHED)], 24 * MIB, 20 * MIB) as names:
            stage = staged(rig, folder / "watched", names)
            yield from watching(stage, max(2, runs // 2))
            yield starting(stage, runs)
        with machines(rig, [f"small{number:02}" for number in range(FLEET)], FLEET_DISK, FLEET_DISK) as names:
            yield from sharing(staged(rig, folder / "fleet", names))
            yield from sharing(staged(rig, folder / "limited", names), "16MiB/s")
    yield from reading(folder / "record")


@contextmanager
def machines(rig: LibvirtRig, names: Sequence[str], size: int, data: int) -> Iterator[tuple[str, ...]]:
    """Off, and all of the same disk, which nothing writes."""
    raw, disk = rig.directory / f"{names[0]}.raw", rig.directory / f"{names[0]}.qcow2"
    with raw.open("wb") as file:
        file.write(random.Random(names[0]).randbytes(data))
        file.truncate(size)
    guests.place(raw, disk, "qcow2")
    raw.unlink()
    domains = [rig.connect().defineXML(domain_xml(Machine(name, disks=(Disk(disk),)), rig.directory)) for name in names]
    try:
        yield tuple(names)
    finally:
        for domain in domains:
            remove_domain(domain)
        disk.unlink(missing_ok=True)


def staged(rig: LibvirtRig, folder: Path, names: tuple[str, ...]) -> Stage:
    for name in ("scratch", "store"):
        (folder / name).mkdir(parents=True)
    return Stage(rig, folder, names[0], names)


def watching(stage: Stage, runs: int) -> Iterator[Figure]:
    """The difference between a long and a short run is watching alone: what starting and ending cost is in both."""
    with sshd() as server:
        for name, variables in (("local", {}), ("SSH", server.variables)):
            waits = [difference(stage, variables, waiting) for _turn in range(runs)]
            costs = [difference(stage, variables, exporting) for _turn in range(runs)]
            what = f"{name}: control node's CPU-seconds for each host and minute of"
            yield Figure(f"{what} progress", statistics.median(costs), 0.5, "lower", "", costs)
            yield Figure(f"{what} a command that sleeps", statistics.median(waits), None, "lower", "", waits)


def exporting(stage: Stage, seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bandwidth_limit": f"{int(20 * MIB / seconds)}B/s",
        "verify": "none",
        "max_jobs": WATCHED,
    }
    return stage.export(vm="{{ vm }}", progress_interval="5s", **options)


def waiting(stage: Stage, seconds: float) -> dict[str, Any]:
    """What Ansible itself needs for a task that lasts."""
    return {"ansible.builtin.command": {"cmd": f"sleep {seconds}"}}


def difference(stage: Stage, variables: Mapping[str, Any], task: Callable[[Stage, float], Mapping[str, Any]]) -> float:
    (short, short_cpu), (long, long_cpu) = (played(stage, variables, task(stage, wanted)) for wanted in (SHORT, LONG))
    return (long_cpu - short_cpu) / (WATCHED * (long - short) / 60)


def played(stage: Stage, variables: Mapping[str, Any], task: Mapping[str, Any]) -> tuple[float, float]:
    """Wall and CPU-seconds of `ansible-playbook`, without the jobs, which are no children of it."""
    hosts = {name: {**variables, "vm": name} for name in stage.vms}
    play = stage.play(task, hosts=hosts, arguments=["--forks", str(WATCHED)])
    started = time.monotonic()
    _unused, status, used = os.wait4(play.process.pid, 0)
    play.process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.monotonic() - started
    play.wait()
    stage.plays.clear()
    return wall, used.ru_utime + used.ru_stime


def starting(stage: Stage, runs: int) -> Figure:
    """From the start of `ansible-playbook` to the first byte that is read, against a command that creates a file."""
    created = stage.folder / "created"
    beyond = []
    for _turn in range(runs + 1):
        created.unlink(missing_ok=True)
        command = {"ansible.builtin.command": {"cmd": f"touch {created}"}}
        plain = until(stage, stage.play(command), created.exists)
        known = {record["id"] for record in stage.records()}

        def reads(known: set[str] = known) -> bool:
            return any(one["id"] not in known and one["phase"] in ("exporting", "ready") for one in stage.records())

        ours = until(stage, stage.play(stage.export()), reads)
        beyond.append(ours - plain)
    del beyond[0]  # warms the caches
    peer = "a task that creates a file"
    return Figure(
        "seconds to the first byte, beyond Ansible's own", statistics.median(beyond), 1.0, "lower", peer, beyond
    )


def until(stage: Stage, play: Play, happened: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not happened():
        if play.process.poll() not in (None, 0):
            play.wait()
        time.sleep(0.005)
    took = time.monotonic() - started
    play.wait()
    stage.plays.clear()
    return took


def sharing(stage: Stage, limit: str = "") -> Iterator[Figure]:
    """The playbook for fleets, VMs being its hosts. With a limit, work is mostly waiting, as for a slow store; without,
    it needs the same cores as the control node."""
    variables = {
        "export_fleet_url": f"file://{stage.store}",
        "export_fleet_libvirt": stage.options()["libvirt"],
        "export_fleet_max_jobs": MAX_JOBS,
        "vm_export_state_dir": str(stage.state),
        **({"export_fleet_bandwidth_limit": limit} if limit else {}),
    }
    name = f"{FLEET} exports{f' at {limit} each' if limit else ''}"
    arguments = ["-e", json.dumps(variables), "--forks", str(2 * MAX_JOBS)]
    started = time.monotonic()
    play = stage.play(hosts={name: {} for name in stage.vms}, arguments=arguments, playbook=FLEET_PLAYBOOK)
    play.wait(patience=1800)
    whole = time.monotonic() - started
    records = stage.records()
    work = [spent(stage, record) for record in records]
    wall = max(one["finished"] for one in records) - min(one["started"] for one in records)
    assert len(records) == FLEET, f"{len(records)} jobs"
    peer = f"the sum of their work / {MAX_JOBS}"
    yield Figure(f"{name}: wall", wall / (sum(work) / MAX_JOBS), 1.3, "lower", peer, work)
    yield Figure(f"{name}: seconds of the whole playbook", whole, None, "lower", "", [whole])


FLEET_PLAYBOOK = ROOT / "playbooks/export_fleet.yml"


def spent(stage: Stage, record: Mapping[str, Any]) -> float:
    """Seconds from the intent to the manifest: not the wait for a slot."""
    (manifest,) = stage.store.glob(f"{record['vm']}-*/*/manifest.json")
    duration: float = json.loads(manifest.read_text())["x_vmferry"]["statistics"]["duration"]
    return duration


def reading(folder: Path) -> Iterator[Figure]:
    seen = hammer(folder, 10.0)
    counted = f"{seen.writes} writes, {seen.reads} reads"
    yield Figure(f"torn reads of a record ({counted})", seen.torn, 0, "lower", "", [seen.torn])
    yield Figure("reads of a record that went back", seen.backward, 0, "lower", "", [seen.backward])
