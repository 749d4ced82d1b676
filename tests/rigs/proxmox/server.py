# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of Proxmox VE as a server of tests: its settings, its machines, and what tests do behind its back.

Its only node that is up is this machine, under its own name: by SSH on loopback, or without. Machines are numbered
from a thousand ids that no other rig has, since what they own in `/var/run/qemu-server` and `/run/vmferry` lies where
it does on a real node.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rigs.ports import free_ports
from rigs.proxmox.ids import COUNT, new_range
from rigs.server_process import running
from rigs.sshd import SshServer

RUN = Path("/run/vmferry")
ARCHIVERS = ("vzdump", "qmrestore")
COMMANDS = ("pvesm", "qm", "lvchange")
PASSWORD, TOKEN, TOKEN_SECRET = "root's own", "rig", "f1c7a9d2-0000-4000-8000-5d1e57a9c001"
# No Python: a task calls many, and each would take as long as all else of an export.
_COMMAND = """#!/bin/sh
for word; do set -- "$@" --data-urlencode "word=$word"; shift; done
told=$(curl -s --data-urlencode word={name} "$@" -w '\\n%{{http_code}}' {control}/command)
code=${{told##*
}}
told=${{told%
*}}
[ "$code" -ge 200 ] || {{ echo '{name}: the rig is gone' >&2; exit 255; }}
[ "$code" -eq 200 ] || exec >&2
[ -z "$told" ] || printf '%s\\n' "$told"
exit $((code - 200))
"""
_ARCHIVER = """#!/bin/sh
PYTHONPATH={tests} exec {python} -m rigs.proxmox.archives {control} {name} "$@"
"""


@dataclass(frozen=True)
class Leftovers:
    """What exists on the node and is nobody's but the project's."""

    folders: Sequence[str]  # of jobs, in /run/vmferry
    processes: Sequence[str]  # command lines of qemu-nbd
    bitmaps: Mapping[str, Sequence[str]]  # names by `vmid/block node`
    block_nodes: Sequence[str]  # `vmid/name`, in machines that run
    exports: Sequence[str]  # `vmid/id`, likewise
    jobs: Sequence[str]  # `vmid/id`, likewise
    volumes: Sequence[str]  # of no machine's configuration
    machines: Mapping[int, str]  # names of those that no test made

    def __bool__(self) -> bool:
        return any(vars(self).values())


def interpreter() -> str:
    """Of a Python that fakepve runs with: it needs a newer one than hosts may have."""
    newest = Path(__file__).resolve().parents[3] / ".venv/bin/python"
    return str(newest) if sys.version_info < (3, 10) and newest.exists() else sys.executable


