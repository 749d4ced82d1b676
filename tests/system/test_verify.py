# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports that lie in a store are looked at again: what is damaged is named, and what boots is shown to boot."""

from __future__ import annotations

from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import BootMarkers
from rigs import guests

from .exports import Bench


def test_boot(bench: Bench, off: str) -> None:
    bench.export(off)
    made = bench.verify(level="boot", markers=BootMarkers(serial=guests.boot_marker(off), timeout=20.0))
    print(made)
    bench.assert_nothing_left(off, runs=False)
    bench.assert_no_machine("x")
    for level in ("manifest", "stored", "content"):
        print(bench.verify(level=level))
