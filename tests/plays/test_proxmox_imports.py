# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play that makes a VM of Proxmox VE of an image, through its node, with secrets that come from the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rigs.proxmox import ProxmoxServer

from .playing import ANSIBLE_PLAYBOOK, ROOT


def test_example_makes_a_vm_and_the_secret_is_nowhere(tmp_path: Path) -> None:
    data = b"system" * 100_000 + bytes(480)
    (tmp_path / "web.raw").write_bytes(data)
    with ProxmoxServer() as cluster:
        settings = cluster.settings()
        secret = settings["api_token_secret"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PROXMOX_")},
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_LOG_PATH": str(tmp_path / "log"),
            "HOME": str(tmp_path),
            "PROXMOX_HOST": f"127.0.0.1:{cluster.api_port}",
            "PROXMOX_USER": settings["api_user"],
            "PROXMOX_TOKEN_ID": settings["api_token_id"],
            "PROXMOX_TOKEN_SECRET": secret,
            "PROXMOX_CA_PATH": settings["ca_path"],
        }
        by_ssh = ("host_map", "ssh_port", "ssh_private_key_file", "ssh_known_hosts")
        vmid = cluster.first_vmid + 42
        given = {
            "url": (tmp_path / "web.raw").as_uri(),
            "new_name": "web",
            "vmid": vmid,
            "storage": "local",
            "bridge": "vmbr0.20",
            "cluster": {name: settings[name] for name in by_ssh},
            "ansible_python_interpreter": sys.executable,
        }
        playbook = ROOT / "examples" / "import_to_proxmox.yml"
        words = ["-i", "localhost,", "-c", "local", "-e", json.dumps(given), "-vvv"]
        command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"web is {vmid} on {cluster.node}, with 1 disks" in done.stdout
        told = cluster.vms()[vmid]
        assert (told["name"], told["status"], told["config"]["net0"][-7:]) == ("web", "stopped", ",tag=20")
        assert cluster.disk_bytes(vmid, 0)[: len(data)] == data
        assert cluster.wrong_calls() == []
    assert secret not in done.stdout + done.stderr + (tmp_path / "log").read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text("latin-1")]
