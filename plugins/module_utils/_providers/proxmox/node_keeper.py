# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that runs on a node while a job works there: it takes orders, and undoes all when they end.

One order a line, `{"do": "…", …}`; one answer a line, `{"done": …}` or `{"kind": "…", "error": "…"}`:

    open    folder, owner            the job's folder below RUN_FOLDER, which says whose it is
    will    undo                     to be undone from now on (see `node_undo`); answers under which number
    change  number, undo             in the place of that; null: there is nothing left to undo of it
    serve   argv, name               a server of NBD at the socket of that name in the folder; answers its number
    lock    path                     of an image that nobody may write to as long as the program runs
    stop    number, patience         end that server, cleanly
    qmp     vmid, commands           a batch for the monitor of a VM
    list                             all jobs' folders: whose, and whether their keeper lives
    undo    folder                   of another job, whose keeper is dead
    end     folder                   of another job, whose keeper lives: have it undo all
    stopped                         numbers of what was undone already, since what it watches ran low
    ping
    finish                           undo all that is left, and say how that went; then the program ends
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional

from ..qemu_lock import lock
from .node_undo import (
    POLL,
    RUN_FOLDER,
    SAID,
    SILENCE,
    START_TIMEOUT,
    UNDO_TIMEOUT,
    Refused,
    qmp,
    read_whole,
    started_of,
    undo,
    undo_one,
    write_whole,
)

LOOK = 1.0  # seconds between two looks at what a guest fills
MIB = 1 << 20
SMALLEST_RESERVE, LARGEST_RESERVE = 64 * MIB, 1024 * MIB  # what a guest may write between two looks
RESERVE_SHARE = 20  # a twentieth of the file system, between those two
GREETING = b"NBDMAGIC"  # of a server that has opened its image


class Ended(Exception):
    """By a signal: another job wants everything undone."""


