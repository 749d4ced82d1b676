# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two hypervisors, a staging store between them, and the playbook that migrates tiny VMs from one to the other."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rigs import guests
from rigs.domain import Disk, Machine, boot_and_expect, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.ports import free_port

from .fleet_rig import PATIENCE, Ended, environment, recap_of

if TYPE_CHECKING:
    import libvirt

PLAYBOOK = "vmferry.migrate.migrate"
NETWORK = "<interface type='network'><source network='production'/></interface>"
UNREACHABLE = "kvm03"  # a worker
GUEST = "guest"  # an inventory host that lets Ansible in


@dataclass
class Migration:
    """One test's folders and VMs. `here` has the VMs, `there` gets them."""

    folder: Path
    here: LibvirtRig
    there: LibvirtRig
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    guests: dict[str, dict[str, Any]] = field(default_factory=dict)  # more inventory hosts to log in to

    def __post_init__(self) -> None:
        for name in ("state", "scratch", "disks", "images"):
            (self.folder / name).mkdir()

    @property
    def staging(self) -> Path:
        return self.folder / "staging"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def disk(self, name: str) -> Path:
        return self.folder / "disks" / f"{name}.raw"

    def add(
        self, name: str, *, runs: bool = False, network: bool = False, memory_mib: int = 32, **variables: Any
    ) -> libvirt.virDomain:
        """A VM here, which prints its name when it boots, and its inventory host."""
        raw = guests.mbr_disk(self.disk(name), name)
        machine = Machine(name, disks=(Disk(raw, "raw"),), memory_mib=memory_mib)
        xml = domain_xml(machine, self.folder)
        domain = self.here.connect().defineXML(xml.replace("</devices>", f"{NETWORK}</devices>") if network else xml)
        if runs:
            domain.create()
        self.hosts[name] = variables
        return domain

    def run(self, *arguments: str, playbook: str | Path = PLAYBOOK, **variables: Any) -> Ended:
        """Of all VMs, with role variables for all of them."""
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        extra = {"migrate_hosts": "vms", "migrate_report": str(report), **variables}
        command = [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), "-i", str(self._inventory())]
        done = subprocess.run(
            [*command, "-e", json.dumps(extra), *arguments],
            env=environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
            timeout=PATIENCE,
            check=False,
        )
        rows = json.loads(report.read_text())["vms"] if report.exists() else []
        return Ended(done.returncode, done.stdout, recap_of(done.stdout), rows)

    def exports(self) -> list[str]:
        """The ids of the committed exports in the staging store."""
        return sorted(path.parent.name for path in self.staging.glob("*/*/manifest.json"))

    def exported_vms(self) -> list[str]:
        found = (json.loads(path.read_text()) for path in self.staging.glob("*/*/manifest.json"))
        return sorted(manifest["source"]["vm_name"] for manifest in found)

    def manifest(self) -> dict[str, Any]:
        """What the manifest of the only export says of it."""
        (path,) = self.staging.glob("*/*/manifest.json")
        found: dict[str, Any] = json.loads(path.read_text())["x_vmferry"]
        return found

    def jobs(self) -> list[str]:
        """The kinds of the jobs that were begun, oldest first."""
        records = [json.loads(path.read_text()) for path in self.folder.glob("state/jobs/*/record.json")]
        return [record["kind"] for record in sorted(records, key=lambda record: record["started"])]

    def source(self, name: str) -> libvirt.virDomain | None:
        return _find(self.here, name)

    def target(self, name: str) -> libvirt.virDomain | None:
        return _find(self.there, name)

    def has_booted(self, name: str, marker: str) -> None:
        """It runs there, and what it was made of prints the name of the VM that was migrated."""
        domain = self.target(name)
        assert domain is not None
        assert domain.isActive()
        domain.destroy()
        boot_and_expect(self.there, domain, guests.boot_marker(marker))

    def end(self) -> None:
        for rig in (self.here, self.there):
            for domain in rig.connect().listAllDomains():
                if any(str(self.folder) in path for path in _paths(domain)):
                    remove_domain(domain)

    def _inventory(self) -> Path:
        def libvirt_of(rig: LibvirtRig) -> dict[str, Any]:
            return {"libvirt": {"uri": rig.uri, "scratch_dir": str(self.folder / "scratch")}}

        worker = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        common = {
            "vm_migrate_source": libvirt_of(self.here),
            "vm_migrate_source_worker": "kvm01",
            "vm_migrate_destination": libvirt_of(self.there),
            "vm_migrate_destination_worker": "kvm02",
            "vm_migrate_staging": {"url": f"file://{self.staging}"},
            "vm_migrate_placement": {"storage": str(self.images)},
            "vm_migrate_state_dir": str(self.folder / "state"),
        }
        away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": free_port()}
        groups: Mapping[str, Any] = {
            "vms": {"hosts": self.hosts, "vars": common},
            "workers": {"hosts": {"kvm01": worker, "kvm02": worker, UNREACHABLE: away}},
            "guests": {"hosts": {GUEST: worker, **self.guests}},
        }
        path = self.folder / "inventory.json"
        path.write_text(json.dumps({"all": {"children": groups}}))
        return path


def _find(rig: LibvirtRig, name: str) -> libvirt.virDomain | None:
    return next((domain for domain in rig.connect().listAllDomains() if domain.name() == name), None)


def _paths(domain: libvirt.virDomain) -> list[str]:
    return [line for line in domain.XMLDesc().splitlines() if "/" in line]


@contextmanager
def migrations(here: LibvirtRig, there: LibvirtRig) -> Iterator[Migration]:
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-mig-", dir="/tmp"))
        made = Migration(Path(folder), here, there)
        stack.callback(made.end)
        yield made


@pytest.fixture(scope="module")
def here() -> Iterator[LibvirtRig]:
    """Not the plays' own, whose VMs have such names too."""
    with LibvirtRig() as started:
        yield started


@pytest.fixture(scope="module")
def there() -> Iterator[LibvirtRig]:
    with LibvirtRig() as started:
        yield started


@pytest.fixture
def migration(here: LibvirtRig, there: LibvirtRig) -> Iterator[Migration]:
    with migrations(here, there) as made:
        yield made
