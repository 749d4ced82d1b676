# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials reach the host that needs them, and nobody else."""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rigs.s3_server import S3Server
from rigs.seaweedfs import seaweedfs
from rigs.sshd import SshServer

from .playing import Stage

BUCKET = "exports"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with seaweedfs() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server
        os.kill(server.pid, signal.SIGKILL)  # nothing of it is kept, and its own way out takes half a minute


def of_controller(server: S3Server) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_ENDPOINT_URL_S3": server.endpoint_url,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def command_lines() -> Iterator[set[bytes]]:
    """Those of all processes, looked at all the time."""
    seen: set[bytes] = set()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    seen.add((process / "cmdline").read_bytes())
                except OSError:
                    continue  # it ended meanwhile
            time.sleep(0.01)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def test_they_are_handed_over_and_show_up_nowhere(stage: Stage, ssh_server: SshServer, s3_server: S3Server) -> None:
    url, storage = f"s3://{BUCKET}/{secrets.token_hex(4)}", {"addressing_style": "path"}
    options: dict[str, Any] = {"url": url, "storage": storage, "verify": "none"}
    with command_lines() as seen:
        play = stage.play(
            stage.export(bandwidth_limit="6MiB/s", **options),
            hosts={"kvm1": ssh_server.variables},
            environment=of_controller(s3_server),
            arguments=["-vvv"],
        )
        record = stage.wait_for_bytes()
        stage.wait_for(lambda: holders(stage.folder, s3_server.secret_key) == [], "the payload's end")
        play.wait()
    job = play.result()["job"]
    assert (job["id"], job["state"]) == (record["id"], "ready")
    assert len(seen) > 20
    assert not [line for line in seen if s3_server.secret_key.encode() in line]
    assert any(b"record.json" in line for line in seen)
    assert s3_server.secret_key not in play.output
    assert holders(stage.folder, s3_server.secret_key) == []


def holders(folder: Path, secret: str) -> list[Path]:
    """Files that hold it."""
    found = []
    for path in folder.rglob("*"):
        try:
            holds = path.is_file() and secret.encode() in path.read_bytes()
        except FileNotFoundError:
            continue
        if holds:
            found.append(path)
    return found


def test_a_controller_without_credentials_is_told_at_once(stage: Stage) -> None:
    play = stage.play(
        stage.export(url=f"s3://{BUCKET}", credentials_from="controller"), environment={"AWS_REGION": "x"}
    )
    result = play.wait(2).result()
    assert result["error"]["kind"] == "invalid_config"
    assert "AWS_ACCESS_KEY_ID" in result["error"]["hint"]
