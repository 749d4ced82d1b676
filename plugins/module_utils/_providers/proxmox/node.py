# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node of a Proxmox VE cluster as a place where commands run and sockets are, on this machine or reached by SSH.

The API has no call that reads a disk or writes to a part of one, so their bytes go through the node itself.
"""

from __future__ import annotations

import subprocess
import tempfile
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import IO, ContextManager, List, Sequence

from ..._errors import Kind, VmferryError

RUN_FOLDER = "/run/vmferry"  # below which every job has a folder of its own; in memory, so a boot leaves nothing of it
SAID = 2000  # characters of what a command said last, in errors
END_TIMEOUT = 10.0  # seconds for a process that was told to end
ENGLISH = ("env", "LC_ALL=C")  # what commands say is told apart by its words

_COMPLAINTS: tuple[tuple[str, Kind], ...] = (
    ("No space left on device", "no_space"),
    ("no such logical volume", "not_found"),
    ("No such file or directory", "not_found"),
    ("does not exist", "not_found"),
    ("Permission denied", "permission_denied"),
    ('Failed to get "', "busy"),
    ('Failed to get shared "', "busy"),
    ("got timeout", "timeout"),
)


class CommandFailed(VmferryError):
    """A command of the node's ended with `status`, having `said` this."""

    def __init__(self, where: str, argv: Sequence[str], status: int, said: str) -> None:
        kind: Kind = next((kind for words, kind in _COMPLAINTS if words in said), "internal")
        told = said.strip() or f"exit status {status}"
        super().__init__(kind, f"{argv[0]} failed on {where}: {told}")
        self.status, self.said = status, said


class NodeProcess:
    """A command that runs on the node: bytes into its `stdin`, bytes out of its `stdout`."""

    def __init__(self, where: str, argv: Sequence[str], command: Sequence[str]) -> None:
        self._where, self._argv = where, tuple(argv)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        try:
            self._process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                start_new_session=True,  # a Ctrl-C is ours to handle
            )
        except OSError as error:
            self._said.close()
            raise not_started(command, error) from error

    @property
    def stdin(self) -> IO[bytes]:
        return _open_pipe(self._process.stdin)

    @property
    def stdout(self) -> IO[bytes]:
        return _open_pipe(self._process.stdout)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def finish(self, timeout: float) -> None:
        """Its input has ended; raises where it does not end in so many seconds, and where it failed."""
        with suppress(BrokenPipeError):
            self.stdin.close()
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise slow(self._where, self._argv, timeout) from error
        if status:
            raise self.failure(status)

    def failure(self, status: int = 0) -> CommandFailed:
        """What it said last, as an error."""
        with suppress(subprocess.TimeoutExpired):
            status = status or self._process.wait(END_TIMEOUT)
        try:
            self._said.seek(0)
            said = _end_of(self._said.read())
        except ValueError:  # closed: it was not the command that failed
            said = "It was ended from here."
        return CommandFailed(self._where, self._argv, status, said)

    def kill(self) -> None:
        """From any thread, and more than once."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError, ValueError):
                    pipe.close()
        self._process.kill()
        self._process.wait()
        self._said.close()

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class Node(ABC):
    """`name`: as errors call it."""

    name: str

    @abstractmethod
    def command(self, argv: Sequence[str]) -> List[str]:
        """What runs here, for `argv` to run there, unchanged by any shell."""

    @abstractmethod
    def forward(self, socket: str) -> ContextManager[str]:
        """The path of a unix socket of this machine that leads to that of the node, while the context lasts."""

    def close(self) -> None:
        """Release the connection; more than once does no harm."""

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> bytes:
        """What it prints. Raises `CommandFailed`, `timeout`, or `network` where the node went away."""
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                self.command([*ENGLISH, *argv]), input=stdin, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise slow(self.name, argv, timeout) from error
        except OSError as error:
            raise not_started(argv, error) from error
        if done.returncode:
            raise self.explained(CommandFailed(self.name, argv, done.returncode, _end_of(done.stderr)))
        return done.stdout

    def spawn(self, argv: Sequence[str]) -> NodeProcess:
        return NodeProcess(self.name, argv, self.command([*ENGLISH, *argv]))

    def exists(self, path: str) -> bool:
        try:
            self.run(["test", "-e", path])
        except CommandFailed as error:
            if error.status != 1:
                raise
            return False
        return True

    def explained(self, failure: CommandFailed) -> VmferryError:
        """The reason of a failure that may be the connection's, and not the command's."""
        return failure


def slow(where: str, argv: Sequence[str], seconds: float) -> VmferryError:
    return VmferryError("timeout", f"{argv[0]} did not end on {where} within {seconds:.0f} s.")


def not_started(argv: Sequence[str], error: OSError) -> VmferryError:
    return VmferryError("internal", f"{argv[0]} could not be started: {error.strerror}.")


def _end_of(said: bytes) -> str:
    return said.decode("utf-8", "replace").strip()[-SAID:]


def _open_pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise VmferryError("internal", "This process has no pipe there.")
    return pipe
