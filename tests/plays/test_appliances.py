# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A VM of libvirt becomes an OVA and a VM of libvirt again, by the plays of examples/."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest
from engine.images.disks import run

from rigs.domain import remove_domain

from .playing import ROOT, Stage

NAME = "made-of-an-ova"


@pytest.fixture
def images(stage: Stage) -> Iterator[Stage]:
    (stage.folder / "images").mkdir()
    yield stage
    stage.end()
    for domain in stage.rig.connect().listAllDomains():
        if domain.name() == NAME:
            remove_domain(domain)


def test_a_vm_becomes_an_ova_and_a_vm_again_in_one_play(images: Stage) -> None:
    target = {"name": NAME, "placement": {"storage": str(images.folder / "images"), "disk_format": "raw"}}
    into = images.options(vm=None, url=None, **target)
    ova = "{{ (done.export.files | selectattr('path', 'search', '[.]ova$') | first).url }}"
    images.play(
        images.export(format="ova", detach=["cdrom"]),
        {"vmferry.migrate.export_verify": {"url": f"file://{images.store}", "state_dir": str(images.state)}},
        {"vmferry.migrate.vm_import": {**into, "url": ova}, "register": "made"},
        {"vmferry.migrate.vm_import": {**into, "url": ova}, "register": "again"},
        {"ansible.builtin.assert": {"that": ["made is changed", "again is not changed"]}},
    ).wait()
    assert [record["phase"] for record in images.records()] == ["ready"] * 4
    (disk,) = (images.folder / "images").iterdir()
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, images.rig.directory / f"{images.vm}.qcow2")


def test_the_example_says_what_to_hand_over(stage: Stage) -> None:
    given: dict[str, Any] = {"vm": stage.vm, "url": f"file://{stage.store}"}
    environment = {"VMFERRY_STATE_DIR": str(stage.state), "LIBVIRT_DEFAULT_URI": stage.rig.uri}
    playbook, arguments = ROOT / "examples/export_ova.yml", ["-e", json.dumps(given)]
    play = stage.play(playbook=playbook, arguments=arguments, environment=environment).wait()
    (ova,) = stage.store.glob(f"*/*/{stage.vm}.ova")
    assert play.result()["msg"] == [f"file://{ova}"]
    with tarfile.open(ova) as tar:
        assert tar.getnames() == [f"{stage.vm}.ovf", f"{stage.vm}-disk1.vmdk", f"{stage.vm}.mf"]
