# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `./dev lab start` prints works as it is, and `./dev lab stop` leaves nothing."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lab
import pytest
import rig


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "lab"
    rig.stop(tmp_path / "lab")


def test_a_stop_without_a_lab_says_that_there_is_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lab.stop(folder)
    assert capsys.readouterr().out == "No lab runs.\n"


def played(folder: Path, play: str) -> None:
    (folder / "play.yml").write_text(play)
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(lab.FOLDER.parent),
        "ANSIBLE_HOME": str(folder / "home"),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", "play.yml"],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def answered(asking: list[str], command: str) -> Any:
    ended = subprocess.run([*asking, command], capture_output=True, text=True, check=True)
    return json.loads(ended.stdout)["return"]


def manifests(described: dict[str, Any]) -> list[Any]:
    return [json.loads(path.read_text()) for path in Path(described["exports"]).glob("*/*/manifest.json")]


@pytest.mark.slow
def test_the_play_that_is_printed_exports_and_imports_the_vm(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.start(folder)
    told = capsys.readouterr().out
    lab.start(folder)
    assert capsys.readouterr().out == told, "a second start tells of the same one"
    described = rig.read(folder)
    play = told[told.index("- hosts:") : told.index("    ./dev shell")]
    played(tmp_path, play)
    listed = subprocess.run(
        ["virsh", "-c", described["uri"], "list", "--all", "--name"], capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) == {"web01", "web01-restored"}
    assert len(manifests(described)) == 1

    (write,) = [line for line in told.splitlines() if "qemu-agent-command" in line]
    *asking, command = shlex.split(write.replace("./dev shell", ""))
    status = {"execute": "guest-exec-status", "arguments": answered(asking, command)}
    while not (ended := answered(asking, json.dumps(status)))["exited"]:
        time.sleep(0.1)
    assert ended["exitcode"] == 0
    played(tmp_path, "".join(line for line in play.splitlines(keepends=True) if "vm_i" not in line))
    sizes = [sum(disk["bytes_stored"] for disk in one["x_vmferry"]["disks"]) for one in manifests(described)]
    assert len(sizes) == 2
    assert min(sizes) < max(sizes)
    assert 2 * 1024**2 <= min(sizes) < 8 * 1024**2, "what the VM wrote, and no more"

    lab.stop(folder)
    assert "removed" in capsys.readouterr().out
    assert rig.read(folder) == {}
    assert not folder.exists()
    assert not Path(described["directory"]).exists()
