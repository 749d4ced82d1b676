# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One file into each store and back: the modules against the tools people use, with the same server and streams."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Command, Cost, Figure, in_turn, ratio, run
from benchmarks.places import PLACES, Place

SIZE = 1 << 30  # bytes, of which no two blocks are alike
MEMORY = 150  # MB
ONCE = Path(__file__).with_name("module_once.py")


def measure(folder: Path, runs: int, size: int = SIZE) -> Iterator[Figure]:
    source = folder / "disk.img"
    with source.open("wb") as file:
        for at in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - at)))
    for name, started in PLACES.items():
        home = folder / name
        home.mkdir()
        with started(home) as place:
            yield from _Comparison(name, place, source, home, runs).figures()
        shutil.rmtree(home)


@dataclass(frozen=True)
class _Comparison:
    name: str
    place: Place
    source: Path
    home: Path
    runs: int

    @property
    def target(self) -> Path:
        return self.home / "received.img"

    def figures(self) -> Iterator[Figure]:
        yield from self._against("upload", self._upload, self.place.uploads(self.source))
        self.place.clear()
        self._upload()
        for peer in self.place.uploads(self.source).values():
            run(peer, self.place.environment)
        yield from self._against("download", self._download, self.place.downloads(self.target))
        self.place.clear()

    def _against(self, what: str, ours: Callable[[], Cost], peers: Mapping[str, Command]) -> Iterator[Figure]:
        prepare = self.place.clear if what == "upload" else self._forget

        def prepared(once: Callable[[], Cost]) -> Callable[[], Cost]:
            def act() -> Cost:
                prepare()
                os.sync()  # what the one before has left to write is not this one's to wait for
                return once()

            return act

        others = [prepared(lambda peer=peer: run(peer, self.place.environment)) for peer in peers.values()]  # type: ignore[misc]
        mine, theirs = in_turn(prepared(ours), others, self.runs)
        title, names = f"{self.name}, {what}", ", ".join(peers)
        for aspect, of in (("wall", lambda cost: cost.wall), ("CPU", lambda cost: cost.cpu)):
            best = [min(costs, key=of) for costs in zip(*theirs)]
            yield ratio(f"{title}: {aspect}", mine, best, of, 1.0, f"the best of {names}")
            for peer, costs in zip(peers, theirs) if len(peers) > 1 else ():
                yield ratio(f"{title}: {aspect}", mine, costs, of, None, peer)
        for aspect, of in (("wall", lambda cost: cost.wall), ("CPU", lambda cost: cost.cpu)):
            spent = [of(cost) for cost in mine]
            yield Figure(f"{title}: {aspect}, seconds", min(spent), None, "lower", "", spent)
        held = [cost.peak_rss / 1e6 for cost in mine]
        yield Figure(f"{title}: peak RSS, MB", max(held), MEMORY, "lower", "", held)

    def _forget(self) -> None:
        self.target.unlink(missing_ok=True)

    def _upload(self) -> Cost:
        return self._module("storage_upload", {"src": str(self.source), "key": "ours"})

    def _download(self) -> Cost:
        return self._module("storage_download", {"key": "ours", "dest": str(self.target)})

    def _module(self, name: str, asked: Mapping[str, Any]) -> Cost:
        """With its defaults."""
        state, arguments = self.home / "state", self.home / "arguments.json"
        shutil.rmtree(state, ignore_errors=True)
        where = {"url": self.place.url, "storage": dict(self.place.settings), "state_dir": str(state)}
        arguments.touch(mode=0o600)
        arguments.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": {**where, **asked}}))
        cost = run([sys.executable, str(ONCE), name, str(arguments)])
        return replace(cost, peak_rss=json.loads(cost.output.splitlines()[-1])["peak_rss"])
