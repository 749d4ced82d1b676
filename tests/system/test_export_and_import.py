# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, as a user sees it."""

from __future__ import annotations

from rigs import guests
from rigs.domain import Guest, boot_and_expect

from .exports import Bench, check, compare


def test_running_machine_goes_to_a_folder_and_comes_back(bench: Bench, small: Guest) -> None:
    result = bench.export("small")
    assert result["changed"]
    bench.assert_nothing_left("small")
    check(bench.stored(result))
    compare(bench.stored(result), "qcow2", bench.rig.directory / "small.qcow2", "qcow2")
    made = bench.import_("small-back")
    domain = bench.rig.connect().lookupByName("small-back")
    try:
        assert made["changed"]
        boot_and_expect(bench.rig, domain, guests.boot_marker("small"))
    finally:
        domain.undefine()
    bench.assert_nothing_left("small")


def test_running_machine_goes_to_s3_and_comes_back(s3_bench: Bench, small: Guest) -> None:
    s3_bench.export("small", verify="content")
    s3_bench.assert_nothing_left("small")
    s3_bench.import_("small-back")
    domain = s3_bench.rig.connect().lookupByName("small-back")
    try:
        boot_and_expect(s3_bench.rig, domain, guests.boot_marker("small"))
    finally:
        domain.undefine()
    s3_bench.assert_nothing_left("small")
