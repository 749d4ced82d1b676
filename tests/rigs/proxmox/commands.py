# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the commands of a node do: `pvesm`, `qm` and LVM's, as far as anybody here asks, and no argument more.

https://pve.proxmox.com/pve-docs/pvesm.1.html, https://pve.proxmox.com/pve-docs/qm.1.html
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from fakepve.agent import record, result
from fakepve.model import PveError, TaskError

from rigs.proxmox.node_pve import NodePve
from rigs.proxmox.volumes import VolumeError

FAILED, LVM_FAILED = 255, 5  # exit statuses


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PveError(FAILED, f"400 Parameter verification failed.\n{message}\nusage: {self.format_usage()}")


class Commands:
    def __init__(self, pve: NodePve) -> None:
        self._pve = pve
        self._broken: dict[str, str] = {}  # what the next of a command says, by its first words
        self.run_ones: list[list[str]] = []

    def break_next(self, words: str, message: str) -> None:
        self._broken[words] = message

    async def run(self, argv: Sequence[str]) -> tuple[int, str]:
        """Its exit status, and what it says."""
        self.run_ones.append(list(argv))
        for words, message in list(self._broken.items()):
            if " ".join(argv).startswith(words):
                del self._broken[words]
                return FAILED, message
        try:
            return 0, await self._meaning(argv)(argv)
        except (PveError, TaskError, VolumeError) as error:
            return LVM_FAILED if argv[0] == "lvchange" else FAILED, str(error)

    def _meaning(self, argv: Sequence[str]) -> Callable[[Sequence[str]], Any]:
        name = argv[0] if argv[0] == "lvchange" else "_".join(argv[:2])
        found: Any = getattr(self, f"_{name}", None)
        if found is None:
            raise PveError(FAILED, f"ERROR: unknown command '{' '.join(argv[:2])}': the rig has none, or nobody has")
        return found

    async def _pvesm_path(self, argv: Sequence[str]) -> str:
        parser = _Parser("pvesm path")
        parser.add_argument("volume")
        volume = parser.parse_args(argv[2:]).volume
        sid, _colon, name = volume.partition(":")
        if not name:
            raise PveError(FAILED, f"unable to parse volume ID '{volume}'\n")
        self._pve._parse_volname(self._pve._store(sid), name)
        return f"{self._pve.volumes.path(volume)}\n"

    async def _pvesm_alloc(self, argv: Sequence[str]) -> str:
        parser = _Parser("pvesm alloc")
        for name in ("storage", "vmid", "filename", "size"):
            parser.add_argument(name)
        parser.add_argument("--format", choices=("qcow2", "raw", "subvol", "vmdk"))
        told = vars(parser.parse_args(argv[2:]))
        told = {name: value for name, value in told.items() if value is not None}
        made = await self._pve._content_create({**told, "vmid": int(told["vmid"]), "node": self._pve.node}, "root@pam")
        self._pve.catch_up()
        return f"successfully created '{made}'\n"

    async def _pvesm_free(self, argv: Sequence[str]) -> str:
        parser = _Parser("pvesm free")
        parser.add_argument("volume")
        parser.add_argument("--delay", type=int)
        parser.add_argument("--storage")
        given = parser.parse_args(argv[2:])
        sid = given.volume.partition(":")[0]
        asked = {"storage": given.storage or sid, "volume": given.volume, "node": self._pve.node}
        upid = await self._pve._content_delete(asked, "root@pam")
        ended = self._pve.tasks[upid]["exitstatus"]
        if ended != "OK":
            raise PveError(FAILED, ended)
        return f"Removed volume '{given.volume}'\n"

    async def _pvesm_list(self, argv: Sequence[str]) -> str:
        parser = _Parser("pvesm list")
        parser.add_argument("storage")
        parser.add_argument("--content")
        parser.add_argument("--vmid", type=int)
        given = parser.parse_args(argv[2:])
        asked = {"storage": given.storage, "node": self._pve.node, "content": given.content, "vmid": given.vmid}
        found = await self._pve._content_list(asked, "root@pam")
        lines = ["Volid Format  Type      Size VMID"]
        lines += [
            " ".join(str(one.get(key, "")) for key in ("volid", "format", "content", "size", "vmid")) for one in found
        ]
        return "".join(f"{line}\n" for line in lines)

    async def _qm_status(self, argv: Sequence[str]) -> str:
        return f"status: {self._vm('qm status', argv).status}\n"

    async def _qm_config(self, argv: Sequence[str]) -> str:
        config = self._vm("qm config", argv).config
        return "".join(f"{key}: {config[key]}\n" for key in sorted(config))

    async def _qm_guest(self, argv: Sequence[str]) -> str:
        parser = _Parser("qm guest cmd")
        parser.add_argument("cmd", choices=("cmd",))
        parser.add_argument("vmid", type=int)
        parser.add_argument("command", choices=("fsfreeze-status", "fsfreeze-thaw", "ping"))
        given = parser.parse_args(argv[2:])
        vm = self._pve.find(self._pve.node, given.vmid)
        if vm.agent is None or vm.status != "running":
            raise PveError(255, "QEMU guest agent is not running\n")
        record(vm, given.command, {})
        told = result(vm, given.command, {})
        return "" if given.command == "ping" else f"{json.dumps(told['result'])}\n"

    async def _qm_unlock(self, argv: Sequence[str]) -> str:
        self._pve.unlock(self._vm("qm unlock", argv).vmid)
        return ""

    def _vm(self, command: str, argv: Sequence[str]) -> Any:
        parser = _Parser(command)
        parser.add_argument("vmid", type=int)
        return self._pve.find(self._pve.node, parser.parse_args(argv[2:]).vmid)

    async def _lvchange(self, argv: Sequence[str]) -> str:
        parser = _Parser("lvchange")
        parser.add_argument("-a", "--activate", choices=("y", "n", "ay", "ly", "ey"), required=True)
        parser.add_argument("-K", "--ignoreactivationskip", action="store_true")
        parser.add_argument("-q", "--quiet", action="count")
        parser.add_argument("volume", nargs="+")
        given = parser.parse_args(argv[1:])
        for path in given.volume:
            self._pve.volumes.activate(self._pve.volumes.by_path(path), given.activate != "n")
        return ""
