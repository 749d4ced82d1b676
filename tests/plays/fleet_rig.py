# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets of tiny VMs that are off, on one or two libvirts, and the playbook run on them as users run it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.record import is_alive
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = "vmferry.migrate.export_fleet"
MIB = 1 << 20
RECAP = re.compile(r"^(\S+)\s+: (ok=.*)$", re.MULTILINE)
PATIENCE = 600.0  # seconds; a busy machine takes three minutes for what else takes one


@dataclass(frozen=True)
class Ended:
    """A run of the playbook that came to an end."""

    rc: int
    output: str
    recap: Mapping[str, Mapping[str, int]]
    report: Sequence[Mapping[str, Any]]

    @property
    def failed(self) -> set[str]:
        return {host for host, counts in self.recap.items() if counts["failed"]}

    @property
    def changed(self) -> set[str]:
        return {host for host, counts in self.recap.items() if counts["changed"]}

    def states(self) -> dict[str, str]:
        return {row["vm"]: row["state"] for row in self.report}

    def row(self, vm: str) -> Mapping[str, Any]:
        return next(row for row in self.report if row["vm"] == vm)

    def line(self, vm: str, table: int = -1) -> str:
        """The table's line of a VM; the plan is the first table, the summary the last."""
        return re.findall(rf"^{re.escape(vm)}(?! +:) .*$", self.output, re.MULTILINE)[table]


@dataclass
class Fleet:
    """One test's VMs, store and inventory."""

    folder: Path
    variables: dict[str, Any] = field(default_factory=dict)  # of all hosts
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    workers: dict[str, dict[str, Any]] = field(default_factory=dict)
    groups: dict[str, Sequence[str]] = field(default_factory=dict)  # of hosts, besides `vms` and `workers`
    runs: list[Run] = field(default_factory=list)
    enter: Sequence[str] = ()  # the command that runs another on the control node

    def __post_init__(self) -> None:
        for name in ("store", "state", "scratch", "async"):
            (self.folder / name).mkdir()
        self.variables = {"export_fleet_url": self.url, "vm_export_state_dir": str(self.state), **self.variables}

    @property
    def url(self) -> str:
        return f"file://{self.folder}/store"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def add_worker(self, name: str, rig: LibvirtRig, **variables: Any) -> None:
        self.workers[name] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "export_fleet_libvirt": {"uri": rig.uri, "scratch_dir": str(self.folder / "scratch")},
            **variables,
        }

    def add_hosts(self, names: Sequence[str], worker: str, **variables: Any) -> None:
        """Inventory hosts that are VMs of a worker's libvirt, whether they exist there or not."""
        libvirt = self.workers[worker]["export_fleet_libvirt"]
        for name in names:
            self.hosts[name] = {"export_fleet_worker": worker, "export_fleet_libvirt": libvirt, **variables}

    def inventory(self, name: str = "inventory", hosts: Sequence[str] = ()) -> Path:
        """Of these hosts, or of all."""
        chosen = {host: self.hosts[host] for host in hosts or self.hosts}
        more = {group: {"hosts": dict.fromkeys(names)} for group, names in self.groups.items()}
        groups = {"vms": {"hosts": chosen}, "workers": {"hosts": self.workers}, **more}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"all": {"children": groups, "vars": self.variables}}))
        return path

    def start(
        self,
        *arguments: str,
        inventory: Path | None = None,
        forks: int = 5,
        playbook: str | Path = PLAYBOOK,
        **variables: Any,
    ) -> Run:
        variables = {"export_fleet_hosts": "vms", **variables}
        command = [str(playbook), "--forks", str(forks), *arguments]
        self.runs.append(Run(self, command, inventory or self.inventory(), variables))
        return self.runs[-1]

    def run(self, *arguments: str, **options: Any) -> Ended:
        return self.start(*arguments, **options).wait()

    def exports(self) -> list[str]:
        """The VMs of the committed exports."""
        manifests = (self.folder / "store").glob("*/*/manifest.json")
        return sorted(json.loads(path.read_text())["source"]["vm_name"] for path in manifests)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in self.state.rglob("record.json")]

    def exported_when(self) -> list[tuple[float, float]]:
        """Of each export, from its claim of a folder to its manifest: all the while it had a slot."""
        manifests = list((self.folder / "store").glob("*/*/manifest.json"))
        ends = [path.stat().st_mtime for path in manifests]
        lasted = [json.loads(path.read_text())["x_vmferry"]["statistics"]["duration"] for path in manifests]
        return [(end - duration, end) for end, duration in zip(ends, lasted, strict=True)]

    def end(self) -> None:
        """A test that fails leaves no play and no job running."""
        for run in self.runs:
            run.end()
        for folder in [path.parent for path in self.state.rglob("record.json")]:
            (folder / "cancel").touch()
        self.wait_for(lambda: all(one["finished"] or not is_alive(one) for one in self.records()))

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.05)


