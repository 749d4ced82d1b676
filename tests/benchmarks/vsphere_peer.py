# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM's disks by a lease, one after the other, as people write it: `vsphere_peer.py CONNECTION_FILE VM FOLDER`.

It does what community.vmware's vmware_export_ovf and govc do, with VMware's own client: a thread tells the lease that
the transfer goes on, and the files are written as they come. Nothing is unpacked, compared or proved.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim

PIECE = 2 << 20  # bytes
RENEWED = 15.0  # seconds


def main(connection: str, vm: str, folder: str) -> None:
    asked = json.loads(Path(connection).read_text())
    tls = ssl.create_default_context(cafile=asked["ca_path"])
    login = {"host": asked["hostname"], "port": asked["port"], "user": asked["username"], "pwd": asked["password"]}
    instance = SmartConnect(**login, sslContext=tls)
    lease = _machine(instance.RetrieveContent(), vm).ExportVm()
    while lease.state == vim.HttpNfcLease.State.initializing:
        time.sleep(0.05)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, over))
    renewing.start()
    try:
        for number, file in enumerate(lease.info.deviceUrl):
            _download(file.url, Path(folder) / f"{number}-{file.targetId}", tls)
    finally:
        over.set()
        renewing.join()
    lease.HttpNfcLeaseComplete()
    Disconnect(instance)


def _machine(content: Any, vm: str) -> Any:
    view = content.viewManager.CreateContainerView(content.rootFolder, [vim.VirtualMachine], True)
    (found,) = [one for one in view.view if one.name == vm]
    return found


def _renew(lease: Any, over: threading.Event) -> None:
    while not over.wait(RENEWED):
        lease.HttpNfcLeaseProgress(50)


def _download(url: str, target: Path, tls: ssl.SSLContext) -> None:
    with urllib.request.urlopen(urllib.parse.quote(url, safe=":/"), context=tls) as response, target.open("wb") as file:
        while piece := response.read(PIECE):
            file.write(piece)


if __name__ == "__main__":
    main(*sys.argv[1:])
