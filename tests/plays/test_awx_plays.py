# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plays of the job templates, started with the answers of their surveys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rigs.domain import remove_domain
from rigs.ports import free_port

from .awx import EXAMPLES, example
from .playing import Play, Stage

Hosts = Mapping[str, Mapping[str, Any]]
ENDLESS = "256KiB/s"  # with 20 MiB of data: longer than it takes to start a play and cancel it


def launch(stage: Stage, playbook: str, survey: str, answers: Mapping[str, str], hosts: Hosts | None = None) -> Play:
    """With the default of each question that has one and is not answered."""
    questions = example("survey.yml")[survey]["spec"]
    defaults = {question["variable"]: question["default"] for question in questions if "default" in question}
    assert set(answers) <= {question["variable"] for question in questions}
    whole = [{"ansible.builtin.import_playbook": str(EXAMPLES / "plays" / playbook)}]
    environment = {"VMFERRY_STATE_DIR": str(stage.state), "LIBVIRT_DEFAULT_URI": stage.rig.uri}
    variables = ["-e", json.dumps({**defaults, **answers})]
    stage.plays.append(Play(stage, whole, {"kvm1": {}, "kvm2": {}, **(hosts or {})}, variables, environment))
    return stage.plays[-1]


def test_cancelling_a_transfer_undoes_it_and_fails_the_play_that_watches_it(stage: Stage) -> None:
    export = stage.play(stage.export(bandwidth_limit=ENDLESS))
    stage.wait_for_bytes()
    cancel = {"cancel_host": "kvm1", "cancel_vm": stage.vm}
    launch(stage, "cancel_transfer.yml", "vmferry_survey_cancel", cancel).wait()
    assert stage.record()["phase"] == "cancelled"
    assert stage.stored() == []
    export.wait(2)
    again = launch(stage, "cancel_transfer.yml", "vmferry_survey_cancel", cancel).wait(2)
    assert f"kvm1 runs no transfer of {stage.vm}." in again.output


def test_a_host_that_stands_for_a_vm_has_its_transfer_cancelled_where_it_runs(stage: Stage) -> None:
    export = stage.play(stage.export(bandwidth_limit=ENDLESS))
    stage.wait_for_bytes()
    nowhere = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": free_port()}
    hosts = {"web": {**nowhere, "export_fleet_worker": "kvm1"}}
    cancel = {"cancel_host": "web", "cancel_vm": stage.vm}
    launch(stage, "cancel_transfer.yml", "vmferry_survey_cancel", cancel, hosts).wait()
    assert stage.record()["phase"] == "cancelled"
    export.wait(2)


def test_import_makes_a_vm_on_the_host_that_was_named(stage: Stage) -> None:
    stage.play(stage.export()).wait()
    answers = {
        "import_host": "kvm2",
        "import_url": f"file://{stage.store}",
        "import_vm": stage.vm,
        "import_name": "restored-by-awx",
        "import_storage": str(stage.folder),
    }
    play = launch(stage, "import_vm.yml", "vmferry_survey_import", answers).wait()
    domain = stage.rig.connect().lookupByName("restored-by-awx")
    try:
        assert not domain.isActive(), "the survey's default is not to start it"
        assert "kvm1" not in play.output
    finally:
        remove_domain(domain)
