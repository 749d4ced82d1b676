# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job's keeper on a node, as seen from here: it is given orders, and what is to be undone before it is done."""

from __future__ import annotations

import json
import os
import pkgutil
import select
import time
from contextlib import suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, List, Mapping, Sequence, Tuple, get_args

from ..._errors import Kind, VmferryError
from ..._transfer.owner import current_owner
from .. import qemu_lock
from ..job import Job
from . import node_keeper, node_undo  # so that the files are shipped with this one
from .node import Node

START_TIMEOUT = 60.0  # seconds
ANSWER_TIMEOUT = 180.0  # seconds: QEMU may take a minute for each of a few steps
PING = 20.0  # seconds between two signs of life
FINISH_TIMEOUT = 300.0  # seconds until everything is undone

# Its modules come by the pipe as well: nothing of it lies on the node, and no process list shows it.
BOOTSTRAP = """\
import json, os, sys, types
left, program = int(sys.argv[2]), b""
while left:
    piece = os.read(0, left)
    if not piece:
        sys.exit(0)
    program, left = program + piece, left - len(piece)
for name, text in json.loads(program).items():
    package = name.rpartition(".")[0]
    sys.modules.setdefault(package, types.ModuleType(package))
    module = sys.modules[name] = types.ModuleType(name)
    module.__package__ = package
    exec(compile(text, name, "exec"), module.__dict__)
module.main()
"""
PROGRAM = (qemu_lock, node_undo, node_keeper)  # what each needs of those before is there by then


class QemuRefused(VmferryError):
    """The VM's QEMU did not do what it was told; `said` is its own word."""

    def __init__(self, vmid: str, said: str) -> None:
        super().__init__("internal", f"QEMU of VM {vmid} refused {said}")
        self.said = said


class ServerFailed(VmferryError):
    """A server ended, having `said` this."""

    def __init__(self, said: str) -> None:
        super().__init__("internal", f"The server ended: {said}")
        self.said = said


