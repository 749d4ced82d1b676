# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One of several processes that are at work on one store at a time; started by `test_cleanup_stress`.

What each export held is written down beside the store, so that whoever reads one can compare.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.exports.shelves import clean_up

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.catalog import Catalog
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store

from .chains import Disks, Guest, export, restored

STEPS = (
    *("fold_claimed", "fold_sent", "fold_recorded", "fold_replaced", "fold_replaced:2"),
    *("fold_verified", "fold_swapped", "fold_tidied", "deletion", "uncommitted", "deleted:3"),
)


@dataclass
class Worker:
    name: str
    spec: StoreSpec
    folder: Path
    until: float
    chance: random.Random
    count: Counter[str]

    def tell(self) -> None:
        (self.folder / "counts" / self.name).write_text(json.dumps(self.count))

    def held(self, made: str) -> Disks | None:
        path = self.folder / "held" / made
        return pickle.loads(path.read_bytes()) if path.exists() else None

    def export(self, store: Store) -> None:
        guest = Guest(self.chance.random())
        guest.reading = lambda: time.sleep(self.chance.random() * 0.02)
        while time.time() < self.until:
            try:
                made = export(self.spec, guest, self.folder / "state", max_chain=12, spot_check=4)
            except VmferryError as error:
                if error.kind != "conflict" or not error.retryable:
                    raise
                self.count["refused"] += 1
                continue
            if made["changed"]:
                note(self.folder, made["export"]["id"], guest.now)
                self.count[made["export"]["mode"]] += 1
            guest.write_some()
            time.sleep(self.chance.random() * 1.5)

    def clean(self, store: Store) -> None:
        while time.time() < self.until:
            if self.chance.random() < 0.15:
                os.environ["VMFERRY_FAILPOINT"] = self.chance.choice(STEPS)
            options: dict[str, Any] = {"max_count": self.chance.randrange(1, 6), "keep_last": self.chance.randrange(2)}
            if self.chance.random() < 0.2:
                options["orphans"] = True
            done = clean_up(store, merge=self.chance.random() < 0.6, **options)
            self.count["merged"] += len(done["merged"])
            self.count["deleted"] += len(done["deleted"])
            self.count["resumed"] += sum(one["kind"] in ("merge", "deletion") for one in done["orphans"])
            self.count["spared"] += sum(one["rule"] == "in_use" for one in done["exports"])
            self.tell()  # it may be killed
            time.sleep(self.chance.random() * 0.3)

    def read(self, store: Store) -> None:
        while time.time() < self.until:
            whole, broken = Catalog(store).read()
            assert broken == []
            if not whole:
                continue
            made = self.chance.choice(whole).manifest.export_id
            try:
                found = restored(store, made)
            except VmferryError as error:
                if error.kind != "conflict" and (error.kind != "not_found" or self.is_there(store, made)):
                    raise
                self.count["to read again"] += 1
                continue
            held = self.held(made)
            assert held in (None, found), f"{made} is not what it was"
            self.count["read"] += held is not None

    def is_there(self, store: Store, made: str) -> bool:
        return made in [entry.manifest.export_id for entry in Catalog(store).read()[0]]


def note(folder: Path, made: str, disks: Disks) -> None:
    """What an export held."""
    new = folder / f"{made}.new"
    new.write_bytes(pickle.dumps(disks))
    new.rename(folder / "held" / made)


def main() -> None:
    role, url, settings, folder, seconds, seed = sys.argv[1:]
    spec = StoreSpec(url, json.loads(settings))
    name = f"{role} {seed}"
    worker = Worker(name, spec, Path(folder), time.time() + float(seconds), random.Random(name), Counter())
    try:
        with closing(open_store(spec.url, spec.settings)) as store:
            getattr(worker, role)(store)
    finally:
        worker.tell()


if __name__ == "__main__":
    main()