class Keeper:
    def __init__(self) -> None:
        self.ending = False  # no signal stops what is undone
        self._folder: Optional[Path] = None
        self._undo: List[Dict[str, Any]] = []
        self._servers: Dict[int, subprocess.Popen[bytes]] = {}
        self._said: Dict[int, IO[bytes]] = {}
        self._locks: List[int] = []
        self._stopped: List[int] = []
        self._count = 0

    @property
    def watches(self) -> bool:
        return any(one.get("watch") for one in self._undo)

    def look(self) -> None:
        """Before a storage is full, and guests that write to it fail, what fills it is undone."""
        for one in list(self._undo):
            if any(_runs_low(folder) for folder in one.get("watch", ())):
                self._stopped.append(one["number"])
                undo_one(one)
                self.do_change(one["number"], None)

    def answer(self, order: Dict[str, Any]) -> Any:
        name = str(order.pop("do"))
        work: Callable[..., Any] = getattr(self, f"do_{name}")
        return work(**order)

    def leave(self) -> None:
        """Undo everything; whoever looks meanwhile sees that it is under way."""
        if self._folder is not None:
            with suppress(OSError):  # a full /run keeps nothing from being undone
                write_whole(self._folder / "ending.json", True)
            while self._locks:
                os.close(self._locks.pop())  # or no logical volume could be made inactive
            undo(self._folder)

    def do_ping(self) -> None:
        """Also the first order of all: whoever may do nothing here is told at once."""
        if os.geteuid() != 0:
            text = "Only root may read and write volumes: set ssh_user to root, or run the task as root (become: true)."
            raise Refused("permission_denied", text)

    def do_open(self, folder: str, owner: Dict[str, Any]) -> None:
        RUN_FOLDER.mkdir(mode=0o700, exist_ok=True)
        path = RUN_FOLDER / folder
        try:
            path.mkdir(mode=0o700)
        except FileExistsError as error:
            raise Refused("conflict", f"{path} is there already, from another run of this job.") from error
        self._folder = path
        write_whole(path / "owner.json", {**owner, "pid": os.getpid(), "started": started_of(os.getpid())})

    def do_will(self, undo: Dict[str, Any]) -> int:
        self._count += 1
        self._undo.append({**undo, "number": self._count})
        self._write()
        return self._count

    def do_change(self, number: int, undo: Optional[Dict[str, Any]]) -> None:
        changed = [
            ({**undo, "number": number} if undo else None) if one["number"] == number else one for one in self._undo
        ]
        self._undo = [one for one in changed if one is not None]
        self._write()

    def do_serve(self, argv: List[str], name: str) -> int:
        path = self._mine() / name
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `do_stop`, or with this process
        # Between the start and the next line nothing is written down: the server itself ends with this process.
        process = subprocess.Popen(  # pylint: disable=ansible-bad-function
            ["setpriv", "--pdeathsig=TERM", *[word.replace("SOCKET", str(path)) for word in argv]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        number = self.do_will({"kind": "process", "pid": process.pid, "started": started_of(process.pid)})
        self._servers[number], self._said[number] = process, said
        deadline = time.monotonic() + START_TIMEOUT
        while not _greets(path):
            if process.poll() is not None:
                raise Refused("server", self._ended(number))
            if time.monotonic() > deadline:
                raise Refused("timeout", f"{argv[0]} did not open its image within {START_TIMEOUT:.0f} s.")
            time.sleep(POLL)
        return number

    def do_lock(self, path: str) -> None:
        try:
            self._locks.append(lock(path))
        except BlockingIOError as error:
            raise Refused("busy", f"{path} is in use: another process writes to it.") from error

    def do_stop(self, number: int, patience: float) -> None:
        process = self._servers[number]
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired as error:
            raise Refused("timeout", f"The server did not end within {patience:.0f} s.") from error
        failed = process.returncode not in (0, -signal.SIGTERM)
        said = self._ended(number)
        if failed:
            raise Refused("server", said)

    def do_qmp(self, vmid: int, commands: List[List[Any]]) -> List[Any]:
        return qmp(vmid, commands)

    def do_stopped(self) -> List[int]:
        return self._stopped

    def do_list(self) -> List[Dict[str, Any]]:
        return [_seen(path) for path in sorted(RUN_FOLDER.glob("*")) if path.is_dir() and path != self._folder]

    def do_undo(self, folder: str) -> None:
        undo(RUN_FOLDER / folder)

    def do_end(self, folder: str) -> None:
        seen = _seen(RUN_FOLDER / folder)
        if seen["alive"]:
            with suppress(ProcessLookupError):
                os.kill(seen["owner"]["pid"], signal.SIGTERM)
        deadline = time.monotonic() + 2 * UNDO_TIMEOUT
        while _seen(RUN_FOLDER / folder)["alive"] and time.monotonic() < deadline:
            time.sleep(POLL)

    def _ended(self, number: int) -> str:
        """What it said last, once it has ended."""
        self.do_change(number, None)
        del self._servers[number]
        with self._said.pop(number) as said:
            said.seek(0)
            return said.read().decode("utf-8", "replace").strip()[-SAID:]

    def _mine(self) -> Path:
        if self._folder is None:
            raise Refused("internal", "No folder was opened.")
        return self._folder

    def _write(self) -> None:
        write_whole(self._mine() / "undo.json", self._undo)


def _greets(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(START_TIMEOUT)
        try:
            client.connect(str(path))
            return client.recv(len(GREETING)) == GREETING
        except OSError:
            return False


def _seen(path: Path) -> Dict[str, Any]:
    owner = read_whole(path / "owner.json", {})
    pid = owner.get("pid")
    alive = isinstance(pid, int) and owner.get("started") is not None and started_of(pid) == owner["started"]
    made = read_whole(path / "undo.json", [])
    return {
        "folder": path.name,
        "owner": owner,
        "alive": alive,
        "ending": (path / "ending.json").exists(),
        "made": made,
    }


def _runs_low(folder: str) -> bool:
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    reserve = max(SMALLEST_RESERVE, min(LARGEST_RESERVE, found.f_blocks * found.f_frsize // RESERVE_SHARE))
    return found.f_bavail * found.f_frsize < reserve


def _orders(keeper: Keeper) -> Any:
    """As they come, until there are no more, or none for too long."""
    left, heard = b"", time.monotonic()
    while True:
        ready, _unused, _none = select.select([0], [], [], LOOK if keeper.watches else SILENCE)
        if keeper.watches:
            with suppress(Refused, OSError, subprocess.SubprocessError):  # the next look tries it again
                keeper.look()
        if not ready and time.monotonic() - heard < SILENCE:
            continue
        heard = time.monotonic()
        piece = os.read(0, 65536) if ready else b""
        if not piece:
            return
        *lines, left = (left + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _say(answer: Dict[str, Any]) -> None:
    left = json.dumps(answer).encode() + b"\n"
    with suppress(OSError):  # nobody listens any more, which the end of the input will tell
        while left:
            left = left[os.write(1, left) :]


def main() -> None:
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)  # only the end of the orders, or another job, ends this program

    keeper = Keeper()

    def end(_number: int, _frame: object) -> None:
        if not keeper.ending:
            raise Ended

    os.umask(0o077)  # sockets are their user's alone
    signal.signal(signal.SIGTERM, end)
    try:
        for order in _orders(keeper):
            if order["do"] == "finish":
                keeper.ending = True
                break
            try:
                _say({"done": keeper.answer(order)})
            except Refused as error:
                _say({"kind": error.kind, "error": str(error)})
            except Ended:
                raise
            except Exception as error:  # noqa: BLE001 - whoever gave the order hears of it, and may go on
                _say({"kind": "internal", "error": f"{type(error).__name__}: {error}"})
        keeper.ending = True
    except Exception:  # noqa: BLE001 - `Ended`, or what is no order: all is undone
        keeper.ending = True
    try:
        keeper.leave()
        _say({"done": None})
    except Refused as error:
        _say({"kind": "internal", "error": str(error)})
        sys.exit(1)  # pylint: disable=ansible-bad-function
