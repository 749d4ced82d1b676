# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cleanup that is killed while it merges: all exports read as they did, and the next one finishes or undoes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from engine.exports.shelves import clean_up, keys

from ansible_collections.vmferry.migrate.plugins.module_utils._exports.folding import FOLDING
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.litter import PROBE
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store

from .chains import HOME, Chain, assert_whole
from .store_rigs import StoreRig

Load = Callable[[Store], Chain]
BEFORE = ("fold_claimed", "fold_sent", "fold_sent:2", "fold_recorded")
AFTER = ("fold_replaced", "fold_replaced:2", "fold_verified", "fold_swapped", "fold_tidied")
LATER = ("deletion", "uncommitted", "deleted:2")
CLEAN_UP = """
import json, sys
from contextlib import closing
from engine.exports.shelves import clean_up
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
url, settings, options = sys.argv[1], *map(json.loads, sys.argv[2:])
with closing(open_store(url, settings)) as store:
    clean_up(store, **options)
"""
FILES = 7  # of an export: two images, two digest files, manifest, vm.json, native/domain.xml
STEPS = [
    *(("filesystem", step) for step in [*BEFORE, *AFTER, *LATER]),
    *(("s3", step) for step in ["fold_recorded", "fold_replaced", "fold_swapped"]),
]


@pytest.fixture
def store(rig: StoreRig) -> Store:
    return rig.fresh()


def killed(rig: StoreRig, store: Store, step: str, **options: Any) -> None:
    settings = rig.server.settings if hasattr(rig, "server") else {}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "VMFERRY_FAILPOINT": step}
    arguments = [store.url, json.dumps(settings), json.dumps(options)]
    done = subprocess.run([sys.executable, "-c", CLEAN_UP, *arguments], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL, "it was not killed, so nothing was tried"


def files_in(rig: StoreRig, store: Store) -> list[str]:
    """Also what is unfinished."""
    return [one for one in rig.leftovers(store) if "." in one.rpartition("/")[2] and not one.startswith(PROBE)]


@pytest.mark.parametrize(("rig", "step"), STEPS, indirect=["rig"])
def test_every_export_comes_back_after_a_kill_and_the_next_cleanup_leaves_nothing(
    rig: StoreRig, store: Store, chain: Load, step: str
) -> None:
    made = chain(store)
    before = files_in(rig, store)
    killed(rig, store, step, max_count=2, merge=True)
    left = assert_whole(store, made, tools=True)
    assert set(made.ids[3:]) <= set(left)
    assert (step in LATER) == (f"{HOME}/{made.ids[3]}/{FOLDING}" not in keys(store))
    told = clean_up(store, check_mode=True, max_age=86400.0)
    kinds = [one["kind"] for one in told["orphans"]]
    assert kinds == (["merge"] if step not in LATER else ["deletion"] if step != "deletion" else [])
    resumed = clean_up(store, max_age=86400.0)  # which asks for no merge, and marks nothing
    assert [one["kind"] for one in resumed["orphans"]] == kinds
    assert_whole(store, made)
    if step in BEFORE:
        assert files_in(rig, store) == before
    finished = clean_up(store, max_count=2, merge=True)
    assert bool(finished["merged"]) == (step in BEFORE)
    assert assert_whole(store, made) == made.ids[3:]
    assert len(files_in(rig, store)) == 2 * FILES
    assert not [key for key in keys(store) if key.endswith((FOLDING, "deleting.json"))]
