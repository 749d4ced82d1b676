# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plays of examples/, with the variables that they say may be given."""

from __future__ import annotations

import json

from .playing import ROOT, Stage


def test_an_export_is_watched_where_its_records_are_and_ansible_keeps_nothing_of_it(stage: Stage) -> None:
    names = ("vm", "url", "libvirt", "state_dir")
    given = {**{name: value for name, value in stage.options().items() if name in names}, "look_every": 1}
    playbook = ROOT / "examples/watch_an_export.yml"
    play = stage.play(playbook=playbook, arguments=["-e", json.dumps(given)]).wait()
    assert stage.record()["phase"] == "ready"
    assert f"file://{stage.store}/{stage.vm}-" in play.output
    assert [path for path in stage.async_dir.rglob("*") if path.is_file()] == []