class ProxmoxServer:
    def __init__(self, folder: Path | None = None, *, release: int = 9) -> None:
        """`folder`: with a short path, since unix sockets lie below it. `release`: 8 or 9, which name disks' block
        nodes in ways of their own.
        """
        self._given, self._release = folder, release
        self.node = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().partition(".")[0]).strip("-") or "pve1"
        self.first_vmid = new_range()
        self._made: set[int] = set()
        self._stack = ExitStack()

    def __enter__(self) -> ProxmoxServer:
        with ExitStack() as stack:
            if self._given is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-pve-", dir="/tmp")))
            else:
                folder = self._given
            self._folder = folder
            self.api_port, control = free_ports(2)
            self._control = f"http://127.0.0.1:{control}"
            self.certificate = folder / "pve.crt"
            self.commands_folder = folder / "bin"
            self._write_commands()
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
            words = (folder, self.api_port, control, self.node, self._release, self.first_vmid, PASSWORD)
            command = [interpreter(), "-m", "rigs.proxmox.app", *map(str, words)]
            self.process = stack.enter_context(running(command, f"{self._control}/ready", folder / "log", environment))
            self.token = f"root@pam!{TOKEN}"
            self._ask("grant", {}, user=self.token, secret=TOKEN_SECRET)
            ssh = folder / "ssh"
            ssh.mkdir()
            self.ssh = SshServer(ssh, variables={"PATH": self.path})
            self.ssh.start()
            stack.callback(self.ssh.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    # --- what a client needs ------------------------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """Of programs on the node, with the commands of Proxmox VE."""
        return f"{self.commands_folder}:/usr/sbin:/usr/bin:/sbin:/bin"

    def settings(self, transport: str = "ssh", *, token: bool = True) -> dict[str, Any]:
        """Those of the provider that reach it, by root's token or password; see also `on_the_node`."""
        known: dict[str, Any] = {
            "api_host": "127.0.0.1",
            "api_port": self.api_port,
            "api_user": "root@pam",
            "ca_path": str(self.certificate),
            "transport": transport,
        }
        known.update({"api_token_id": TOKEN, "api_token_secret": TOKEN_SECRET} if token else {"api_password": PASSWORD})
        if transport in ("auto", "ssh"):
            known.update(
                host_map={self.node: "127.0.0.1"},
                ssh_port=self.ssh.port,
                ssh_private_key_file=str(self.ssh.private_key),
                ssh_known_hosts=str(self.ssh.known_hosts),
            )
        return known

    def settings_of(self, user: str, privileges: Mapping[str, Sequence[str]], **words: Any) -> dict[str, Any]:
        """A user ("backup@pve") who has these privileges by path, and no other."""
        secret = f"secret of {user}"
        self._ask("grant", {path: list(one) for path, one in privileges.items()}, user=user, secret=secret)
        return {**self.settings(**words, token=False), "api_user": user, "api_password": secret}

    @contextmanager
    def on_the_node(self) -> Iterator[None]:
        """This process finds the commands of Proxmox VE, as one on the node does."""
        before = os.environ.get("PATH", "")
        os.environ["PATH"] = f"{self.commands_folder}:{before}"
        try:
            yield
        finally:
            os.environ["PATH"] = before

    # --- machines -----------------------------------------------------------------------------------------------------

    def make_vm(
        self,
        name: str,
        disks: Sequence[bytes | Path] = (b"",),
        running: bool = False,
        storage: str = "local",
        format: str = "raw",
        *,
        keys: Sequence[str] = (),
        sizes: Sequence[int] = (),
        node: str = "",
        **config: Any,
    ) -> int:
        """Its vmid. `storage`: `local` and `other` (folders, `format` raw or qcow2), `block` (LVM), `thin` (LVM-thin).

        Disks are scsi0 and on, if `keys` say nothing else (`virtio0`, `efidisk0`). `sizes`: bytes, else what the data
        has, in whole KiB; block storages give whole 4 MiB. `config`: what else the configuration has.
        """
        with self._images(disks, sizes) as images:
            given = {"name": name, "running": running, "storage": storage, "format": format, "node": node}
            made = int(self._ask("make_vm", {**given, "disks": images, "keys": list(keys), "config": config}))
        self._made.add(made)
        return made

    def add_disk(self, vmid: int, disk: bytes | Path, key: str, storage: str = "local", format: str = "raw") -> None:
        with self._images([disk], ()) as images:
            self._ask("add_disk_to", {"key": key, "disk": images[0], "storage": storage, "format": format}, vmid=vmid)

    def remove_disk(self, vmid: int, disk: int | str) -> None:
        self._ask("remove_disk", vmid=vmid, key=self._key(vmid, disk))

    def grow(self, vmid: int, disk: int | str, size: int) -> None:
        self._ask("grow", vmid=vmid, key=self._key(vmid, disk), size=size)

    def set(self, vmid: int, **config: Any) -> None:
        """Of the configuration; None takes away. `lock`: as something else holds it."""
        self._ask("set", config, vmid=vmid)

    def agent(self, vmid: int, state: str = "on") -> None:
        """Whether it answers in the guest: on, off, hangs."""
        self._ask("agent", vmid=vmid, state=state)

    def agent_asked(self, vmid: int) -> Any:
        """`requests`: command and parameters; `frozen`: whether the guest's file systems are."""
        return self._ask("agent_asked", vmid=vmid)

    def obeys(self, vmid: int, obeys: bool) -> None:
        """Whether the guest shuts down when it is asked to, which it does at first."""
        self._ask("obeys", vmid=vmid, obeys=obeys)

    def power(self, vmid: int, state: str) -> None:
        """on, off, or crash: QEMU dies, with all that it has in memory."""
        self._ask("power", vmid=vmid, state=state)

    def remove_vm(self, vmid: int) -> None:
        """With its disks and snapshots."""
        self._ask("remove_vm", vmid=vmid)
        self._made.discard(vmid)

    def clear(self) -> None:
        """No machine is there any more, and no volume."""
        self._ask("clear")
        self._made.clear()

    def vms(self) -> dict[int, dict[str, Any]]:
        """All that there are: `name`, `node`, `status`, `lock`, `config`, `snapshots`, `pool`."""
        return {int(vmid): told for vmid, told in self._ask("vms").items()}

    # --- disks --------------------------------------------------------------------------------------------------------

    def write(self, vmid: int, disk: int | str, offset: int, data: bytes) -> None:
        """As the guest does: through QEMU when it runs. Raises `BlockingIOError` where the disk is locked."""
        self._written("write", data, vmid=vmid, key=self._key(vmid, disk), offset=offset)

    def zero(self, vmid: int, disk: int | str, offset: int, length: int) -> None:
        self._written("zero", b"", vmid=vmid, key=self._key(vmid, disk), offset=offset, length=length)

    def discard(self, vmid: int, disk: int | str, offset: int, length: int) -> None:
        self._written("discard", b"", vmid=vmid, key=self._key(vmid, disk), offset=offset, length=length)

    def disk_bytes(self, vmid: int, disk: int | str) -> bytes:
        """What the guest would read now, by QEMU's own tools."""
        return self.disk_data(vmid, disk).ljust(int(self._ask("size", vmid=vmid, key=self._key(vmid, disk))), b"\0")

    def disk_data(self, vmid: int, disk: int | str) -> bytes:
        """The same, up to where nothing but zeros follows and nothing was written."""
        return self._open("bytes", b"", vmid=vmid, key=self._key(vmid, disk))

    def keys(self, vmid: int) -> list[str]:
        """Of its disks (scsi0), which are numbered in this order. The firmware's has no number."""
        found: list[str] = self._ask("keys", vmid=vmid)
        return found

    def volumes(self) -> dict[str, tuple[Path, bool]]:
        """By volume: its path, and whether it is active, which those of LVM are not while their machine is off."""
        return {volid: (Path(path), active) for volid, (path, active) in self._ask("volumes").items()}

    def bitmaps(self, vmid: int) -> dict[str, list[str]]:
        """By block node of a machine that runs."""
        found: dict[str, list[str]] = self._ask("bitmaps", vmid=vmid)
        return found

    def forget_bitmaps(self, vmid: int) -> None:
        self._ask("forget_bitmaps", vmid=vmid)

    def qmp(self, vmid: int, command: str, **arguments: Any) -> Any:
        """Of a machine that runs, at a monitor of the rig's own."""
        return self._ask("qmp", {"execute": command, **arguments}, vmid=vmid)

    # --- what goes wrong ----------------------------------------------------------------------------------------------

    def fault(self, method: str, path: str, kind: str, **words: Any) -> None:
        """The next calls of it (`path` as in the schema: /nodes/{node}/qemu) meet this; see `faults.py`."""
        self._ask("fault", {"method": method, "path": path, "kind": kind, **words})

    def break_command(self, words: str, message: str) -> None:
        """The next command that begins with these words ("pvesm path") fails, and says that."""
        self._ask("break_command", words=words, message=message)

    def heal(self) -> None:
        """No fault is waiting any more."""
        self._ask("heal")

    def change(self, **settings: Any) -> None:
        """`time_scale` (0: tasks have ended when they are told), `quorate`, `storages`: options by name, `nodes`: by
        name, whether they are up.
        """
        self._ask("change", settings)

    # --- what happened ------------------------------------------------------------------------------------------------

    def calls(self) -> list[dict[str, Any]]:
        """In order: `method`, `path` (a template), `user`, `rule` (the schema's, of permissions), `asked` (paths and
        privileges that the code behind it checks), `wrong` (parameters that the schema refuses).
        """
        found: list[dict[str, Any]] = self._ask("calls")
        return found

    def forget_calls(self) -> None:
        self._ask("forget_calls")

    def wrong_calls(self) -> list[str]:
        """Sentences on calls that Proxmox VE would not take as they were made."""
        return [f"{one['method']} {one['path']}: {one['wrong']}" for one in self.calls() if one["wrong"]]

    def commands_run(self) -> list[list[str]]:
        """On the node: pvesm, qm, lvchange."""
        found: list[list[str]] = self._ask("commands_run")
        return found

    def leftovers(self) -> Leftovers:
        """Without what tests made."""
        machines = self.vms()
        running = [vmid for vmid, told in machines.items() if told["status"] == "running" and self._is_here(told)]
        used = {str(value).partition(",")[0] for told in machines.values() for value in told["config"].values()}
        nodes = {vmid: self.qmp(vmid, "query-named-block-nodes") for vmid in running}
        return Leftovers(
            folders=self.job_folders(),
            processes=sorted(self._processes()),
            bitmaps={f"{vmid}/{node}": names for vmid in running for node, names in self.bitmaps(vmid).items()},
            block_nodes=[
                f"{vmid}/{one['node-name']}" for vmid in running for one in nodes[vmid] if "vmferry" in one["node-name"]
            ],
            exports=[f"{vmid}/{one['id']}" for vmid in running for one in self.qmp(vmid, "query-block-exports")],
            jobs=[f"{vmid}/{one['id']}" for vmid in running for one in self.qmp(vmid, "query-jobs")],
            volumes=[volid for volid in self.volumes() if volid not in used],
            machines={vmid: told["name"] for vmid, told in machines.items() if vmid not in self._made},
        )

    def job_folders(self) -> list[str]:
        """In /run/vmferry, of jobs that have to do with this rig."""
        return sorted(str(folder) for folder in RUN.glob("*") if self._is_mine(folder))

    def _is_here(self, told: Mapping[str, Any]) -> bool:
        return bool(told["node"] == self.node)

    def _is_mine(self, folder: Path) -> bool:
        """Of a job that has to do with a volume or a machine of this rig; others may run beside it."""
        told = os.fsencode(folder.name) + b"".join(_bytes_of(file) for file in folder.rglob("*"))
        numbers = {int(number) for number in re.findall(rb"\d{9}", told)}
        mine = any(0 <= number - self.first_vmid < COUNT for number in numbers)
        return mine or os.fsencode(self._folder) in told

    def _processes(self) -> Iterator[str]:
        paths = [os.fsencode(path) for path, _active in self.volumes().values()]
        for process in Path("/proc").glob("[0-9]*"):
            line = _bytes_of(process / "cmdline")
            if b"qemu-nbd" in line.partition(b"\0")[0] and any(path in line for path in paths):
                yield line.replace(b"\0", b" ").decode(errors="replace").strip()

    def _write_commands(self) -> None:
        self.commands_folder.mkdir()
        for name in COMMANDS:
            program = self.commands_folder / name
            program.write_text(_COMMAND.format(name=name, control=self._control))
            program.chmod(0o755)
        tests = Path(__file__).resolve().parents[2]
        for name in ARCHIVERS:
            program = self.commands_folder / name
            program.write_text(_ARCHIVER.format(python=interpreter(), name=name, control=self._control, tests=tests))
            program.chmod(0o755)

    @contextmanager
    def _images(self, disks: Sequence[bytes | Path], sizes: Sequence[int]) -> Iterator[list[dict[str, Any]]]:
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            told = []
            for number, disk in enumerate(disks):
                path = disk
                if not isinstance(path, Path):
                    path = Path(scratch) / str(number)
                    path.write_bytes(disk)  # type: ignore[arg-type]
                length = sizes[number] if sizes else path.stat().st_size
                whole = max(1, -(-length // 1024)) * 1024
                if path.stat().st_size < whole and path.parent == Path(scratch):
                    os.truncate(path, whole)
                told.append({"image": str(path.resolve()), "size": whole})
            yield told

    def _key(self, vmid: int, disk: int | str) -> str:
        return disk if isinstance(disk, str) else self.keys(vmid)[disk]

    def _written(self, what: str, data: bytes, **words: object) -> None:
        if not json.loads(self._open(what, data, **words)):
            raise BlockingIOError(f"{words['key']} of {words['vmid']} is locked")

    def _ask(self, what: str, body: Mapping[str, Any] | None = None, **words: object) -> Any:
        return json.loads(self._open(what, b"" if body is None else json.dumps(body).encode(), **words))

    def _open(self, what: str, body: bytes, **words: object) -> bytes:
        url = f"{self._control}/{what}?{urllib.parse.urlencode(words)}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=body, method="POST")) as response:
                found: bytes = response.read()
        except urllib.error.HTTPError as problem:
            raise RuntimeError(f"{what}: {problem.read().decode(errors='replace').strip()}") from problem
        return found


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes() if file.is_file() else os.fsencode(file.name)
    except OSError:  # it went meanwhile
        return b""
