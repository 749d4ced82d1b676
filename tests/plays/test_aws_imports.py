# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play that makes an AMI of an image, with a connection that comes from nothing but the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from rigs.aws import AwsServer

from .playing import ANSIBLE_PLAYBOOK, ROOT


def test_example_makes_an_ami_and_the_secret_is_nowhere(tmp_path: Path) -> None:
    data = b"system" * 100_000
    (tmp_path / "web.raw").write_bytes(data)
    with AwsServer() as aws:
        settings = aws.settings()
        secret = settings["secret_key"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".build"),
            "ANSIBLE_LOG_PATH": str(tmp_path / "log"),
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": settings["access_key"],
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": settings["region"],
            "AWS_ENDPOINT_URL": settings["endpoint_url"],
        }
        given = {
            "url": (tmp_path / "web.raw").as_uri(),
            "new_name": "web",
            "stop_at": "image",
            "ansible_python_interpreter": sys.executable,
        }
        playbook = ROOT / "examples" / "import_to_aws.yml"
        words = ["-i", "localhost,", "-c", "local", "-e", json.dumps(given), "-vvv"]
        command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        ((image, tags),) = aws.leftovers().images.items()
        assert f"web is {image}, with 1 disks" in done.stdout
        assert tags["Name"] == "web"
        (snapshot,) = aws.leftovers().snapshots
        assert aws.snapshot_bytes(snapshot, len(data)) == data
    assert secret not in done.stdout + done.stderr + (tmp_path / "log").read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text("latin-1")]
