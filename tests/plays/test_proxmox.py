# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays against a cluster of Proxmox VE, with a connection that comes from nothing but the environment."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rigs.domain import Disk, Machine, domain_xml, remove_domain
from rigs.libvirt import LibvirtRig
from rigs.proxmox import ProxmoxServer

from .playing import ANSIBLE_PLAYBOOK, ROOT

MIB = 1 << 20


def test_each_running_vm_with_a_tag_gets_a_snapshot_and_the_secret_is_nowhere(tmp_path: Path) -> None:
    with ProxmoxServer() as cluster:
        prod = cluster.make_vm("web01", running=True, format="qcow2", tags="prod;web", agent="1")
        cluster.agent(prod)
        others = [
            cluster.make_vm("web02", format="qcow2", tags="prod"),
            cluster.make_vm("lab01", running=True, format="qcow2", tags="lab"),
        ]
        settings = cluster.settings()
        secret = settings["api_token_secret"]
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_LOG_PATH": str(tmp_path / "log"),
            "HOME": str(tmp_path),
            "PROXMOX_HOST": f"127.0.0.1:{cluster.api_port}",
            "PROXMOX_USER": settings["api_user"],
            "PROXMOX_TOKEN_ID": settings["api_token_id"],
            "PROXMOX_TOKEN_SECRET": secret,
            "PROXMOX_CA_PATH": settings["ca_path"],
        }
        given = json.dumps({"tag": "prod", "ansible_python_interpreter": sys.executable})
        playbook = ROOT / "examples" / "snapshot_proxmox_vms.yml"
        command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, "-i", "localhost,", "-c", "local", "-e", given, "-vvv"]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        machines = cluster.vms()
        (taken,) = machines[prod]["snapshots"]
        assert taken.startswith("vmferry-")
        assert [machines[vmid]["snapshots"] for vmid in others] == [{}, {}]
        assert '"consistency": "quiesced"' in done.stdout
        assert secret not in done.stdout + done.stderr + (tmp_path / "log").read_text()
        assert cluster.wrong_calls() == []


def test_vm_of_libvirt_is_migrated_there_by_the_role(rig: LibvirtRig, tmp_path: Path) -> None:
    data = random.Random(5).randbytes(MIB)
    with TemporaryDirectory(prefix="vmferry-play-", dir="/tmp") as name, ProxmoxServer() as cluster:
        folder = Path(name)
        raw = folder / "old01.raw"
        raw.write_bytes(data)
        (folder / "scratch").mkdir()
        rig.connect().defineXML(domain_xml(Machine("old01", disks=(Disk(raw, "raw"),)), folder))
        settings = cluster.settings()
        secret = settings.pop("api_token_secret")
        libvirt = {"uri": rig.uri, "scratch_dir": str(folder / "scratch")}
        given = {
            "vm": "old01",
            "new_name": "moved01",
            "source": {"provider": "libvirt", "libvirt": libvirt},
            "destination": {"provider": "proxmox", "proxmox": settings},
            "staging": (folder / "staging").as_uri(),
            "pool": "local",
            "networks": {},
            "ansible_python_interpreter": sys.executable,
        }
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "HOME": str(tmp_path),
            "VMFERRY_STATE_DIR": str(tmp_path / "state"),
            "PROXMOX_TOKEN_SECRET": secret,
        }
        playbook = ROOT / "examples" / "migrate_to_proxmox.yml"
        command: list[str | Path] = [
            ANSIBLE_PLAYBOOK,
            playbook,
            "-i",
            "localhost,",
            "-c",
            "local",
            "-e",
            json.dumps(given),
        ]
        try:
            done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            assert secret not in done.stdout + done.stderr
            ((vmid, made),) = cluster.vms().items()
            assert (made["name"], made["status"]) == ("moved01", "running")
            assert cluster.disk_bytes(vmid, 0)[:MIB] == data
            assert cluster.wrong_calls() == []
            left = cluster.leftovers()
            assert [left.folders, left.processes, left.volumes] == [[], [], []]
        finally:
            remove_domain(rig.connect().lookupByName("old01"))
