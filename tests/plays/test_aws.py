# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays against an account of AWS, with a connection that comes from nothing but the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.aws import AwsServer

from .playing import ANSIBLE_PLAYBOOK, ROOT


@pytest.fixture
def aws() -> Iterator[AwsServer]:
    with AwsServer() as started:
        started.make_instance("web01", [b"root", b"data"], tags={"env": "prod"})
        started.make_instance("web02", tags={"env": "prod"}, running=False)
        started.make_instance("lab01", tags={"env": "lab"})
        yield started


def test_each_running_instance_with_a_tag_gets_a_snapshot_and_the_secret_is_nowhere(
    aws: AwsServer, tmp_path: Path
) -> None:
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
    given = ["-e", json.dumps({"tag": "env=prod", "ansible_python_interpreter": sys.executable})]
    playbook = ROOT / "examples" / "snapshot_aws_instances.yml"
    command: list[str | Path] = [ANSIBLE_PLAYBOOK, playbook, "-i", "localhost,", "-c", "local", *given, "-vvv"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 2 volumes, crash_consistent" in done.stdout
    assert len(aws.leftovers().snapshots) == 2
    assert secret not in done.stdout + done.stderr + (tmp_path / "log").read_text()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and secret in path.read_text("latin-1")]
