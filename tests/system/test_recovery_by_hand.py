# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of docs/incremental_chains.md, run as they stand there on a chain, bring back what was exported."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import LEAF, OffVm
from .exports import Bench, compare

PAGE = (Path(__file__).resolve().parents[2] / "docs/incremental_chains.md").read_text()
RECOVERY, RENAMED = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
EXPORT_ID = re.compile(r"\b\d{8}T\d{6}Z-[0-9a-f]{8}\b")
IDS = sorted(set(EXPORT_ID.findall(PAGE)))  # oldest first


def shell(commands: str, folder: Path) -> str:
    done = subprocess.run(["sh", "-e", "-c", commands], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copied(bench: Bench) -> Path:
    """The VM's folder, out of the store."""
    folder, keys = bench.folder / "copy", bench.keys()
    for key in keys:
        path = key.partition("/")[2]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(bench.read(key))
    return folder


@pytest.mark.parametrize("kind", ["bench", "s3_bench"])
def test_the_commands_of_the_page_bring_back_the_disk_of_each_night(
    kind: str, vm: OffVm, request: pytest.FixtureRequest
) -> None:
    bench: Bench = request.getfixturevalue(kind)
    made = [bench.export(vm.name)["export"]["id"]]
    for turn in range(2):
        before = shutil.copy(vm.disk, bench.folder / "before.raw")
        vm.write(1 + turn, bytes(LEAF))  # what is zero now hides what the parent has
        vm.write(100 + turn, b"x" * LEAF)
        made.append(bench.export(vm.name, mode="incremental")["export"]["id"])
    of_ours = dict(zip(IDS, made, strict=True))
    folder = copied(bench)
    restored = bench.folder / "restored"
    restored.mkdir()
    commands = RECOVERY.replace("/srv/restored", str(restored))
    said = shell(EXPORT_ID.sub(lambda found: of_ours[found.group()], commands), folder)
    images = [line for line in said.splitlines() if line.startswith("image: ")]
    assert [EXPORT_ID.findall(line)[-1] for line in images] == made[::-1]
    assert "No errors were found on the image." in said
    assert f"Content mismatch at offset {2 * LEAF}" in said
    compare(restored / "web01.qcow2", "qcow2", vm.disk, "raw")
    compare(restored / "web01-before.raw", "raw", before, "raw")
    compare(restored / "work.qcow2", "qcow2", vm.disk, "raw")
    (folder / made[0]).rename(folder / "renamed")
    shell(RENAMED, folder / made[1])
    compare(folder / made[2] / "disk-0.qcow2", "qcow2", vm.disk, "raw")
