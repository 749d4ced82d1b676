# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No test leaves a mount behind, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLED = """
import os, signal, sys
from contextlib import ExitStack
from pathlib import Path
from rigs.faulty_folder import faulty_folder
from rigs.mounting import mounted_ext4, mounted_tmpfs
from rigs.nfs import nfs_mount, nfs_server

home = Path(sys.argv[1])
for name in ("tmpfs", "ext4", "served", "nfs"):
    (home / name).mkdir()
with ExitStack() as stack:
    stack.enter_context(mounted_tmpfs(home / "tmpfs"))
    stack.enter_context(mounted_ext4(home / "ext4", home / "image", 1 << 22))
    stack.enter_context(faulty_folder(home / "faulty"))
    server = stack.enter_context(nfs_server(home / "served"))
    stack.enter_context(nfs_mount(server, home / "nfs"))
    mounts = Path("/proc/self/mountinfo").read_text()
    print(mounts.count(str(home)), flush=True)
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_no_mount_is_left_behind(tmp_path: Path, end: str) -> None:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path, end], cwd=tests, capture_output=True, text=True, check=False
    )
    assert int(done.stdout) >= 4, done.stderr
    assert (done.returncode == 0) is (end == "ended")
    deadline = time.monotonic() + 60
    while str(tmp_path) in Path("/proc/self/mountinfo").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    loops = subprocess.run(["/sbin/losetup", "--all"], check=True, capture_output=True, text=True).stdout
    assert str(tmp_path) not in loops
