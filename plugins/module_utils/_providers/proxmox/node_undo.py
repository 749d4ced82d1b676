# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A program for a node: it owns what a job makes there, and undoes it when the job is over, however that ends.

It is sent whole to the node's own Python (3.9 or later, its standard library alone), so it imports nothing of ours. A
line of JSON comes in, a line of JSON goes out. When its input ends, or is silent for too long, whoever gave the orders
is dead: everything is undone that stands in `undo.json` of the job's folder, the last first. Each was written there
before it was done, so that another process can undo it where this one was killed:

    {"kind": "process", "pid": 1, "started": 2}     a server; `started` as in proc_pid_stat(5)
    {"kind": "volume", "volume": "local:…"}         of the storage
    {"kind": "active", "path": "/dev/…"}            a logical volume that was not active before
    {"kind": "frozen", "vmid": 100}                 the guest's file systems
    {"kind": "qemu", "vmid": 100, "prefix": "…", "socket": "…", "bitmaps": ["…"], "watch": ["…"]}
                                                    in the VM's QEMU: its NBD server if it is at that socket, exports,
                                                    jobs and nodes, and bitmaps by name; as soon as a folder has no room

QEMU takes one client at a time on that socket, and the node's own services need it too: it is held for single batches.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

RUN_FOLDER = Path("/run/vmferry")
QMP_SOCKET = "/var/run/qemu-server/{vmid}.qmp"  # PVE::QemuServer::Helpers::qmp_socket
QMP_TIMEOUT = 60.0  # seconds until QEMU has answered, or another client of the socket has gone
SILENCE = 300.0  # seconds without a word, as long as records take for a death
START_TIMEOUT = 60.0  # seconds: a qcow2 that was not closed is repaired first
STOP_TIMEOUT = 15.0
UNDO_TIMEOUT = 60.0  # seconds for everything of one kind to be gone
THAW_TIMEOUT = 30.0
POLL = 0.05
SAID = 2000  # bytes of what a server said last


_NO_QEMU = re.compile(r"VM \d+ (?:is )?not running")  # PVE::QemuServer::Agent, PVE::QemuServer::Monitor


class Refused(Exception):
    """`kind` as of errors: what could not be done, and why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Qmp:
    """One connection to the monitor of a running VM: https://www.qemu.org/docs/master/interop/qmp-spec.html."""

    def __init__(self, vmid: int) -> None:
        self._path = QMP_SOCKET.format(vmid=vmid)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(QMP_TIMEOUT)
        try:
            self._socket.connect(self._path)
            self._lines = self._socket.makefile("rb")
            self._read()
            self.call("qmp_capabilities", {})
        except OSError as error:
            self._socket.close()
            absent = isinstance(error, (FileNotFoundError, ConnectionRefusedError))
            raise Refused("not_found" if absent else "timeout", f"The monitor {self._path}: {error}") from error

    def call(self, command: str, arguments: Dict[str, Any]) -> Any:
        try:
            self._socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
            while True:
                answer = self._read()
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise Refused("qmp", f"{command}: {answer['error'].get('desc', '')}")
        except OSError as error:
            raise Refused("timeout", f"The monitor {self._path} on {command}: {error}") from error

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> Dict[str, Any]:
        line = self._lines.readline()
        if not line.endswith(b"\n"):  # also one that was cut off in the middle
            raise Refused("not_found", f"The monitor {self._path} was closed: the VM was switched off.")
        said: Dict[str, Any] = json.loads(line)
        return said


def qmp(vmid: int, commands: Sequence[Sequence[Any]]) -> List[Any]:
    monitor = Qmp(vmid)
    try:
        return [monitor.call(command, arguments) for command, arguments in commands]
    finally:
        monitor.close()


