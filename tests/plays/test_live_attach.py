# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A play that attaches shows how far the job is that another play began."""

from __future__ import annotations

import os
import re
import signal

from .playing import SLOW, Stage


def test_a_play_that_attaches_shows_the_lines_of_the_job_that_it_follows(stage: Stage) -> None:
    first = stage.play(stage.export(bandwidth_limit=SLOW, verify="none"))
    leader = stage.wait_for_bytes()
    os.kill(leader["owner"]["pid"], signal.SIGSTOP)  # until the second is there, however long that takes to start
    try:
        second = stage.play(stage.export(bandwidth_limit=SLOW, verify="none", attach=True))
        stage.wait_for(lambda: f"following the job {leader['id']}" in second.so_far(), "a line of the second")
    finally:
        os.kill(leader["owner"]["pid"], signal.SIGCONT)
    lines = second.wait().lines()
    line = re.compile(rf"\[kvm1: web01\] exporting disk 1/1 · ([\d.]+) % .*· following the job {leader['id']}.*")
    percents = [float(found[1]) for told in lines if (found := line.fullmatch(told))]
    assert len(percents) >= 3, lines  # of some five seconds, one a second
    assert percents == sorted(percents)
    assert percents[-1] > percents[0], lines
    assert lines[-1].startswith("[kvm1: web01] ready in ")
    assert lines[-1].endswith(f"followed the job {leader['id']}")
    results = [first.wait().result(), second.result()]
    assert results[1]["attached"]["job"] == leader["id"] == results[0]["job"]["id"]
    assert results[1]["export"] == results[0]["export"]
    assert stage.left_for_ansible() == []
