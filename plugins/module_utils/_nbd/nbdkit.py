# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`nbdkit` as a child process: what one of its plugins reads, as an NBD export on a private unix socket."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import Callable, Iterator, Sequence

from .._errors import VmferryError
from .child_server import MAX_SOCKET_PATH, ChildServer, Server, program
from .socket_folder import socket_folder
from .transport import Address

NBDKIT = "nbdkit"  # the package; plugins may have packages of their own
START_TIMEOUT = 120.0  # seconds: VDDK looks for the host, and opens the disk there, before the server greets
STOP_TIMEOUT = 15.0  # seconds
LONGEST_SECRET = 4096  # bytes, that a pipe holds before anybody reads it
MOST_SAID = 2000  # characters of a complaint; the last ones tell most


@contextmanager
def serve(plugin: str, parameters: Sequence[str], what: str, secret: str = "") -> Iterator[Server]:
    """Read-only, until the context is left. The child ends with this process, however that ends.

    `secret`: handed over by a pipe, as nbdkit's `password=-FD` takes it; never on the command line, where everybody
    reads it. Raises `invalid_config` where nbdkit is not installed, `timeout`, and `internal` with nbdkit's own words.
    """
    with socket_folder() as folder:
        path = folder / "s"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise VmferryError("invalid_config", f"{folder.parent} is too long a path for a unix socket.")
        command = [
            program(NBDKIT, NBDKIT),
            "--foreground",
            "--exit-with-parent",
            "--readonly",
            f"--unix={path}",
            plugin,
        ]

        def complaint(said: str) -> VmferryError:
            told = said.replace(secret, "***") if secret else said
            told = " ".join(told[-MOST_SAID:].split()).rstrip(".")
            return VmferryError("internal", f"nbdkit cannot read {what}: {told}.")

        child = _started([*command, *parameters], complaint, secret)
        try:
            address = Address.unix(path)
            child.wait_until_serving(address, what, START_TIMEOUT)
            yield Server(address, child.pid)
        finally:
            child.stop(STOP_TIMEOUT)


def _started(command: Sequence[str], complaint: Callable[[str], VmferryError], secret: str) -> ChildServer:
    if not secret:
        return ChildServer(NBDKIT, command, complaint)
    if len(secret.encode()) > LONGEST_SECRET:
        raise VmferryError("invalid_config", f"The password has more than {LONGEST_SECRET} bytes.")
    reading, writing = os.pipe()
    try:
        with os.fdopen(writing, "wb") as end:
            end.write(secret.encode() + b"\n")
        return ChildServer(NBDKIT, [*command, f"password=-{reading}"], complaint, [reading])
    finally:
        os.close(reading)
