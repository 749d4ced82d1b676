# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SeaweedFS: an S3 server that checks signatures, checksums, conditions and part sizes."""

from __future__ import annotations

import json
import os
import secrets
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ports import free_ports
from .s3_server import ACCESS_KEY, ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY, SECRET_KEY, S3Server
from .server_process import program, running

DOMAIN = "s3.test"  # a name for 127.0.0.1; buckets are below it
_LOCKING = (
    "GetBucketObjectLockConfiguration",
    "GetObjectLegalHold",
    "GetObjectRetention",
    "PutObjectLegalHold",
    "PutObjectRetention",
)
PUBLIC_BUCKET = "open-to-everybody"  # for reading
VOLUME_SIZE = 1024  # MiB
VOLUMES = 100  # made as needed, several for each bucket; what is deleted keeps its room for a while


@contextmanager
def seaweedfs() -> Iterator[S3Server]:
    with tempfile.TemporaryDirectory(prefix="vmferry-seaweedfs-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        data, config = root / "data", root / "s3.json"
        data.mkdir()
        config.write_text(json.dumps({**_identities(), "kms": _kms()}))
        config.chmod(0o600)
        names = ("master", "volume", "filer", "s3")
        ports = free_ports(2 * len(names))
        port = dict(zip(names, ports[: len(names)]))
        grpc = dict(zip(names, ports[len(names) :]))
        command = [
            program("weed"),
            "-logtostderr=true",
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            f"-master.volumeSizeLimitMB={VOLUME_SIZE}",
            f"-volume.max={VOLUMES}",
            "-filer",
            "-s3",
            f"-s3.config={config}",
            f"-s3.domainName={DOMAIN}",
            # Two more services with fixed ports, on which a second server would fail.
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            *(f"-{name}.port={port[name]}" for name in names),
            *(f"-{name}.port.grpc={grpc[name]}" for name in names),
        ]
        environment = {**os.environ, "WEED_S3_SSE_KEK": secrets.token_hex(32), "TMPDIR": folder}
        endpoint = f"http://127.0.0.1:{port['s3']}"
        # Asked politely, it takes 25 seconds to leave, and nothing here is to be kept.
        with running(command, f"{endpoint}/healthz", root / "log", environment, signal.SIGKILL) as process:
            yield S3Server(endpoint, port["s3"], pid=process.pid)


def _identities() -> dict[str, object]:
    # Not an administrator: for one, SeaweedFS makes a missing bucket at the first write to it.
    user = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    admin = [{"accessKey": ADMIN_ACCESS_KEY, "secretKey": ADMIN_SECRET_KEY}]
    actions = ["Read", "Write", "List", "Tagging", *_LOCKING]
    return {
        "identities": [
            {"name": "user", "credentials": user, "actions": actions},
            {"name": "admin", "credentials": admin, "actions": ["Admin", *actions]},
            {"name": "anonymous", "actions": [f"Read:{PUBLIC_BUCKET}", f"List:{PUBLIC_BUCKET}"]},
        ]
    }


def _kms() -> dict[str, object]:
    """Makes a key of any name when it is first asked for."""
    local = {"type": "local", "enableOnDemandCreate": True}
    return {"default_provider": "local", "providers": {"local": local}}
