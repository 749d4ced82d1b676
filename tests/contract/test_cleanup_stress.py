# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports, cleanups that merge and delete and are killed, and restores: all at once on one store, by processes.

It takes seconds. `VMFERRY_STRESS_SECONDS=180` has it take three minutes for each store.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from engine.exports.shelves import clean_up

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec

from .chains import HOME, Chain, Guest, assert_whole, export, there
from .store_rigs import StoreRig
from .stress import note

SECONDS = float(os.environ.get("VMFERRY_STRESS_SECONDS", "7"))
ROUNDS = 8  # at the most, until all of this was seen, since a busy machine does less in a second
TRIED = {
    "filesystem": ("incremental", "merged", "deleted", "read"),
    "s3": ("incremental", "read", *(("merged", "deleted") if SECONDS > 30 else ())),
}
ROLES = ("export", "clean", "clean", "read")
FILES = 7  # of an export with two disks


class Crew:
    """Who was killed is replaced; who failed otherwise ends the test."""

    def __init__(self, url: str, settings: dict[str, Any], folder: Path) -> None:
        self._url, self._settings, self._folder = url, json.dumps(settings), folder
        self._until, self._seeds, self._killed = time.time() + SECONDS, 0, 0
        self._at_work: list[tuple[str, subprocess.Popen[bytes]]] = []

    def run(self) -> int:
        """How many were killed."""
        try:
            for role in ROLES:
                self._start(role)
            while self._at_work:
                time.sleep(0.1)
                self._look()
        finally:
            for _role, process in self._at_work:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()
        return self._killed

    def _look(self) -> None:
        for role, process in list(self._at_work):
            if process.poll() is None:
                continue
            self._at_work.remove((role, process))
            assert process.returncode in (0, -signal.SIGKILL), f"{role} failed"
            if process.returncode and time.time() < self._until:
                self._killed += 1
                self._start(role)

    def _start(self, role: str) -> None:
        self._seeds += 1
        left = str(max(0.1, self._until - time.time()))
        arguments = [
            role,
            self._url,
            self._settings,
            str(self._folder),
            left,
            f"{self._seeds} {time.time()}",
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "contract.stress", *arguments]
        self._at_work.append((role, subprocess.Popen(command, env=environment)))


@pytest.mark.parametrize("rig", ["filesystem", "s3"], indirect=True)
def test_every_export_that_is_left_comes_back_whatever_ran_at_the_same_time(rig: StoreRig, tmp_path: Path) -> None:
    for name in ("held", "counts", "state"):
        (tmp_path / name).mkdir()
    store, first = rig.fresh(), Guest("first")
    settings = rig.server.settings if hasattr(rig, "server") else {}

    def export_first() -> None:
        made = export(StoreSpec(store.url, settings), first, tmp_path / "state")
        note(tmp_path, made["export"]["id"], first.now)

    export_first()
    killed, counts = 0, Counter[str]()
    for _unused in range(ROUNDS):
        killed += Crew(store.url, settings, tmp_path).run()
        counts = sum(
            (Counter(json.loads(path.read_text())) for path in (tmp_path / "counts").iterdir()), Counter[str]()
        )
        if all(counts[name] for name in TRIED[rig.name]):
            break
    print(f"{rig.name}: {dict(counts)}, {killed} were killed")
    assert all(counts[name] for name in TRIED[rig.name]), f"something was never tried: {counts}"
    for _unused in range(2):  # maybe one was left, or none of these disks
        first.write_some()
        export_first()
    held = {path.name: pickle.loads(path.read_bytes()) for path in (tmp_path / "held").iterdir()}
    chain = Chain(sorted(held), held)
    assert len(assert_whole(store, chain, tools=True)) >= 2
    clean_up(store, max_count=2, merge=True)
    left = assert_whole(store, chain, tools=True)
    assert len(left) == 2
    found = [one for one in rig.leftovers(store) if one.startswith(f"{HOME}/") and "." in one.rpartition("/")[2]]
    assert len([one for one in found if not one.endswith("/checked.json")]) == len(left) * FILES, found
    assert there(store) == left
