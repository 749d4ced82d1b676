# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever ends a play before its job: the job stops, leaves its work to the next one or undoes it, and says so."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from rigs.sshd import SshServer

from .playing import PATIENCE, Play, Stage

CRAWL = "1MiB/s"  # twenty seconds
ENDLESS = "256KiB/s"  # of a transfer that a task's timeout ends: begun by then on any machine, and not over
LASTING: dict[str, Any] = {"bandwidth_limit": CRAWL, "verify": "none", "on_failure": "undo"}
SILENCE = 8.0  # seconds: more than a busy machine takes between two polls
each_way = pytest.mark.parametrize("pipelining", [True, False], ids=["pipelined", "with files"])


def test_a_task_timeout_stops_the_job_and_the_next_play_goes_on_with_its_work(stage: Stage) -> None:
    play = stage.play(stage.export({"timeout": 20}, bandwidth_limit=ENDLESS)).wait(2)
    assert "imed out" in play.result()["msg"]
    record = stage.wait_for_end()
    assert record["phase"] == "cancelled"
    assert "ansible-playbook's task timeout asked for it" in record["error"]["message"]
    assert record["kept"]["export"] in stage.stored()[0]
    stage.wait_for(
        lambda: not [path for path in stage.left_for_ansible() if path.parent != stage.async_dir],
        "the payload's end",
    )
    assert stage.play(stage.export()).wait().result()["resumed"]["export"] == record["kept"]["export"]


def test_a_job_stops_when_its_play_is_killed_terminated_or_interrupted(stage: Stage) -> None:
    ways = {
        "web01": lambda play: os.killpg(play.process.pid, signal.SIGKILL),
        "web02": lambda play: play.process.send_signal(signal.SIGKILL),
        "web03": lambda play: play.process.send_signal(signal.SIGTERM),
        "web04": lambda play: os.killpg(play.process.pid, signal.SIGINT),
    }
    started: dict[str, Play] = {}
    for vm in ways:
        started[vm] = stage.play(stage.export(**LASTING, vm=vm, controller_timeout=f"{SILENCE:.0f}s"))
    stage.wait_for(lambda: moving(stage) == set(ways), "bytes of all")
    for vm, end in ways.items():
        end(started[vm])
        assert started[vm].process.wait(PATIENCE) != 0
    stage.wait_for(lambda: all(one["finished"] for one in stage.records()), "the end of all")
    reasons = {record["vm"]: record["error"]["message"] for record in stage.records()}
    assert {record["phase"] for record in stage.records()} == {"cancelled"}
    for vm in ("web01", "web02"):  # the worker of a play that was killed lives on, and sees that
        assert "the end of ansible-playbook asked for it" in reasons[vm]
    for record in stage.records():
        lease = stage.state / "jobs" / record["id"] / "lease"
        assert record["finished"] - lease.stat().st_mtime < 1.75 * SILENCE
    for vm in ("web03", "web04"):
        assert "its controller has not been heard of for 8 s" in reasons[vm]
    assert stage.stored() == []


def moving(stage: Stage) -> set[str]:
    return {record["vm"] for record in stage.records() if record["phase"] == "exporting" and record.get("bytes_read")}


@each_way
def test_a_lost_connection_of_a_few_seconds_is_survived(stage: Stage, ssh_server: SshServer, pipelining: bool) -> None:
    task = stage.export(bandwidth_limit="2MiB/s", verify="none", controller_timeout="8s")
    play = stage.play(task, hosts={"kvm1": {**ssh_server.variables, "ansible_pipelining": pipelining}})
    stage.wait_for_bytes()
    with ssh_server.away():
        stage.wait_for(lambda: "no answer from the host" in play.so_far(), "a line about it")
        time.sleep(1.5)
    play.wait()
    lines = play.lines("[kvm1")
    assert len([line for line in lines if "no answer from the host (" in line]) == 1, lines
    assert lines.index("[kvm1: web01] the host answers again") > 0
    assert play.result()["job"]["state"] == "ready"
    assert len(stage.records()) == 1
    assert stage.left_for_ansible() == []


@each_way
def test_a_host_that_stays_away_is_unreachable_and_stops_the_job_itself(
    stage: Stage, ssh_server: SshServer, pipelining: bool
) -> None:
    task = stage.export(**LASTING, controller_timeout=f"{SILENCE:.0f}s")
    play = stage.play(task, hosts={"kvm1": {**ssh_server.variables, "ansible_pipelining": pipelining}})
    record = stage.wait_for_bytes()
    with ssh_server.away():
        play.wait(2)
        assert stage.wait_for_end()["phase"] == "cancelled"
    result = play.result()
    assert f"The job {record['id']} stops by itself." in result["msg"]
    assert "job_info" in result["error"]["hint"]
    assert result["error"]["kind"] == "network"
    assert (result["job"]["id"], result["job"]["state"]) == (record["id"], "running")
    assert stage.stored() == []


def test_a_module_that_is_killed_is_told_from_one_that_goes_on(stage: Stage) -> None:
    play = stage.play(stage.export(**LASTING))
    os.kill(stage.wait_for_bytes()["owner"]["pid"], signal.SIGKILL)
    result = play.wait(2).result()
    assert (result["error"]["kind"], result["error"]["retryable"]) == ("cancelled", True)
    assert result["msg"].startswith("The job ended without a result while it was exporting.")
    assert (result["job"]["phase"], result["job"]["state"]) == ("exporting", "failed")
    assert "Traceback" not in play.output
    assert stage.left_for_ansible() == []


def test_a_job_whose_wrapper_is_killed_too_leaves_no_payload(stage: Stage) -> None:
    """As with a power failure: nothing is left of the job but its files."""
    play = stage.play(stage.export(**LASTING))
    record = stage.wait_for_bytes()
    stage.wait_for(lambda: not payloads(stage), "the payload's end")
    for pid in [record["owner"]["pid"], *ancestors(record["owner"]["pid"])]:
        os.kill(pid, signal.SIGKILL)
    play.process.kill()
    play.process.wait()
    assert payloads(stage) == []


def payloads(stage: Stage) -> list[Path]:
    return [path for path in stage.left_for_ansible() if path.name.startswith("AnsiballZ_")]


def ancestors(pid: int) -> list[int]:
    """The processes of async_wrapper.py above the module."""
    found = []
    while "async_wrapper" in Path(f"/proc/{(pid := parent(pid))}/cmdline").read_text():
        found.append(pid)
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
