# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that are reached by SSH alone, each in a network namespace of its own, and a control node among them.

with ssh_network(["kvm01", "kvm02"]) as network:
    network.hosts["kvm01"].variables       # of an inventory's host
    [*network.enter, "ansible-playbook"]   # a command on the control node
    network.unplug("kvm01")                # its cable: nothing arrives, and nothing is refused
    network.plug_in("kvm01")

Needs root. No interface of the machine itself is touched, and all of it is gone with the processes that hold it.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .sshd import SshServer

START_SECONDS = 10.0


class SshNetwork:
    """A cable from the control node to each host, with two addresses of 10.213.0.0/16."""

    def __init__(self, names: Sequence[str], stack: ExitStack) -> None:
        control = _namespace(stack)
        self.enter = _enter(control)
        self.hosts: dict[str, SshServer] = {}
        for number, name in enumerate(names):
            host, address = _namespace(stack), f"10.213.{number}.2"
            ends = [name, "netns", str(control), "type", "veth", "peer", "name", "eth0", "netns", str(host)]
            subprocess.run(["ip", "link", "add", "name", *ends], check=True)
            self._ip("address", "add", f"10.213.{number}.1/30", "dev", name)
            self._ip("link", "set", name, "up")
            for command in (f"address add {address}/30 dev eth0", "link set eth0 up", "link set lo up"):
                subprocess.run([*_enter(host), "ip", *command.split()], check=True)
            # Not below $TMPDIR: the control path is that of a unix socket, which has at most 107 bytes.
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vmferry-ssh-", dir="/tmp"))
            self.hosts[name] = SshServer(Path(folder), address, _enter(host))
            self.hosts[name].start()
            stack.callback(self.hosts[name].stop)

    def unplug(self, name: str) -> None:
        self._ip("link", "set", name, "down")

    def plug_in(self, name: str) -> None:
        self._ip("link", "set", name, "up")

    def _ip(self, *arguments: str) -> None:
        subprocess.run([*self.enter, "ip", *arguments], check=True)


@contextmanager
def ssh_network(names: Sequence[str]) -> Iterator[SshNetwork]:
    with ExitStack() as stack:
        yield SshNetwork(names, stack)


def _namespace(stack: ExitStack) -> int:
    """The process that holds it, which does nothing."""
    holder = subprocess.Popen(["unshare", "--net", "--", "sleep", "infinity"], stdin=subprocess.DEVNULL)
    stack.callback(holder.wait)
    stack.callback(holder.kill)
    deadline = time.monotonic() + START_SECONDS
    while Path(f"/proc/{holder.pid}/comm").read_text() != "sleep\n":
        if holder.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("no network namespace could be made, which takes root")
        time.sleep(0.01)
    return holder.pid


def _enter(holder: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{holder}/ns/net", "--"]
