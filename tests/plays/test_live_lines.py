# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user sees of a transfer while it lasts, and what the task returns."""

from __future__ import annotations

from .playing import SLOW, Stage


def test_a_play_shows_how_far_the_transfer_is(stage: Stage) -> None:
    play = stage.play(stage.export(bandwidth_limit=SLOW, verify="none")).wait()
    lines = play.lines("[kvm1: web01] ")
    print(play.output)
    moving = [line for line in lines if "exporting disk 1/1 · " in line]
    assert len(moving) >= 3, play.output
