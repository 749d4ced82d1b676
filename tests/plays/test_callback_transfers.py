# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run tells of its transfers at the end. Real exports of machines that are off."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from rigs import guests
from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig

ROOT = Path(__file__).resolve().parents[2]
EXPORT = "vmferry.migrate.vm_export"
VMS = ("alpha", "beta")
SECRET = "correct-horse-battery"
MIB = 1 << 20


@dataclass(frozen=True)
class Run:
    """One `ansible-playbook`, ended."""

    code: int
    output: str
    metrics_file: Path
    audit_log: Path

    @property
    def table(self) -> list[list[str]]:
        """Rows of words, without the titles."""
        (found,) = self.output.split("\nTRANSFERS")[1:]
        return [line.split() for line in found.splitlines()[2:] if line.strip()]

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.audit_log.read_text().splitlines()]


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[LibvirtRig]:
    with LibvirtRig() as rig:
        raw, disk = rig.directory / "seed.raw", rig.directory / "disk.qcow2"
        raw.write_bytes(bytes(MIB) + random.Random(1).randbytes(2 * MIB) + bytes(5 * MIB))
        guests.place(raw, disk, "qcow2")
        machines = [Machine(name, disks=(Disk(disk),)) for name in VMS]
        domains = [rig.connect().defineXML(domain_xml(machine, rig.directory)) for machine in machines]
        yield rig
        for domain in domains:
            remove_domain(domain)


def play(folder: Path, *tasks: Mapping[str, Any], check: bool = False, **settings: str) -> Run:
    playbook = folder / "backup.yml"
    whole = {"name": "Nightly", "hosts": "all", "gather_facts": False, "tasks": list(tasks)}
    playbook.write_text(yaml.safe_dump([whole], sort_keys=False))
    metrics_file, audit_log = folder / "transfers.prom", folder / "audit.jsonl"
    environment = {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "ANSIBLE_CALLBACKS_ENABLED": "vmferry.migrate.transfers",
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_REMOTE_TMP": str(folder / "remote_tmp"),
        "ANSIBLE_ASYNC_DIR": str(folder / "async"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "VMFERRY_STATE_DIR": str(folder / "state"),
        "VMFERRY_TRANSFERS_METRICS_FILE": str(metrics_file),
        "VMFERRY_TRANSFERS_AUDIT_LOG": str(audit_log),
        **settings,
    }
    here = ["-i", "kvm1,", "-c", "local", "-e", f"ansible_python_interpreter={sys.executable}"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "ansible-playbook"), *here, *(["--check"] if check else []), str(playbook)],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Run(done.returncode, done.stdout, metrics_file, audit_log)


def export(rig: LibvirtRig, folder: Path, vm: str, **options: Any) -> dict[str, Any]:
    """A task's module and its options."""
    libvirt = {"uri": rig.uri, "scratch_dir": str(folder)}
    return {EXPORT: {"libvirt": libvirt, "vm": vm, "url": f"file://{folder}/store", **options}}


@pytest.fixture(scope="module")
def night(hypervisor: LibvirtRig) -> Iterator[Run]:
    """A run in which one export succeeds, one fails, and two are items of a loop."""
    with tempfile.TemporaryDirectory(prefix="vmferry-play-", dir="/tmp") as made:
        folder = Path(made)
        (folder / "store").mkdir()
        keys = {"access_key": "nobody", "secret_key": SECRET}
        yield play(
            folder,
            {"name": "One", **export(hypervisor, folder, "alpha", name="first")},
            {"name": "None", **export(hypervisor, folder, "ghost", storage=keys), "ignore_errors": True},
            {"name": "Two", **export(hypervisor, folder, "{{ item }}"), "loop": list(VMS)},
        )


def test_the_table_has_a_row_for_each_transfer(night: Run) -> None:
    assert night.code == 0, night.output
    assert "TRANSFERS: 3 ready, 1 failed" in night.output
    rows = [(row[1], row[2], row[3], row[4]) for row in night.table if row[0] == "kvm1" and row[3] == "ready"]
    assert rows == [(vm, "export", "ready", "full") for vm in ("alpha", *VMS)]


def test_the_audit_log_has_a_line_for_each_transfer(night: Run) -> None:
    assert [entry["outcome"] for entry in night.entries] == ["ready", "failed", "ready", "ready"]
    assert stat.S_IMODE(night.audit_log.stat().st_mode) == 0o600


def test_a_secret_is_in_no_report(night: Run) -> None:
    for path in (night.audit_log, night.metrics_file):
        assert SECRET not in path.read_text()
    assert SECRET not in night.output