class Run:
    """`ansible-playbook` in a process group of its own."""

    def __init__(self, fleet: Fleet, arguments: Sequence[str], inventory: Path, variables: Mapping[str, Any]) -> None:
        self._report = fleet.folder / f"{inventory.stem}-report.json"
        self._report.unlink(missing_ok=True)
        self._output = (fleet.folder / f"{inventory.stem}-{time.monotonic_ns()}.log").open("w+")
        extra = json.dumps({"export_fleet_report": str(self._report), **variables})
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(inventory), "-e", extra]
        self.process = subprocess.Popen(
            [*fleet.enter, *command, *arguments],
            env=environment(fleet.folder),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=fleet.folder,
            start_new_session=True,
        )

    def wait(self) -> Ended:
        try:
            rc = self.process.wait(PATIENCE)
        finally:
            output = self.output()
        report = json.loads(self._report.read_text())["vms"] if self._report.exists() else []
        return Ended(rc, output, recap_of(output), report)

    def output(self) -> str:
        self._output.flush()
        return Path(self._output.name).read_text()

    def kill(self) -> None:
        """With its workers, which are sessions of their own, as the end of its container does."""
        workers = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, workers)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self._output.close()


def recap_of(output: str) -> dict[str, dict[str, int]]:
    """What the last lines of a play count, by host."""
    return {
        host: {name: int(count) for name, count in (pair.split("=") for pair in counts.split())}
        for host, counts in RECAP.findall(output)
    }


def environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "VMFERRY_", "AWS_"))}
    return {
        **kept,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "ANSIBLE_ASYNC_DIR": str(folder / "async"),
        "ANSIBLE_LOCAL_TEMP": str(folder / "local"),
        "ANSIBLE_REMOTE_TEMP": str(folder / "remote"),
        "ANSIBLE_NOCOLOR": "1",
    }


@contextmanager
def off_vms(rig: LibvirtRig, names: Sequence[str], mib: int = 1) -> Iterator[None]:
    """VMs that are defined and off, each with a raw disk full of data."""
    data = random.Random(mib).randbytes(mib * MIB)
    try:
        for name in names:
            disk = rig.directory / f"{name}.raw"
            disk.write_bytes(data)
            machine = Machine(name, disks=(Disk(disk, "raw"),), memory_mib=32)
            rig.connect().defineXML(domain_xml(machine, rig.directory))
        yield
    finally:
        for domain in rig.connect().listAllDomains():
            if domain.name() in names:
                remove_domain(domain)
        for name in names:
            (rig.directory / f"{name}.raw").unlink(missing_ok=True)


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """Of spans from a beginning to an end."""
    changes = sorted([(begun, 1) for begun, _end in spans] + [(end, -1) for _begun, end in spans])
    running = most = 0
    for _when, change in changes:
        running += change
        most = max(most, running)
    return most


@pytest.fixture
def fleet(rig: LibvirtRig) -> Iterator[Fleet]:
    with tempfile.TemporaryDirectory(prefix="vmferry-fleet-", dir="/tmp") as folder:
        made = Fleet(Path(folder))
        made.add_worker("kvm01", rig)
        yield made
        made.end()
