# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nbdkit as a child: what it reads is read, what it says is told, and it never outlives us."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.nbdkit import LONGEST_SECRET, serve
from ansible_collections.vmferry.migrate.plugins.module_utils._nbd.source import NbdSource

pytestmark = pytest.mark.slow
DATA = Random(3).randbytes(200_000) + bytes(62_144)
PACKAGE = "ansible_collections.vmferry.migrate.plugins.module_utils._nbd"
HOLDER = f"""
import sys, time
from {PACKAGE}.nbdkit import serve
with serve("file", [sys.argv[1]], "it") as server:
    print(server.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    path.write_bytes(DATA)
    return path


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 60
    while runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_disk_is_read_and_nothing_stays(image: Path) -> None:
    with serve("file", [str(image)], "it") as server:
        assert runs(server.pid)
        source = NbdSource(server.address)
        buffer = bytearray(len(DATA))
        source.read_into([(0, memoryview(buffer))])
        source.close()
        assert bytes(buffer) == DATA
    assert not runs(server.pid)
    assert not Path(server.address.path).parent.exists()


def test_what_it_complains_of_is_told(image: Path) -> None:
    with pytest.raises(VmferryError) as failed, serve("file", [f"{image}.gone"], "scsi0:0 of web01"):
        pass
    assert failed.value.message.startswith("nbdkit cannot read scsi0:0 of web01: ")
    assert "disk.raw.gone" in failed.value.message


def test_it_has_to_be_installed(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(VmferryError, match="nbdkit is not installed"), serve("file", [str(image)], "it"):
        pass


def test_password_that_no_pipe_holds_is_refused(image: Path) -> None:
    with pytest.raises(VmferryError, match="more than"), serve("file", [str(image)], "it", "x" * (LONGEST_SECRET + 1)):
        pass


def killed_while_it_serves(image: Path, below: Path) -> None:
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(below)}
    command = [sys.executable, "-c", HOLDER, str(image)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=where) as holder:
        assert holder.stdout is not None
        pid = int(holder.stdout.readline())
        holder.send_signal(signal.SIGKILL)
    wait_until_gone(pid)


@pytest.fixture
def below() -> Iterator[Path]:
    """Not pytest's own: the path of a unix socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="vmferry-", dir="/tmp") as folder:
        yield Path(folder)


def test_it_ends_with_us_and_the_next_removes_its_folder(
    image: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_while_it_serves(image, below)
    (left,) = below.iterdir()
    monkeypatch.setattr(tempfile, "tempdir", str(below))
    with serve("file", [str(image)], "it"):
        assert left.exists(), "who knows whether somebody is about to begin there"
    os.utime(left, (0, 0))
    with serve("file", [str(image)], "it"):
        assert not left.exists()
    assert list(below.iterdir()) == []


def test_folders_of_those_who_live_and_of_others_stay(
    image: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(below))
    others = [
        below / f"vmferry-nbd-{os.getpid()}-alive",
        below / "vmferry-nbd-notes",
        below / "vmferry-nbd-999999999-x",
    ]
    for path in others[:2]:
        path.mkdir()
    others[2].write_text("a file of somebody's")
    served = below / "vmferry-nbd-999999998-served"
    served.mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(served / "s"))
        server.listen()
        for path in (*others, served):
            os.utime(path, (0, 0))
        with serve("file", [str(image)], "it"):
            assert sorted(path for path in below.iterdir() if path.stat().st_mtime == 0) == sorted([*others, served])
