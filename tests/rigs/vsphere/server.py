# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulator as a server of a test module: its addresses, its machines, and what the test does behind its back."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigs.ports import free_port
from rigs.server_process import running
from rigs.vsphere.build import simulator
from rigs.vsphere.certificates import Authority
from rigs.vsphere.found import Call, Leftovers, leftovers

USER = "administrator@vsphere.local"
PIECE = 1 << 20  # bytes that are read at once
STEP = 1024  # bytes: the API counts the capacity of disks in kilobytes
# pyVmomi trusts anyone on 127.0.0.1, ::1 and localhost, whatever it was told: only here can it be tested.
ADDRESS, DISK_ADDRESS = "127.0.0.2", "127.0.0.3"


@dataclass(frozen=True)
class Disk:
    """`data` from the beginning on; zeros follow up to `size` (bytes, 0: as much as there is data)."""

    data: bytes | Path = b""
    size: int = 0
    mode: str = ""  # "", persistent, independent_persistent
    thin: bool = True
    datastore: str = ""  # "": the machine's
    controller: str = ""  # "": the machine's


class VSphere:
    """A vCenter (or an ESXi host: `esxi`) with the inventory of `names`, and without machines.

    `disks_elsewhere`: leases name another server, at another address and with another certificate, as of a host.
    `trusted_disks`: that certificate is issued by the same CA; else nobody vouches for it but the thumbprint in the
    lease.
    """

    def __init__(self, *, esxi: bool = False, disks_elsewhere: bool = False, trusted_disks: bool = True) -> None:
        self.esxi = esxi
        self.user = "root" if esxi else USER
        self.password = secrets.token_urlsafe(12)
        self.host = ADDRESS
        self._disks_elsewhere = disks_elsewhere
        self._trusted_disks = trusted_disks
        self._stack = ExitStack()

    def __enter__(self) -> VSphere:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-vsphere-")))
            self._folder = folder
            authority = Authority(folder)
            mine = authority.issue("api", ADDRESS, "127.0.0.1", "localhost", "vcenter.test")
            self.certificate = authority.path  # of the CA: what a client shall trust
            self.server_certificate = mine.path
            self.thumbprint = mine.sha256
            self.port, control = free_port(), free_port()
            command = [str(simulator()), f"-listen={ADDRESS}:{self.port}", f"-control=127.0.0.1:{control}"]
            command += [f"-cert={mine.path}", f"-key={mine.key}", f"-user={self.user}"]
            if self.esxi:
                command.append("-esxi")
            if self._disks_elsewhere:
                command += self._second_server(folder, authority)
            environment = {**os.environ, "TMPDIR": str(folder), "VMFERRY_RIG_PASSWORD": self.password}
            self._control = f"http://127.0.0.1:{control}"
            self.process = stack.enter_context(running(command, f"{self._control}/ready", folder / "log", environment))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def _second_server(self, folder: Path, authority: Authority) -> list[str]:
        if not self._trusted_disks:
            (folder / "other").mkdir()
            authority = Authority(folder / "other", "another CA")
        theirs = authority.issue("disks", DISK_ADDRESS, "esx1.test")
        self.disk_thumbprint = theirs.sha256
        self.disk_port = free_port()
        return [f"-nfc={DISK_ADDRESS}:{self.disk_port}", f"-nfc-cert={theirs.path}", f"-nfc-key={theirs.key}"]

    # --- what a client needs ------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"

    def connection(self) -> dict[str, Any]:
        """As keyword arguments of pyVmomi's SmartConnect, but for the TLS context."""
        return {"host": self.host, "port": self.port, "user": self.user, "pwd": self.password}

    def names(self) -> dict[str, list[str]]:
        """Of the inventory, by the type of the API: Datacenter, Datastore, HostSystem, Network …"""
        answer: dict[str, Any] = self._ask("/ready")
        return {kind: sorted(names) for kind, names in answer.items() if isinstance(names, list)}

    # --- machines -----------------------------------------------------------------------------------------------------

    def make_vm(
        self,
        name: str,
        disks: Sequence[bytes | Path | Disk] = (),
        *,
        running: bool = False,
        tracking: bool = False,
        folder: str = "",
        host: str = "",
        datastore: str = "LocalDS_0",
        controller: str = "pvscsi",
        networks: Sequence[str] = ("VM Network",),
        adapter: str = "vmxnet3",
        version: str = "vmx-19",
        firmware: str = "bios",
        secure_boot: bool = False,
        nvram: bytes = b"",
        tpm: bool = False,
        encrypted: bool = False,
        template: bool = False,
        cpus: int = 1,
        memory: int = 64,
        guest_id: str = "otherGuest64",
        annotation: str = "",
        uuid: str = "",
    ) -> str:
        """The value of its reference ("vm-57"). `tracking`: of changes, switched on and in effect; `memory`: MiB."""
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            seeded = [self._seed_disk(_as_disk(each), Path(scratch) / str(i)) for i, each in enumerate(disks)]
            variables = Path(scratch) / "nvram"
            variables.write_bytes(nvram)
            answer = self._ask(
                "/machine",
                {
                    "name": name,
                    "disks": seeded,
                    "running": running,
                    "tracking": tracking,
                    "folder": folder,
                    "host": host,
                    "datastore": datastore,
                    "controller": controller,
                    "networks": list(networks),
                    "adapter": adapter,
                    "version": version,
                    "firmware": firmware,
                    "secure_boot": secure_boot,
                    "nvram": str(variables) if nvram else "",
                    "tpm": tpm,
                    "encrypted": encrypted,
                    "template": template,
                    "cpus": cpus,
                    "memory": memory,
                    "guest_id": guest_id,
                    "annotation": annotation,
                    "uuid": uuid,
                },
            )
        return str(answer["id"])

    @staticmethod
    def _seed_disk(disk: Disk, scratch: Path) -> dict[str, Any]:
        if isinstance(disk.data, Path):
            path = disk.data
        else:
            path = scratch
            path.write_bytes(disk.data)
        stored = path.stat().st_size
        size = -(-max(disk.size, stored) // STEP) * STEP
        if stored < size:
            if path is not scratch:
                scratch.write_bytes(path.read_bytes())
                path = scratch
            os.truncate(path, size)
        return {
            "path": str(path),
            "size": size,
            "mode": disk.mode,
            "thin": disk.thin,
            "datastore": disk.datastore,
            "controller": disk.controller,
        }

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        """As the guest does: `vm` by name or reference, `disk` by its place among the machine's."""
        self._ask(f"/write?{_query(vm=vm, disk=disk, offset=offset)}", data)

    def disk_bytes(self, vm: str, disk: int = 0) -> bytes:
        """All that the guest sees now."""
        with urllib.request.urlopen(f"{self._control}/disk?{_query(vm=vm, disk=disk)}") as response:
            found: bytes = response.read()
        return found

    def disk_data(self, vm: str, disk: int = 0) -> bytes:
        """The same up to its zeros at the end, of which a disk of many GiB may have as many."""
        found, zeros = bytearray(), 0
        with urllib.request.urlopen(f"{self._control}/disk?{_query(vm=vm, disk=disk)}") as response:
            while piece := response.read(PIECE):
                if piece.count(0) == len(piece):
                    zeros += len(piece)
                    continue
                found += bytes(zeros) + piece
                zeros = 0
        return bytes(found)

    def change_datastore(self, name: str, *, type: str = "VMFS", free: int = 10 << 40) -> None:
        """`type`: VMFS, NFS, vsan, VVOL (the latter two have no flat files); `free`: bytes."""
        self._ask("/datastore", {"name": name, "type": type, "free": free})

    def reset_tracking(self, vm: str) -> None:
        """What was known of changes is lost: identifiers told before mean nothing from now on."""
        self._ask(f"/reset?{_query(vm=vm)}")

    def need_consolidation(self, vm: str) -> None:
        self._ask(f"/consolidation?{_query(vm=vm)}")

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def settings(self, **changes: Any) -> None:
        """See `settings` in simulator/site.go: lease_timeout, star_hosts, page, locked_flats, calls_per_session …"""
        self._ask("/settings", changes)

    def fault(
        self,
        on: str,
        action: str,
        *,
        match: str = "",
        skip: int = 0,
        times: int = 1,
        fault: str = "",
        missing: str = "",
        seconds: float = 0,
        status: int = 0,
        bytes: int = 0,
        rate: int = 0,
    ) -> None:
        """The next calls `on` a method ("CreateSnapshot_Task") or an address ("GET /nfc/") meet it.

        `action`: fault, task (both with `fault`, a type of the API, and `missing`, the privilege of a NoPermission),
        hang, delay (`seconds`), status, ignore, drop, lose_answer, unconsolidated; of streams truncate (after `bytes`)
        and slow (`rate`, bytes a second).
        `match`: what the reference or the path contains; `skip` calls go well before; `times`: -1 is until `heal`.
        """
        given = {"match": match, "skip": skip, "times": times, "fault": fault, "missing": missing}
        given.update({"seconds": seconds, "status": status, "bytes": bytes, "rate": rate})
        self._ask("/fault", {"on": on, "action": action, **given})

    def heal(self) -> None:
        """No fault is waiting any more."""
        self._ask("/heal")

    def restart(self) -> None:
        """What clients see of a vCenter that starts again: no session, no lease, no running task is left."""
        self._ask("/restart")

    def lapse(self) -> None:
        """The leases end that nobody has completed or aborted, as if five minutes had gone by since the last word."""
        self._ask("/lapse")

    def expire_sessions(self) -> None:
        """All of them, as if nobody had called for half an hour."""
        self._ask("/expire")

    # --- what happened ------------------------------------------------------------------------------------------------

    def calls(self, method: str = "") -> list[Call]:
        """In order; of one method, if it is named."""
        made = [Call(**each) for each in self._ask("/calls")]
        return [each for each in made if method in ("", each.method)]

    def forget_calls(self) -> None:
        self._ask("/forget")

    def leftovers(self) -> Leftovers:
        return leftovers(self._ask("/leftovers"))

    def leases(self) -> dict[str, str]:
        """How each lease ever given ended: open, completed, aborted, expired, or failed with a reason."""
        ended: dict[str, str] = self._ask("/leftovers")["leases_overall"]
        return ended

    def progress(self) -> dict[str, list[int]]:
        """The percentages that clients told, by lease."""
        told: dict[str, list[int]] = self._ask("/leftovers")["lease_progress"]
        return told

    def _ask(self, path: str, body: Mapping[str, Any] | bytes | None = None) -> Any:
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        request = urllib.request.Request(self._control + path, data=data, method="POST")
        try:
            with urllib.request.urlopen(request) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as problem:
            raise RuntimeError(f"{path}: {problem.read().decode(errors='replace').strip()}") from problem


def _as_disk(given: bytes | Path | Disk) -> Disk:
    return given if isinstance(given, Disk) else Disk(given)


def _query(**words: object) -> str:
    return urllib.parse.urlencode(words)
