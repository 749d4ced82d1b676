# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A verification is a job like a transfer: it shows how far it is, and returns what it found."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from ansible_collections.vmferry.migrate.plugins.modules.export_verify import RETURN

from .playing import ROOT, SLOW, Play, Stage

MIB = 1 << 20


def verify(stage: Stage, **options: Any) -> dict[str, Any]:
    return {"vmferry.migrate.export_verify": stage.options(**options), "register": "done"}


def test_a_play_shows_how_far_it_is(stage: Stage) -> None:
    play = stage.play(stage.export(verify="none"), verify(stage, level="content", bandwidth_limit=SLOW)).wait()
    lines = [line for line in play.lines() if " verifying disk 1/1 · " in line]
    assert 3 <= len(lines) <= play.result()["job"]["duration"] + 1, play.output  # one a second
    assert all(line.startswith("[kvm1: web01] ") for line in lines)
    percents = [float(re.findall(r"([\d.]+) %", line)[0]) for line in lines]
    assert percents == sorted(percents)
    assert len(set(percents)) > 2
    result = play.result()
    assert (result["changed"], result["problems"]) == (True, [])
    job = result["job"]
    assert (job["kind"], job["state"], job["vm"], job["bytes_read"]) == ("verify", "ready", "web01", 20 * MIB)
    assert job.keys() == yaml.safe_load(RETURN)["job"]["contains"].keys()
    assert stage.left_for_ansible() == []


def run_example(stage: Stage) -> Play:
    said = json.dumps({"url": f"file://{stage.store}"})
    return stage.play(
        playbook=ROOT / "examples" / "verify_exports.yml",
        arguments=["-e", said],
        environment={"VMFERRY_STATE_DIR": str(stage.state)},
    )


def test_every_vm_of_a_store_is_verified_and_damage_fails_the_play(stage: Stage) -> None:
    first, second = stage.vms[:2]
    stage.play(stage.export(verify="none"), stage.export(verify="none", vm=second)).wait()
    assert "changed=1" in run_example(stage).wait().output
    (image,) = stage.store.glob(f"{first}-*/*/disk-0.qcow2")
    (noted,) = image.parent.glob("verified.json")
    noted.unlink()
    image.write_bytes(image.read_bytes()[:-1])
    play = run_example(stage).wait(2)
    assert f"ok: [kvm1] => (item={second})" in play.output, "the others are looked at all the same, at most once a week"
    (failed,) = (one for one in play.results() if one.get("problems"))
    assert failed["error"]["kind"] == "checksum_mismatch"
    assert failed["problems"][0]["object"] == "disk-0.qcow2"
