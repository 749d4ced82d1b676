# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider `proxmox`, on a node that is this machine: reached by SSH where a test has VMs that run, and else as one
who is on it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec
from rigs.ports import free_port
from rigs.proxmox import ProxmoxServer

from .base import Abilities, Broken, Driver, Fate, Power

PATIENCE = 120.0  # seconds until what outlives a run that died has ended; it takes none on a quiet machine


class ProxmoxDriver(Driver):
    name = "proxmox"
    sources = "plugins/module_utils/_providers/proxmox"
    abilities = Abilities(
        live=True, powered_off=True, tracking=True, snapshots=True, imports=True, power=True, removal=True
    )
    tracked = frozenset({"on"})
    remembers = False
    failpoints: ClassVar[Mapping[str, Mapping[str, Fate]]] = {
        "on": {"fleece_prepared": "undone", "backup_begun": "undone"},
        "off": {"disks_served": "undone"},
        "import": {
            "import_made": "undone",
            "import_opened": "undone",
            "import_written": "undone",
            "import_settled": "whole",
        },
    }
    locks = True
    holds = False
    transports: ClassVar[Mapping[Power, str]] = {"on": "ssh", "off": "node"}

    def __init__(self, server: ProxmoxServer) -> None:
        self._server, self._stack = server, ExitStack()
        self._stack.enter_context(server.on_the_node())
        self._transport = "ssh"
        self._prefix = f"contract-{secrets.token_hex(4)}"
        self._made: dict[str, int] = {}  # ids by name

    @classmethod
    def started(cls, fixture: Callable[[str], Any], folder: Path) -> ProxmoxDriver:
        return cls(fixture("proxmox_server"))

    def close(self) -> None:
        self._server.clear()
        self._stack.close()
        assert not self._server.wrong_calls(), "Proxmox VE would not take them"
        self._server.forget_calls()

    @property
    def spec(self) -> ProviderSpec:
        return ProviderSpec("proxmox", self._server.settings(self._transport))

    @property
    def broken(self) -> Broken:
        return Broken(
            ProviderSpec("proxmox", {**self._server.settings(self._transport), "api_port": free_port()}), "network"
        )

    def with_secrets(self, fixture: Callable[[str], Any], data: bytes) -> tuple[str, ProviderSpec, Sequence[str]]:
        return self.make_vm(data), self.spec, [self._server.settings()["api_token_secret"]]

    def make_vm(self, *disks: bytes, power: Power = "off") -> str:
        self._transport = self.transports[power]
        name = f"{self._prefix}-{len(self._made)}"
        made = self._server.make_vm(name, disks, power == "on", format="qcow2", cores=1)
        self._server.obeys(made, False)
        self._made[name] = made
        return name

    def power(self, vm: str, power: Power) -> None:
        self._server.power(self._id(vm), power)

    def is_on(self, vm: str) -> bool:
        return bool(self._server.vms()[self._id(vm)]["status"] == "running")

    def write(self, vm: str, disk: int, offset: int, data: bytes) -> None:
        self._server.write(self._id(vm), disk, offset, data)

    def zero(self, vm: str, disk: int, offset: int, length: int) -> None:
        self._server.zero(self._id(vm), disk, offset, length)

    def discard(self, vm: str, disk: int, offset: int, length: int) -> None:
        self._server.discard(self._id(vm), disk, offset, length)

    def read(self, vm: str, disk: int) -> bytes:
        return self._server.disk_data(self._id(vm), disk)

    def add_disk(self, vm: str, data: bytes) -> None:
        vmid = self._id(vm)
        self._server.add_disk(vmid, data, f"scsi{len(self._server.keys(vmid))}", format="qcow2")

    def remove_disk(self, vm: str) -> None:
        vmid = self._id(vm)
        self._server.remove_disk(vmid, self._server.keys(vmid)[-1])

    def grow(self, vm: str, disk: int, size: int) -> None:
        self._server.grow(self._id(vm), disk, size)

    def lose_tracking(self, vm: str) -> None:
        self._server.forget_bitmaps(self._id(vm))

    def died(self) -> None:
        """On the node lives on, for a moment, what undoes all that was made there."""
        deadline = time.monotonic() + PATIENCE
        while self._server.job_folders():
            assert time.monotonic() < deadline, self._server.leftovers()
            time.sleep(0.02)

    def leftovers(self, vm: str, tokens: Set[str]) -> Iterator[str]:
        left = self._server.leftovers()
        for kind in ("folders", "processes", "block_nodes", "exports", "jobs", "volumes"):
            for one in getattr(left, kind):
                yield f"of {kind}: {one}"
        for node, names in left.bitmaps.items():
            for name in names:
                if name not in tokens and node.startswith(f"{self._id(vm)}/"):
                    yield f"the bitmap {name} is on {node}"

    @property
    def placement(self) -> Mapping[str, Any]:
        return {"storage": "other"}

    @property
    def network(self) -> str:
        return "vmbr0"

    @property
    def wrong_placements(self) -> Sequence[tuple[Mapping[str, Any], Kind, str]]:
        return (
            ({"storage": "nowhere"}, "not_found", "nowhere"),
            ({"vmid": next(iter(self._server.vms()))}, "conflict", "taken"),
            ({"folder": "Nowhere"}, "unsupported", "folder"),
        )

    def left_of_imports(self) -> Iterator[str]:
        left = self._server.leftovers()
        for vmid, name in left.machines.items():
            yield f"{name} is there: {vmid}"
        for volume in left.volumes:
            yield f"{volume} is there"

    def remove_vm(self, vm: str) -> None:
        self._server.remove_vm(self._id(vm))

    def _id(self, vm: str) -> int:
        if vm in self._made:
            return self._made[vm]
        (found,) = [vmid for vmid, told in self._server.vms().items() if told["name"] == vm]
        return found


class OtherWayRound(ProxmoxDriver):
    transports: ClassVar[Mapping[Power, str]] = {"on": "node", "off": "ssh"}
