# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The example of exports from Proxmox VE, played by SSH, out of the archive that Ansible makes of a module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rigs.proxmox import ProxmoxServer

from .playing import ANSIBLE_PLAYBOOK, ROOT

LEAF = 65536
DISK = b"\x11" * LEAF + bytes(14 * LEAF) + b"\x22" * LEAF


def test_each_vm_with_a_tag_is_exported_and_then_what_changed(tmp_path: Path) -> None:
    with ProxmoxServer() as cluster:
        on = cluster.make_vm("web01", [DISK], True, "thin", tags="prod")
        cluster.make_vm("db01", [DISK], format="qcow2", tags="prod")
        cluster.make_vm("lab01", [DISK], tags="lab")
        settings = cluster.settings()
        environment = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "HOME": str(tmp_path),
            "PROXMOX_HOST": f"127.0.0.1:{cluster.api_port}",
            "PROXMOX_USER": settings["api_user"],
            "PROXMOX_TOKEN_ID": settings["api_token_id"],
            "PROXMOX_TOKEN_SECRET": settings["api_token_secret"],
            "PROXMOX_CA_PATH": settings["ca_path"],
        }
        given = {
            "tag": "prod",
            "url": (tmp_path / "store").as_uri(),
            "ssh_key": settings["ssh_private_key_file"],
            "ssh_port": settings["ssh_port"],
            "known_hosts": settings["ssh_known_hosts"],
            "addresses": settings["host_map"],
            "ansible_python_interpreter": sys.executable,
        }
        playbook = ROOT / "examples" / "export_proxmox_vms.yml"
        command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, "-i", "localhost,", "-c", "local"]
        for _turn in range(2):
            done = subprocess.run(
                [*command, "-e", json.dumps(given)],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            assert '"msg": "web01: crash_consistent"' in done.stdout
            cluster.write(on, 0, 2 * LEAF, b"\x33" * LEAF)
        assert not cluster.leftovers().folders
        assert not cluster.leftovers().volumes
        assert cluster.wrong_calls() == []
        told = [json.loads(path.read_text()) for path in sorted((tmp_path / "store").rglob("manifest.json"))]
        modes = sorted((one["source"]["vm_name"], one["x_vmferry"]["mode"]) for one in told)
        assert modes == [("db01", "full"), ("web01", "full"), ("web01", "incremental")], "of db01, nothing changed"
        assert len(cluster.bitmaps(on)) == 1
