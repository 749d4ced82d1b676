# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node reached by the system's own OpenSSH client: one connection, over which every command and socket goes.

The connection ends with this process, however that ends: its first session is a `cat` that reads from a pipe of ours.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Iterator, List, Sequence

from ..._errors import Kind, VmferryError
from ..._nbd.child_server import program
from ..._nbd.socket_folder import socket_folder
from .node import CommandFailed, Node, NodeProcess

CONNECT_TIMEOUT = 30  # seconds
ALIVE_INTERVAL, ALIVE_COUNT = 15, 4  # seconds, and how many may go unanswered
CONTROL_TIMEOUT = 30.0  # seconds for the client that is there already to answer another
POLL = 0.02  # seconds

_REFUSALS: tuple[tuple[str, Kind, str], ...] = (
    (
        "Host key verification failed",
        "unauthenticated",
        "Compare the key with the node's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub), and put it into the "
        "file of known hosts: ssh_known_hosts, else that of the user who runs the task.",
    ),
    (
        "Permission denied",
        "unauthenticated",
        "Set ssh_private_key_file to a key that the node accepts for ssh_user, or load it into the agent. Passwords "
        "are never asked for.",
    ),
    ("Bad owner or permissions", "invalid_config", "Make that file its user's alone."),
    ("Could not resolve hostname", "network", "Set ssh_host to an address under which this machine reaches the node."),
)


@dataclass(frozen=True)
class SshAddress:
    """Empty: as the user's own configuration of ssh has it."""

    host: str
    user: str = "root"
    port: int = 0
    private_key_file: str = ""
    known_hosts: str = ""


class SshNode(Node):
    def __init__(self, address: SshAddress) -> None:
        """Raises `unauthenticated`, `network`, `timeout` or `invalid_config`."""
        if not address.host or address.host.startswith("-") or address.user.startswith("-"):
            raise VmferryError("invalid_config", f"{address.host or 'An empty word'} is no name of a host.")
        self._address, self._numbers = address, count()
        self.name = address.host
        self._ssh = program("ssh", "openssh-client (Debian, Ubuntu) or openssh-clients (Fedora, RHEL)")
        with ExitStack() as stack:
            self._folder = stack.enter_context(socket_folder())
            self._control = self._folder / "c"
            self._master = self._connected(stack)
            self._cleanup = stack.pop_all()

    def command(self, argv: Sequence[str]) -> List[str]:
        return [*self._client(), *self._destination(), shlex.join(argv)]

    @contextmanager
    def forward(self, socket: str) -> Iterator[str]:
        local = str(self._folder / str(next(self._numbers)))
        self._order("forward", local, socket)
        try:
            yield local
        finally:
            with suppress(VmferryError):  # it went with the connection
                self._order("cancel", local, socket)
            Path(local).unlink(missing_ok=True)

    def explained(self, failure: CommandFailed) -> VmferryError:
        if self._master.running and self._control.exists():
            return failure
        return VmferryError("network", f"The SSH connection to {self.name} broke: {self._master.failure().said}")

    def close(self) -> None:
        self._cleanup.close()

    def _connected(self, stack: ExitStack) -> NodeProcess:
        options = {
            "ControlMaster": "yes",
            "ControlPersist": "no",
            "ConnectTimeout": CONNECT_TIMEOUT,
            "ServerAliveInterval": ALIVE_INTERVAL,
            "ServerAliveCountMax": ALIVE_COUNT,
            "ClearAllForwardings": "yes",  # of the user's configuration
            "StreamLocalBindMask": "0177",
        }
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        command = [*self._client(), *given, *self._destination(), "cat"]
        master = NodeProcess(self.name, ["ssh"], command)
        stack.callback(master.kill)
        deadline = time.monotonic() + 2 * CONNECT_TIMEOUT
        while not self._control.exists():  # which is there once we are let in
            if not master.running:
                raise self._refused(master.failure())
            if time.monotonic() > deadline:
                raise VmferryError("timeout", f"The SSH connection to {self.name} was not made in time.")
            time.sleep(POLL)
        return master

    def _refused(self, failure: CommandFailed) -> VmferryError:
        for words, kind, hint in _REFUSALS:
            if words in failure.said:
                return VmferryError(kind, f"No SSH connection to {self.name}: {failure.said}", hint)
        return VmferryError("network", f"No SSH connection to {self.name}: {failure.said}", "Is sshd reachable there?")

    def _client(self) -> List[str]:
        """What every call has; the first is the one that connects."""
        options = ["BatchMode=yes", "StrictHostKeyChecking=yes", "RequestTTY=no", "ForwardAgent=no", "ForwardX11=no"]
        options += ["RemoteCommand=none", "PermitLocalCommand=no", "LogLevel=ERROR"]
        if self._address.known_hosts:
            options += [f'UserKnownHostsFile="{self._address.known_hosts}"', "GlobalKnownHostsFile=/dev/null"]
        words = [self._ssh, "-S", str(self._control)]
        for option in options:
            words += ["-o", option]
        if self._address.private_key_file:
            words += ["-i", self._address.private_key_file, "-o", "IdentitiesOnly=yes"]
        if self._address.port:
            words += ["-p", str(self._address.port)]
        return words

    def _destination(self) -> List[str]:
        return ["-l", self._address.user, "--", self._address.host]

    def _order(self, order: str, local: str, remote: str) -> None:
        """To the client that holds the connection."""
        command = [*self._client(), "-O", order, "-L", f"{local}:{remote}", *self._destination()]
        try:
            done = subprocess.run(  # pylint: disable=ansible-bad-function
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONTROL_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise VmferryError("timeout", f"The SSH client of {self.name} does not answer.") from error
        if done.returncode:
            said = done.stderr.decode("utf-8", "replace").strip()
            failure = CommandFailed(self.name, ["ssh"], done.returncode, said)
            raise self.explained(failure)
