# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WebDAV servers: nginx over TLS with a bearer token, and rclone with a user and a password."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .nbd import certificates
from .ports import free_port
from .server_process import program, running

TOKEN = "this-token-must-never-show-up-anywhere"
USER, PASSWORD = "ferry", "this-password-must-never-show-up-either"

_NGINX = """\
load_module /usr/lib/nginx/modules/ngx_http_dav_ext_module.so;
daemon off;
worker_processes 1;
pid {state}/pid;
error_log {state}/log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {state}/body;
    proxy_temp_path {state}/proxy;
    fastcgi_temp_path {state}/fastcgi;
    uwsgi_temp_path {state}/uwsgi;
    scgi_temp_path {state}/scgi;
    dav_ext_lock_zone zone=locks:10m;
    map $http_authorization $known {{ default 0; "Bearer {token}" 1; }}
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {pki}/server-cert.pem;
        ssl_certificate_key {pki}/server-key.pem;
        ssl_client_certificate {pki}/ca-cert.pem;
        ssl_verify_client optional;
        client_max_body_size 0;
        root {data};
        location = /health {{ return 200; }}
        location /by-certificate/ {{
            if ($ssl_client_verify != SUCCESS) {{ return 403; }}
            {methods}
        }}
        location / {{
            if ($known = 0) {{ return 401; }}
            {methods}
        }}
    }}
}}
"""
_METHODS = (
    "dav_methods PUT DELETE MKCOL COPY MOVE; dav_ext_methods PROPFIND OPTIONS LOCK UNLOCK; dav_ext_lock zone=locks;"
)


@dataclass(frozen=True)
class DavServer:
    """`url`: of its root, which is the folder `data`; `port`: where it speaks without TLS."""

    url: str
    port: int
    data: Path
    settings: Mapping[str, Any]
    pki: Path = field(default=Path())


@contextmanager
def nginx_dav() -> Iterator[DavServer]:
    with tempfile.TemporaryDirectory(prefix="vmferry-nginx-") as folder:
        state, plain, tls = Path(folder), free_port(), free_port()
        for name in ("data", "data/by-certificate", "pki"):
            (state / name).mkdir()
        pki = certificates(state / "pki", "localhost")
        text = _NGINX.format(
            state=state, plain=plain, tls=tls, pki=pki, data=state / "data", token=TOKEN, methods=_METHODS
        )
        if os.geteuid() == 0:
            text = f"user root;\n{text}"
        (state / "nginx.conf").write_text(text)
        command = ["nginx", "-p", str(state), "-c", str(state / "nginx.conf"), "-e", str(state / "log")]
        with running(command, f"http://127.0.0.1:{plain}/health", state / "output"):
            settings = {"token": TOKEN, "ca_path": str(pki / "ca-cert.pem")}
            yield DavServer(f"https://localhost:{tls}", plain, state / "data", settings, pki)


@contextmanager
def rclone_dav() -> Iterator[DavServer]:
    with tempfile.TemporaryDirectory(prefix="vmferry-rclone-") as folder:
        state, port = Path(folder), free_port()
        (state / "data").mkdir()
        # The password by the environment: a command line is everybody's to read.
        environment = {**os.environ, "RCLONE_CONFIG": os.devnull, "RCLONE_USER": USER, "RCLONE_PASS": PASSWORD}
        command = [program("rclone"), "serve", "webdav", str(state / "data"), "--addr", f"127.0.0.1:{port}"]
        with running(command, f"tcp://127.0.0.1:{port}", state / "output", environment):
            settings = {"username": USER, "password": PASSWORD}
            yield DavServer(f"http://127.0.0.1:{port}", port, state / "data", settings)