def started_of(pid: int) -> Optional[int]:
    """None where there is no such process, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def write_whole(path: Path, said: Any) -> None:
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(said, file)
    fresh.replace(path)


def read_whole(path: Path, otherwise: Any) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return otherwise


# What is undone


def undo(folder: Path) -> None:
    """Everything, the last first; what could not be undone stays written down, and the first reason is raised."""
    left: List[Dict[str, Any]] = read_whole(folder / "undo.json", [])
    failure = None
    for one in reversed(list(left)):
        if one.get("kind") == "volume" and any(other.get("kind") == "qemu" for other in left):
            continue  # QEMU, which was not rid of it, may write to it still
        try:
            undo_one(one)
        except (Refused, OSError, subprocess.SubprocessError, LookupError, TypeError, ValueError) as error:
            failure = failure or error
            continue
        left.remove(one)
        with suppress(OSError):  # a full /run: what is undone already is undone once more then, which does no harm
            write_whole(folder / "undo.json", left)
    if failure is not None:
        raise Refused("internal", str(failure))
    shutil.rmtree(folder, ignore_errors=True)


def undo_one(one: Dict[str, Any]) -> None:
    UNDO[one["kind"]](one)


def undo_process(one: Dict[str, Any]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_TIMEOUT
        while started_of(one["pid"]) == one["started"] and time.monotonic() < deadline:
            with suppress(ProcessLookupError):
                os.kill(one["pid"], number)
            with suppress(ChildProcessError):  # it is our child, or was that of another
                os.waitpid(one["pid"], os.WNOHANG)
            time.sleep(POLL)


def undo_volume(one: Dict[str, Any]) -> None:
    done = subprocess.run(  # pylint: disable=ansible-bad-function
        ["pvesm", "free", one["volume"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=UNDO_TIMEOUT,
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode and not is_gone(said):
        raise Refused("internal", f"pvesm free {one['volume']}: {said[-SAID:]}")


def is_gone(said: str) -> bool:
    """What `pvesm` says of a volume that is not there."""
    return "does not exist" in said or "no such" in said.lower()


def undo_active(one: Dict[str, Any]) -> None:
    """One that is in use stays as it is: its VM was started meanwhile."""
    subprocess.run(  # pylint: disable=ansible-bad-function
        ["lvchange", "-an", one["path"]],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=UNDO_TIMEOUT,
        check=False,
    )


def undo_frozen(one: Dict[str, Any]) -> None:
    """A guest that is off is not frozen either. An agent that does not answer may be freezing it just now: so Proxmox
    VE says `QEMU guest agent is not running`, which tells nothing of the guest (PVE::QemuServer::Agent)."""
    deadline = time.monotonic() + UNDO_TIMEOUT
    while Path(QMP_SOCKET.format(vmid=one["vmid"])).exists():
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                ["qm", "guest", "cmd", str(one["vmid"]), "fsfreeze-thaw"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=THAW_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            said = f"qm did not end within {THAW_TIMEOUT:.0f} s"
        else:
            said = done.stderr.decode("utf-8", "replace").strip()
            if not done.returncode or _NO_QEMU.search(said):
                return
        if time.monotonic() > deadline:
            raise Refused("internal", f"The guest of VM {one['vmid']} could not be thawed: {said[-SAID:]}")
        time.sleep(1)


def undo_qemu(one: Dict[str, Any]) -> None:
    """By the names, which are this attempt's alone. What is there goes in this order: nothing is in use then."""
    try:
        monitor = Qmp(one["vmid"])
    except Refused as error:
        if error.kind == "not_found":
            return
        raise
    try:
        if Path(one["socket"]).exists():
            with suppress(Refused):  # it is that of a QEMU before this one
                monitor.call("nbd-server-stop", {})
        _wait_for_exports(monitor, one["prefix"])
        for job in monitor.call("query-block-jobs", {}):
            if job["device"].startswith(one["prefix"]):
                monitor.call("job-cancel", {"id": job["device"]})
        _wait_for_jobs(monitor, one["prefix"])
        nodes = monitor.call("query-named-block-nodes", {"flat": True})
        for node in nodes:
            if node["node-name"].startswith(one["prefix"]):
                monitor.call("blockdev-del", {"node-name": node["node-name"]})
        for node in nodes:
            for bitmap in node.get("dirty-bitmaps", ()):
                if bitmap.get("name") in one["bitmaps"]:
                    monitor.call("block-dirty-bitmap-remove", {"node": node["node-name"], "name": bitmap["name"]})
    except Refused as error:
        if error.kind != "not_found":
            raise
    finally:
        monitor.close()


def _wait_for_exports(monitor: Qmp, prefix: str) -> None:
    """They go with the server, once what its clients had asked for is answered."""
    deadline = time.monotonic() + UNDO_TIMEOUT
    while True:
        mine = [one["id"] for one in monitor.call("query-block-exports", {}) if one["id"].startswith(prefix)]
        if not mine:
            return
        if time.monotonic() > deadline:
            raise Refused("timeout", f"QEMU still serves {', '.join(mine)}.")
        time.sleep(POLL)


def _wait_for_jobs(monitor: Qmp, prefix: str) -> None:
    deadline = time.monotonic() + UNDO_TIMEOUT
    while any(job["device"].startswith(prefix) for job in monitor.call("query-block-jobs", {})):
        if time.monotonic() > deadline:
            raise Refused("timeout", "The backup job in QEMU does not end.")
        time.sleep(POLL)


UNDO = {
    "process": undo_process,
    "volume": undo_volume,
    "active": undo_active,
    "frozen": undo_frozen,
    "qemu": undo_qemu,
}