class Keeper:
    """Thread-safe. `close` has everything undone, as the end of this process has."""

    def __init__(self, node: Node) -> None:
        """Raises `invalid_config` where the node has no Python."""
        self._node = node
        self._asking, self._ended = Lock(), Event()
        self._left = b""
        program = _program()
        self._process = node.spawn(["python3", "-I", "-c", BOOTSTRAP, "vmferry-keeper", str(len(program))])
        try:
            self._send(program)
            self._ask({"do": "ping"}, START_TIMEOUT)
        except VmferryError:
            self._process.kill()
            raise
        self._pinging = Thread(target=self._ping, name="vmferry-ping", daemon=True)
        self._pinging.start()

    @property
    def node(self) -> Node:
        return self._node

    def open(self, job: Job, purpose: str, vmid: str, vm_name: str, folder: str = "") -> None:
        """The job's folder on the node, called by its id or as is said. Raises `conflict` where it is there."""
        about = {"job": job.job_id, "attempt": job.attempt, "purpose": purpose, "vmid": vmid, "vm": vm_name}
        owner = {**about, "began": time.time(), "worker": current_owner()}
        self.ask({"do": "open", "folder": folder or job.job_id, "owner": owner})

    def will(self, **undo: Any) -> int:
        """To be undone from now on, as `node_undo` knows it; only then may it be done."""
        return int(self.ask({"do": "will", "undo": undo}))

    def change(self, number: int, **undo: Any) -> None:
        """What is to be undone in the place of that; nothing where nothing is given."""
        self.ask({"do": "change", "number": number, "undo": undo or None})

    def serve(self, argv: Sequence[str], name: str) -> int:
        """`SOCKET` in it becomes the path of the socket, which is `name` in the folder. Raises `ServerFailed`."""
        return int(self.ask({"do": "serve", "argv": list(argv), "name": name}))

    def lock(self, path: str) -> None:
        """Keeps others from writing to an image, as long as this lives. Raises `busy` where one does already."""
        self.ask({"do": "lock", "path": path})

    def stop(self, number: int, patience: float) -> None:
        """Raises `ServerFailed` where it could not write everything."""
        self.ask({"do": "stop", "number": number, "patience": patience}, patience + ANSWER_TIMEOUT)

    def qmp(self, vmid: str, *commands: Tuple[str, Mapping[str, Any]]) -> List[Any]:
        """A batch for the monitor of a VM that runs on this node. Raises `not_found` where it does not run, and
        `QemuRefused`."""
        try:
            answers: List[Any] = self.ask({"do": "qmp", "vmid": int(vmid), "commands": [list(one) for one in commands]})
        except _Refused as error:
            if error.word != "qmp":
                raise
            raise QemuRefused(vmid, error.message) from error
        return answers

    def stopped(self) -> List[int]:
        """Numbers of what was undone before its time, since a file system ran low."""
        found: List[int] = self.ask({"do": "stopped"})
        return found

    def others(self) -> List[Mapping[str, Any]]:
        """Of each other job's folder: `folder`, `owner`, `alive`, `ending`, `made`."""
        found: List[Mapping[str, Any]] = self.ask({"do": "list"})
        return found

    def undo(self, folder: str) -> None:
        """Of a job whose keeper is dead."""
        self.ask({"do": "undo", "folder": folder}, FINISH_TIMEOUT)

    def end(self, folder: str) -> None:
        """The keeper of another job undoes all it has made, and is gone when this returns."""
        self.ask({"do": "end", "folder": folder}, FINISH_TIMEOUT)

    def ask(self, order: Mapping[str, Any], timeout: float = ANSWER_TIMEOUT) -> Any:
        with self._asking:
            return self._ask(order, timeout)

    def close(self) -> None:
        """Everything is undone when this returns. Raises where that is not so: then it stays written down there."""
        if self._ended.is_set():
            return
        self._ended.set()
        try:
            self.ask({"do": "finish"}, FINISH_TIMEOUT)
            self._process.finish(ANSWER_TIMEOUT)
        finally:
            self._process.kill()

    def _ask(self, order: Mapping[str, Any], timeout: float) -> Any:
        self._send(json.dumps(order).encode() + b"\n")
        answer = json.loads(self._line(timeout))
        if "done" in answer:
            return answer["done"]
        if answer["kind"] == "server":
            raise ServerFailed(answer["error"])
        raise _Refused(answer["kind"], f"{answer['error']} (on {self._node.name})")

    def _send(self, said: bytes) -> None:
        try:
            self._process.stdin.write(said)
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            raise self._gone() from error

    def _line(self, timeout: float) -> bytes:
        deadline = time.monotonic() + timeout
        try:
            while b"\n" not in self._left:
                ready, _none, _nothing = select.select([self._process.stdout], [], [], deadline - time.monotonic())
                piece = os.read(self._process.stdout.fileno(), 65536) if ready else b""
                if not ready:
                    self._process.kill()  # a late answer would pass for that to the next order
                    raise VmferryError("timeout", f"{self._node.name} did not answer within {timeout:.0f} s.")
                if not piece:
                    raise self._gone()
                self._left += piece
        except (OSError, ValueError) as error:
            raise self._gone() from error
        line, self._left = self._left.split(b"\n", 1)
        return line

    def _gone(self) -> VmferryError:
        failure = self._process.failure()
        if failure.status == 127:
            return VmferryError(
                "invalid_config", f"There is no python3 on {self._node.name}.", "Install python3 there."
            )
        error = self._node.explained(failure)
        if error is not failure:
            return error
        text = f"What works for the job on {self._node.name} was ended: {failure.said or failure.status}"
        return VmferryError("network", text, "Run the task again.")

    def _ping(self) -> None:
        while not self._ended.wait(PING):
            with suppress(VmferryError):  # whoever needs it next sees that it is gone
                self.ask({"do": "ping"})

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class _Refused(VmferryError):
    def __init__(self, word: str, message: str) -> None:
        kind: Kind = word if word in get_args(Kind) else "internal"  # type: ignore[assignment]
        super().__init__(kind, message)
        self.word = word


def _program() -> bytes:
    sources = {}
    for module in PROGRAM:
        package, _dot, name = module.__name__.rpartition(".")
        text = pkgutil.get_data(package, f"{name}.py")
        if text is None:
            raise VmferryError("internal", f"The program of {module.__name__} cannot be read.")
        sources[module.__name__] = text.decode()
    return json.dumps(sources).encode()
