# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role `vm_import` makes several VMs: it waits for one that is being made, and one that fails stops no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rigs.domain import remove_domain

from .playing import Stage, held

NAMES = ("made-by-role-1", "made-by-role-2", "made-by-role-3")


@pytest.fixture
def stored(stage: Stage) -> Iterator[Stage]:
    """With an export, and without the VMs that are made of it in the end."""
    stage.play(stage.export()).wait()
    (stage.folder / "images").mkdir()
    yield stage
    stage.end()
    for domain in stage.rig.connect().listAllDomains():
        if domain.name() in NAMES:
            remove_domain(domain)


def role(stage: Stage, *vms: dict[str, str], **variables: Any) -> dict[str, Any]:
    options = stage.options(placement={"storage": str(stage.folder / "images")}, **variables)
    return {
        "ansible.builtin.include_role": {"name": "vmferry.migrate.vm_import"},
        "vars": {"vm_import_vms": list(vms), **{f"vm_import_{name}": value for name, value in options.items()}},
    }


TOLD = {"ansible.builtin.copy": {"dest": "{{ told }}", "content": "{{ vm_import_result.results | to_json }}"}}


def test_several_are_made_and_one_that_fails_stops_no_other(stored: Stage) -> None:
    told = stored.folder / "told.json"
    wanted = [{"name": NAMES[0]}, {"name": NAMES[1], "export": "no-such-export"}, {"name": NAMES[2], "vm": stored.vm}]
    play = {"block": [role(stored, *wanted)], "always": [TOLD]}
    stored.play(play, vars={"told": str(told)}).wait(2)
    results = json.loads(told.read_text())
    assert [result.get("changed") for result in results] == [True, False, True]
    assert results[1]["error"]["kind"] == "not_found"
    assert {domain.name() for domain in stored.rig.connect().listAllDomains()} & set(NAMES) == {NAMES[0], NAMES[2]}


def test_one_that_another_job_is_making_is_waited_for(stored: Stage) -> None:
    told = stored.folder / "told.json"
    slow = stored.play(role(stored, {"name": NAMES[0]}, bandwidth_limit="2MiB/s"))
    (importing,) = stored.wait_for(
        lambda: [one for one in stored.records() if one["phase"] == "importing"], "an import"
    )
    task = role(stored, {"name": NAMES[0]}, busy_retries=60, busy_delay=1)
    with held(importing):
        second = stored.play(task, TOLD, vars={"told": str(told)})
        stored.wait_for(
            lambda: [one for one in stored.records() if one["error"]], "the second to be told that it is busy"
        )
    second.wait()
    slow.wait()
    (result,) = json.loads(told.read_text())
    assert result["attempts"] > 1
    errors = [one["error"] for one in stored.records() if one["error"]]
    assert {error["kind"] for error in errors} == {"busy"}
    assert f"{NAMES[0]} is being made by import job" in errors[0]["message"]
    assert not result["changed"], "it was made meanwhile"
    assert result["vm"]["name"] == NAMES[0]
