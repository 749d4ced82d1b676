# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An S3 server that believes everything: moto takes wrong checksums, wrong signatures and parts of any size."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .ports import free_port
from .s3_server import S3Server
from .server_process import program, running


@contextmanager
def sloppy_s3() -> Iterator[S3Server]:
    with tempfile.TemporaryDirectory(prefix="vmferry-moto-") as folder:
        port = free_port()
        endpoint = f"http://127.0.0.1:{port}"
        command = [program("moto_server"), "-H", "127.0.0.1", "-p", str(port)]
        environment = {**os.environ, "TMPDIR": folder}
        with running(command, f"{endpoint}/moto-api/data.json", Path(folder) / "log", environment) as process:
            yield S3Server(endpoint, port, pid=process.pid)
