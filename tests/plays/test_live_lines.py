# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of a transfer while it lasts, and what the task returns."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ansible_collections.vmferry.migrate.plugins.modules.vm_export import RETURN
from rigs.sshd import SshServer

from .playing import SLOW, Stage

LINE = re.compile(r"\[(?P<host>[\w: ]+)\] exporting disk 1/1 · (?P<percent>[\d.]+) %(?P<rest>.*)")
MIB = 1 << 20


def moving(lines: list[str]) -> list[re.Match[str]]:
    return [found for line in lines if (found := LINE.fullmatch(line))]


def test_lines_appear_while_the_transfer_lasts(stage: Stage) -> None:
    play = stage.play(stage.export(bandwidth_limit=SLOW, verify="none"))
    stage.wait_for(lambda: "% · " in play.so_far(), "a line")
    assert stage.record()["finished"] is None
    lines = play.wait().lines()
    found, lasted = moving(lines), play.result()["job"]["duration"]
    percents = [float(line["percent"]) for line in found]
    assert percents == sorted(percents)
    assert 3 <= len(found) <= lasted + 1, lines  # at least five seconds, one a second
    assert all(line["host"] == "kvm1: web01" for line in found)
    assert re.search(r" · [\d.]+ MB/s · 0:0\d left", found[-1]["rest"])
    assert lines[0].endswith(f" · job {stage.record()['id']}")
    assert re.match(r"\[kvm1: web01\] ready in 0:\d\d ", lines[-1])
    assert " · full, since there is no export to stand on · " in lines[-1]
    assert re.search(r" · 21\.0 MB read at \S+ MB/s · 2[01]\.\d MB sent at \S+ MB/s$", lines[-1])
    assert play.output.index(lines[-1]) < play.output.index("changed: [kvm1]")
    assert_told(stage, play.result())
    assert stage.left_for_ansible() == []


def assert_told(stage: Stage, result: dict[str, Any]) -> None:
    """The task's result is the module's, and its job tells what the record tells."""
    assert result["changed"] is True
    assert result["export"]["disks"][0]["bytes_read"] == 20 * MIB
    job, record = result["job"], stage.record()
    assert (job["vm"], job["kind"], job["phase"], job["state"]) == ("web01", "export", "ready", "ready")
    assert job["url"] == f"file://{stage.store}"
    assert job["state_dir"] == str(stage.state)
    assert job["record"] == str(stage.state / "jobs" / record["id"] / "record.json")
    for name in ("id", "bytes_read", "bytes_sent", "average_rate", "retries"):
        assert job[name] == record[name]
    assert job["duration"] == pytest.approx(record["finished"] - record["started"], abs=0.06)
    assert len(job["id"]) == 32
    assert job.keys() == yaml.safe_load(RETURN)["job"]["contains"].keys()


def test_nothing_is_printed_where_nothing_is_wanted(stage: Stage) -> None:
    play = stage.play(
        stage.export(verify="none", progress="none"),
        stage.export({"no_log": True}, verify="none", vm="web02"),
        stage.export(verify="none", vm="web03"),
        hosts={"web03": {}},
    ).wait()
    assert {line[:8] for line in play.lines()} == {"[web03] "}  # the VM of the host's own name needs no second one


def test_what_fails_is_told_as_by_the_module(stage: Stage) -> None:
    play = stage.play(
        stage.export({"ignore_errors": True}, vm="nobody"),
        stage.export({"ignore_errors": True}, progress_interval="often"),
        stage.export({"ignore_errors": True}, progress_interval=0),
        stage.export({"ignore_errors": True}, progress="dots"),
        stage.export({"ignore_errors": True}, job_id=".."),
    ).wait()
    nobody, often, always, dots, outside = play.results()
    assert nobody["error"]["kind"] == "not_found"
    assert "nobody" in nobody["msg"]
    assert nobody["job"]["phase"] == nobody["job"]["state"] == "failed"
    assert often["error"]["kind"] == "invalid_config"
    assert often["msg"].startswith("progress_interval: 'often'")
    assert always["msg"] == "progress_interval is 0; it must be more than 0."
    assert always["error"]["hint"] == "Write for example 5s, or progress: none to have no lines."
    assert dots["msg"].startswith("value of progress must be one of: lines, none")
    assert outside["msg"].startswith("job_id is '..', not the id of a job")
    assert not (stage.state / "lease").exists()
    assert stage.left_for_ansible() == []


def test_over_ssh_the_lines_of_all_hosts_appear(stage: Stage, ssh_server: SshServer) -> None:
    hosts = {
        "web01": {**ssh_server.variables, "ansible_pipelining": True},
        "web02": {**ssh_server.variables, "ansible_pipelining": False},
    }
    options: dict[str, Any] = {"bandwidth_limit": SLOW, "verify": "none", "vm": "{{ inventory_hostname }}"}
    play = stage.play(stage.export(**options), hosts=hosts).wait()
    for name in hosts:
        assert len(moving([line for line in play.lines() if line.startswith(f"[{name}] ")])) >= 2, play.output
    assert [result["changed"] for result in play.results()] == [True, True]
    assert stage.left_for_ansible() == []
