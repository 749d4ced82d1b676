# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`qemu-nbd` as a child process: one image, one socket, gone when we are gone."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, Mapping

from .._errors import VmferryError
from .connection import Address

START_TIMEOUT = 20.0  # seconds
STOP_TIMEOUT = 30.0  # seconds; a sink writes back what it holds
CLIENTS = 16


@contextmanager
def serve(image: str, format: str, *, read_only: bool, block_device: bool = False) -> Iterator[Address]:
    """Serve `image` in its `format`, which is never guessed. Holds the image's lock as long as it runs.

    Raises `busy` where another process has the image open for writing, `not_found`, `permission_denied`.
    """
    program = shutil.which("qemu-nbd")
    if program is None:
        raise VmferryError(
            "invalid_config", "qemu-nbd is not installed.", "Install qemu-utils (Debian) or qemu-img (RHEL)."
        )
    node = {
        "driver": format,
        "file": {"driver": "host_device" if block_device else "file", "filename": image},
        "discard": "unmap",
        "detect-zeroes": "off",
        "read-only": read_only,
    }
    with tempfile.TemporaryDirectory(prefix="vmferry-nbd-") as folder:
        path = str(Path(folder) / "socket")
        command = [program, "--persistent", "--shared", str(CLIENTS), "--socket", path, "--image-opts", _options(node)]
        if read_only:
            command.insert(1, "--read-only")
        # setpriv sets the parent-death signal between fork and exec, where Python code may not run beside threads
        setpriv = shutil.which("setpriv")
        prefix = [setpriv, "--pdeathsig", "TERM", "--"] if setpriv else []
        child = subprocess.Popen(
            [*prefix, *command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            _wait_until_ready(child, path, image)
            yield Address(path=path)
        finally:
            _stop(child)


def qemu_img(*arguments: str) -> str:
    """What `qemu-img` prints. Raises `invalid_config` where it is missing, or what it complained of."""
    try:
        done = subprocess.run(["qemu-img", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        hint = "Install qemu-utils (Debian) or qemu-img (RHEL)."
        raise VmferryError("invalid_config", "qemu-img is not installed.", hint) from error
    if done.returncode:
        raise _explained(done.stderr, arguments[-1])
    return done.stdout


def image_info(image: str, format: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(qemu_img("info", "-U", "--output=json", "-f", format, image))
    return found


def _options(node: Mapping[str, Any]) -> str:
    """QEMU's dotted form; a comma in a value is doubled."""
    flat: list[str] = []

    def walk(prefix: str, values: Mapping[str, Any]) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                walk(f"{prefix}{key}.", value)
            else:
                text = {True: "on", False: "off"}.get(value, str(value)) if isinstance(value, bool) else str(value)
                flat.append(f"{prefix}{key}={text.replace(',', ',,')}")

    walk("", node)
    return ",".join(flat)


def _wait_until_ready(child: subprocess.Popen[bytes], path: str, image: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if child.poll() is not None:
            assert child.stderr is not None
            raise _explained(child.stderr.read().decode(errors="replace"), image)
        with socket.socket(socket.AF_UNIX) as knock, suppress(OSError):
            knock.connect(path)
            return
        time.sleep(0.01)
    raise VmferryError("timeout", f"qemu-nbd did not start to serve {image} within {START_TIMEOUT:.0f} s.")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    if child.stderr is not None:
        child.stderr.close()


def _explained(said: str, image: str) -> VmferryError:
    last = " ".join((said.strip().splitlines() or ["it failed without a word"])[-1].split())[:300]
    if "lock" in last:
        return VmferryError("busy", f"{image} is in use by another process: {last}", "Is its VM running?")
    if "No such file" in last:
        return VmferryError("not_found", f"{image} does not exist.")
    if "Permission denied" in last:
        return VmferryError("permission_denied", f"{image} may not be opened: {last}")
    if "No space left" in last:
        return VmferryError("no_space", f"There is no space for {image}: {last}")
    return VmferryError("invalid_config", f"{image} cannot be used: {last}")
