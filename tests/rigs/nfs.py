# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real NFS 4.1 server (nfs-ganesha), and its export mounted for real, without the kernel's help. Needs root.

    with nfs_server(folder) as server:            # exports server.folder, which it makes in folder
        with nfs_mount(server, point) as mount:   # fuse.nfs at point
            ...

Version 4 needs neither rpcbind nor a port that others know.
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from . import fuse_mount
from .ports import free_port
from .server_process import START_TIMEOUT, STOP_TIMEOUT, end_with_parent, program

EXPORT, BELOW = "/exports", "/vms"
_CONFIGURATION = """
NFS_CORE_PARAM {{
  Protocols = 4; NFS_Port = {port}; Bind_addr = 127.0.0.1; mount_path_pseudo = true;
  Enable_UDP = false; Enable_NLM = false; Enable_RQUOTA = false;
  Plugins_Dir = "{plugins}";
}}
NFSv4 {{ Minor_Versions = 1; Graceless = true; RecoveryRoot = "{state}/recovery"; }}
EXPORT {{
  Export_Id = 1; Path = "{folder}"; Pseudo = {export}; Access_Type = {access}; Squash = No_Root_Squash; SecType = sys;
  Protocols = 4; FSAL {{ Name = VFS; }}
}}
LOG {{ Default_Log_Level = EVENT; }}
"""


@dataclass(frozen=True)
class NfsServer:
    folder: Path  # what is mounted, as it lies on the server
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def source(self) -> str:
        return f"127.0.0.1:{EXPORT}{BELOW}"


@contextmanager
def nfs_server(folder: Path, *, read_only: bool = False) -> Iterator[NfsServer]:
    """Exports a new folder in `folder`."""
    with tempfile.TemporaryDirectory(prefix="vmferry-ganesha-") as state:
        port, home, log = free_port(), Path(state), Path(state) / "log"
        (home / "recovery").mkdir()
        configuration = home / "ganesha.conf"
        plugins = next(Path("/usr/lib").glob("*/ganesha"))
        configuration.write_text(
            _CONFIGURATION.format(
                port=port,
                plugins=plugins,
                state=state,
                folder=folder,
                export=EXPORT,
                access="RO" if read_only else "RW",
            )
        )
        log.touch()
        process = subprocess.Popen(
            [program("ganesha.nfsd"), "-F", "-f", configuration, "-L", log, "-p", home / "pid"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=end_with_parent,
        )
        try:
            _wait_until_served(process, port, log)
            (folder / BELOW[1:]).mkdir()
            yield NfsServer(folder / BELOW[1:], port, process, log)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def nfs_mount(server: NfsServer, point: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    url = f"nfs://127.0.0.1{EXPORT}?nfsport={server.port}"
    log = server.log.with_name(f"{point.name}.log")
    return fuse_mount.mounted("rigs.nfs_bridge", [url, "4.1", BELOW, server.source], point, log)


def _wait_until_served(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        if "NFS SERVER INITIALIZED" in log.read_text(errors="replace"):
            with socket.create_connection(("127.0.0.1", port), 5):
                return
        time.sleep(0.05)
    raise RuntimeError(f"ganesha.nfsd did not become ready:\n{log.read_text(errors='replace')[-4000:]}")
