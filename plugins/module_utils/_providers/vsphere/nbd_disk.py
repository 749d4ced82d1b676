# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of a snapshot over NBD: by the user's own copy of VMware's VDDK, which nbdkit loads, or by any other server.

VDDK is proprietary, and nothing of it is here: https://libguestfs.org/nbdkit-vddk-plugin.1.html
"""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing, contextmanager
from typing import Iterator
from urllib.parse import parse_qs, quote, unquote, urlsplit

from ..._errors import VmferryError
from ..._nbd import nbdkit
from ..._nbd.protocol import DEFAULT_PORT
from ..._nbd.source import NbdSource
from ..._nbd.transport import Address
from ..spec import VmSpec
from .disk_servers import ANY_HOST, DiskServers
from .frozen_disks import FrozenDisk
from .settings import VsphereSettings

IDLE_LIMIT = 120.0  # seconds without a byte: VDDK opens the disk for each connection


@contextmanager
def nbd_disk(
    settings: VsphereSettings, servers: DiskServers, vm: VmSpec, snapshot: str, disk: FrozenDisk
) -> Iterator[NbdSource]:
    """`snapshot`: its MoRef. Raises what the server, or starting it, fails with, and `conflict` for another disk."""
    with ExitStack() as stack:
        if settings.nbd_uri:
            address, export = nbd_place(settings.nbd_uri, vm, snapshot, disk)
        else:
            told = _parameters(settings, servers, vm, snapshot, disk)
            what = f"{disk.name} of {vm.name}"
            server = stack.enter_context(nbdkit.serve("vddk", told, what, settings.password))
            address, export = server.address, server.export
        source = stack.enter_context(closing(NbdSource(address, export, idle_timeout=IDLE_LIMIT)))
        if source.size != disk.size:
            text = f"The {address} shows {source.size} bytes as {disk.name} of {vm.name}, which has {disk.size}."
            raise VmferryError("conflict", text, "Is it the disk of that snapshot?")
        yield source


def nbd_place(template: str, vm: VmSpec, snapshot: str, disk: FrozenDisk) -> tuple[Address, str]:
    """Of a URI as https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md has it, with its names filled in."""
    words = {"vm": vm.details["moref"], "snapshot": snapshot, "key": str(disk.key), "file": disk.file}
    uri = template
    for name, word in words.items():
        uri = uri.replace(f"{{{name}}}", quote(word, safe=""))
    parts = urlsplit(uri)
    export = unquote(parts.path[1:])
    if parts.scheme == "nbd+unix":
        return Address.unix(parse_qs(parts.query)["socket"][0]), export
    return Address.tcp(parts.hostname or "", parts.port or DEFAULT_PORT), export


def _parameters(
    settings: VsphereSettings, servers: DiskServers, vm: VmSpec, snapshot: str, disk: FrozenDisk
) -> list[str]:
    return [
        f"libdir={settings.vddk_libdir}",
        f"server={settings.hostname}",
        f"port={settings.port}",
        f"user={settings.username}",
        f"thumbprint={_thumbprint(servers)}",
        f"vm=moref={vm.details['moref']}",
        f"snapshot={snapshot}",
        f"file={disk.file}",
    ]


def _thumbprint(servers: DiskServers) -> str:
    """Of the certificate that the API's server has, which has been verified, as VDDK wants it: by SHA-1."""
    connection, _path = servers.connect(f"https://{ANY_HOST}/")
    with closing(connection):
        digest = hashlib.sha1(connection.sock.getpeercert(True) or b"", usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))
