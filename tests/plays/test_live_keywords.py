# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A task that moves bytes takes the keywords that every task takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rigs.sshd import SshServer

from .playing import EXPORT, SLOW, Stage

QUICK: dict[str, Any] = {"verify": "none"}


def test_check_mode_moves_nothing_and_starts_no_job(stage: Stage) -> None:
    play = stage.play(stage.export(**QUICK), arguments=["--check"]).wait()
    assert play.result()["plan"]["mode"] == "full"
    assert play.lines() == []
    assert not stage.state.exists()
    assert stage.stored() == []


def test_under_async_core_watches(stage: Stage) -> None:
    waiting, later = {"async": 60, "poll": 1}, {"async": 60, "poll": 0}
    play = stage.play(
        stage.export(waiting, **QUICK),
        stage.export({**waiting, "ignore_errors": True}, controller_timeout="5m"),
        stage.export({**later, "register": "started"}, **QUICK, vm="web02"),
        {
            "ansible.builtin.async_status": {"jid": "{{ started.ansible_job_id }}"},
            "register": "seen",
            "until": "seen is finished",
            "retries": 60,
            "delay": 1,
        },
        {"ansible.builtin.async_status": {"jid": "{{ started.ansible_job_id }}", "mode": "cleanup"}},
    ).wait()
    polled, refused, _started, *_waited, found, _cleaned = play.results()
    assert polled["export"]["mode"] == found["export"]["mode"] == "full"
    assert polled["ansible_job_id"]
    assert refused["error"]["kind"] == "invalid_config"
    assert "async" in refused["msg"]
    assert play.lines() == []


def test_check_mode_under_async_moves_nothing(stage: Stage) -> None:
    play = stage.play(stage.export({"async": 60, "poll": 1}, **QUICK), arguments=["--check"]).wait()
    assert play.result()["plan"]["mode"] == "full"
    assert not stage.state.exists()


def test_loops_and_module_defaults_and_run_once_and_delegation(stage: Stage) -> None:
    defaults = {name: stage.options()[name] for name in ("libvirt", "url", "state_dir")}
    play = stage.play(
        {EXPORT: {**QUICK, "vm": "{{ item }}"}, "loop": ["web01", "web02"], "run_once": True, "delegate_to": "kvm1"},
        hosts={"kvm1": {}, "kvm2": {}},
        module_defaults={"group/vmferry.migrate.all": defaults},
    ).wait()
    assert [result["job"]["vm"] for result in play.results()] == ["web01", "web02"]
    assert {line.split("]")[0] for line in play.lines()} == {"[kvm1: web01", "[kvm1: web02"}
    assert len({record["id"] for record in stage.records()}) == 2


def test_until_makes_a_new_job_each_time_and_refuses_to_make_the_same_again(stage: Stage) -> None:
    again = {"until": "done is succeeded", "retries": 1, "delay": 0, "ignore_errors": True}
    play = stage.play(
        stage.export(again, vm="nobody"),
        stage.export(again, vm="nobody", job_id="0123456789abcdef"),
    ).wait()
    assert [record["phase"] for record in stage.records()] == ["failed"] * 3
    first, second = play.results()[-3::2] if len(play.results()) > 2 else play.results()
    assert first["error"]["kind"] == "not_found"
    assert second["error"]["kind"] == "conflict"
    assert "0123456789abcdef exists already" in second["msg"]
    assert "job" not in second  # what the record says is of another run


def test_nothing_is_printed_of_another_job_of_that_id(stage: Stage) -> None:
    """Neither of one under way nor of one that ended, whenever that was by the clock of the host."""
    same: dict[str, Any] = {"job_id": "0123456789abcdef"}
    first = stage.play(stage.export(bandwidth_limit=SLOW, **QUICK, **same))
    record = stage.wait_for_bytes()
    during = stage.play(stage.export(**same, vm="web02")).wait(2)
    first.wait()
    assert stage.record()["phase"] == "ready"
    soon = {"started": record["started"] + 3600, "finished": record["started"] + 3601}  # the clock was set back since
    (stage.state / "jobs" / record["id"] / "record.json").write_text(json.dumps({**stage.record(), **soon}))
    after = stage.play(stage.export(**same)).wait(2)
    for refused in (during, after):
        assert refused.lines() == []
        assert (refused.result()["error"]["kind"], "job" in refused.result()) == ("conflict", False)


def test_become_and_the_task_environment(stage: Stage, ssh_server: SshServer) -> None:
    """Root becomes root here, through sudo: what is looked at is whether module and polls agree on a place."""
    become = {"become": True, "environment": {"VMFERRY_STATE_DIR": str(stage.state)}}
    hosts = {"web01": {**ssh_server.variables, "ansible_become_allow_same_user": True}, "web02": {}}
    play = stage.play(
        stage.export(become, **QUICK, vm="{{ inventory_hostname }}", state_dir=None),
        hosts=hosts,
        environment={"ANSIBLE_BECOME_ALLOW_SAME_USER": "1"},
    ).wait()
    assert [result["job"]["state_dir"] for result in play.results()] == [str(stage.state)] * 2
    assert len(stage.records()) == 2
    assert {line.split("]")[0] for line in play.lines()} == {"[web01", "[web02"}
    assert stage.left_for_ansible() == []


def test_becoming_an_ordinary_user_leaves_no_payload(stage: Stage) -> None:
    """It lies in a place for both users then, and the one who runs the module may not remove it."""
    shared = stage.folder / "async"
    shared.mkdir(mode=0o777)
    for folder in (stage.folder, shared):
        folder.chmod(0o777)
    python = {"ansible_python_interpreter": shutil.which("python3", path="/usr/bin")}
    before = set(payload_folders())
    play = stage.play(stage.export({"become": True, "become_user": "nobody"}), hosts={"kvm1": python}).wait(2)
    assert play.result()["error"]["kind"]  # for nobody gets nowhere
    assert set(payload_folders()) == before


def payload_folders() -> list[Path]:
    return [path for folder in ("/var/tmp", "/tmp") for path in Path(folder).glob("ansible-tmp-*")]
