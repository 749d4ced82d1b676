# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `./dev lab start` prints works as it is, and `./dev lab stop` leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    (tmp_path / "play.yml").write_text(play)
    command = [sys.executable, "-m", "ansible.cli.playbook", "play.yml"]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(lab.FOLDER.parent),
        "ANSIBLE_HOME": str(tmp_path / "home"),
    }
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    listed = subprocess.run(
        ["virsh", "-c", described["uri"], "list", "--all", "--name"], capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) == {"web01", "web01-restored"}
    assert list(Path(described["exports"]).glob("*/*/manifest.json"))

    lab.stop(folder)
    assert "removed" in capsys.readouterr().out
    assert rig.read(folder) == {}
    assert not folder.exists()
    assert not Path(described["directory"]).exists()
