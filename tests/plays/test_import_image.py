# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a VHDX to a qcow2 image under libvirt, in the one task of a play of examples/."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.images.disks import run

from rigs import guests
from rigs.domain import remove_domain

from .playing import ROOT, Stage

MIB = 1 << 20
NAME = "made-of-vhdx"


@pytest.fixture
def image(stage: Stage) -> Iterator[Path]:
    """A VHDX as QEMU writes it, and its content beside it."""
    raw = guests.mbr_disk(stage.folder / "disk.raw", "a VHDX", 8 * MIB)
    with raw.open("r+b") as file:
        file.seek(5 * MIB)
        file.write(random.Random(1).randbytes(MIB))
    run("qemu-img", "convert", "-f", "raw", "-O", "vhdx", raw, stage.folder / "disk.vhdx")
    (stage.folder / "images").mkdir()
    yield stage.folder / "disk.vhdx"
    stage.end()
    for domain in stage.rig.connect().listAllDomains():
        if domain.name() == NAME:
            remove_domain(domain)


def test_vhdx_to_qcow2_is_one_task(stage: Stage, image: Path) -> None:
    hardware = {"cpu": 1, "memory": "32MiB", "networks": []}
    given = {"url": str(image), "new_name": NAME, "where": str(stage.folder / "images"), "hardware": hardware}
    environment = {"VMFERRY_STATE_DIR": str(stage.state), "LIBVIRT_DEFAULT_URI": stage.rig.uri}
    playbook, arguments = ROOT / "examples/import_image.yml", ["-e", json.dumps(given)]
    play = stage.play(playbook=playbook, arguments=arguments, environment=environment).wait()
    made = next(result for result in play.results() if "image" in result)
    assert (made["changed"], made["image"]["format"], made["vm"]["disks"][0]["format"]) == (True, "vhdx", "qcow2")
    assert f"{NAME} is powered_on; it was made of a vhdx image" in play.output
    disk = stage.folder / "images" / f"{NAME}-disk-0.qcow2"
    info = json.loads(run("qemu-img", "info", "-U", "--output=json", disk))
    assert (info["format"], info["virtual-size"]) == ("qcow2", 8 * MIB)
    run("qemu-img", "compare", "-U", "-f", "qcow2", "-F", "raw", disk, image.with_name("disk.raw"))
