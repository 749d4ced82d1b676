# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays against a vCenter, with a connection that comes from nothing but the environment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rigs.vsphere import Disk, VSphere

from .playing import ANSIBLE_PLAYBOOK, ROOT

MIB = 1 << 20


@pytest.fixture
def vcenter() -> Iterator[VSphere]:
    with VSphere() as started:
        for name, folder in (("web01", "Prod"), ("web02", "Prod/Web"), ("lab01", "Lab"), ("new01", "Production")):
            started.make_vm(name, [Disk(size=MIB)], folder=folder, running=True)
        started.make_vm("web03", [Disk(size=MIB)], folder="Prod")
        yield started


def play(vcenter: VSphere, example: str, home: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "ANSIBLE_LOG_PATH": str(home / "log"),
        "HOME": str(home),
        "VMFERRY_VSPHERE_THUMBPRINT": vcenter.thumbprint,
        "VMWARE_HOST": f"{vcenter.host}:{vcenter.port}",
        "VMWARE_PASSWORD": vcenter.password,
        "VMWARE_USER": vcenter.user,
        "VMFERRY_STATE_DIR": str(home / "state"),
    }
    given = ["-e", json.dumps({**variables, "ansible_python_interpreter": sys.executable})]
    playbook = ROOT / "examples" / example
    command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, "-i", "localhost,", "-c", "local", *given, "-vvv"]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert vcenter.leftovers().sessions == 0
    told = done.stdout + done.stderr + (home / "log").read_text()
    assert vcenter.password not in told
    assert not [path for path in home.rglob("*") if path.is_file() and vcenter.password in path.read_text("latin-1")]
    return done


def test_each_running_vm_of_a_folder_gets_a_snapshot_and_the_password_is_nowhere(
    vcenter: VSphere, tmp_path: Path
) -> None:
    done = play(vcenter, "snapshot_vsphere_vms.yml", tmp_path, folder="/DC0/vm/Prod")
    taken = vcenter.leftovers().snapshots
    assert sorted(one.partition("/")[0] for one in taken) == ["web01", "web02"]
    assert all(name.startswith("vmferry-") for name in taken.values())
    assert '"consistency": "quiesced"' in done.stdout


def test_each_vm_of_a_folder_is_exported_and_the_password_is_nowhere(vcenter: VSphere, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    done = play(vcenter, "export_vsphere_vms.yml", tmp_path, folder="/DC0/vm/Lab", url=store.as_uri())
    (made,) = store.rglob("manifest.json")
    assert made.parent.parent.name.startswith("lab01-")
    assert dict(vcenter.leftovers().snapshots) == {}
    assert '"consistency": "quiesced"' in done.stdout


def test_vm_is_migrated_there_by_the_role_once_and_the_password_is_nowhere(vcenter: VSphere, tmp_path: Path) -> None:
    data = random.Random(2).randbytes(MIB)
    vcenter.make_vm("old01", [data], folder="Lab")
    given: dict[str, Any] = {
        "vm": "old01",
        "new_name": "moved01",
        "source": {"provider": "vsphere"},
        "staging": (tmp_path / "staging").as_uri(),
        "cluster": "DC0_C0",
        "datastore": "LocalDS_1",
        "folder": "/DC0/vm/Prod",
        "networks": {"VM Network": "DC0_DVPG0"},
    }
    (tmp_path / "staging").mkdir()
    play(vcenter, "migrate_to_vsphere.yml", tmp_path, **given)
    assert vcenter.disk_bytes("moved01") == data
    assert list((tmp_path / "staging").rglob("manifest.json")) == []
    again = play(vcenter, "migrate_to_vsphere.yml", tmp_path, **given)
    assert "1 done already" in again.stdout
    assert "changed=0" in again.stdout


SHUT_DOWN = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Export a VM that runs while it is off
      vmferry.migrate.vm_export:
        provider: vsphere
        vm: web01
        url: "{{ url }}"
        consistency: powered_off
        shutdown_timeout: 1m
"""


def test_guest_that_is_shut_down_is_started_although_the_module_was_killed_in_the_middle(
    vcenter: VSphere, tmp_path: Path
) -> None:
    """By a process that was begun by a module out of an archive, which is gone when that dies."""
    (tmp_path / "store").mkdir()
    playbook = tmp_path / "shut_down.yml"
    playbook.write_text(SHUT_DOWN)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
        "HOME": str(tmp_path),
        "VMFERRY_FAILPOINT": "window-delivered",
        "VMFERRY_STATE_DIR": str(tmp_path / "state"),
        "VMFERRY_VSPHERE_THUMBPRINT": vcenter.thumbprint,
        "VMWARE_HOST": f"{vcenter.host}:{vcenter.port}",
        "VMWARE_PASSWORD": vcenter.password,
        "VMWARE_USER": vcenter.user,
    }
    given = ["-e", json.dumps({"ansible_python_interpreter": sys.executable, "url": (tmp_path / "store").as_uri()})]
    command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, "-i", "localhost,", "-c", "local", *given]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert len(vcenter.calls("ShutdownGuest")) == 1, done.stdout
    vcenter.lapse()  # the export's lease, as it does after five minutes: until then vSphere starts no such VM
    deadline = time.monotonic() + 120.0  # seconds
    while list((tmp_path / "store").glob(".vmferry-power-*")):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert [call.ended for call in vcenter.calls("PowerOnVM_Task")][-1:] == [""]


def test_image_becomes_a_vm_in_a_play_and_the_password_is_nowhere(vcenter: VSphere, tmp_path: Path) -> None:
    data = random.Random(1).randbytes(MIB)
    (tmp_path / "app.img").write_bytes(data)
    given: dict[str, Any] = {
        "url": (tmp_path / "app.img").as_uri(),
        "new_name": "app",
        "cluster": "DC0_C0",
        "datastore": "LocalDS_1",
        "folder": "/DC0/vm/Prod",
        "networks": {"default": "VM Network"},
    }
    done = play(vcenter, "import_to_vsphere.yml", tmp_path, **given)
    assert "app is /DC0/vm/Prod/app, with 1 disks" in done.stdout
    assert vcenter.disk_bytes("app") == data
    assert "changed=0" in play(vcenter, "import_to_vsphere.yml", tmp_path, **given).stdout
