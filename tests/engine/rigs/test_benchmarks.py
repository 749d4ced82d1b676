# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks measure what they say, on disks small enough for a test, and tell it in the agreed form."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import export_once, run
from benchmarks.export import Bench
from benchmarks.fragmented import BITMAP, DATA_EVERY, LEAF, change_every_other_leaf, write_islands
from benchmarks.incremental import OnePercent
from benchmarks.measure import Figure

from rigs.counting_proxy import counting_proxy
from rigs.nbd import qemu_img, qemu_nbd

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20


def told(monkeypatch: pytest.MonkeyPatch, folder: Path, value: float) -> tuple[int, object]:
    def measure(_folder: Path, runs: int) -> Iterator[Figure]:
        yield Figure("wall", value, 0.8, "lower", "a peer", [value] * runs)

    monkeypatch.setattr(run, "GROUPS", {"one": measure})
    monkeypatch.setattr("sys.argv", ["run.py", "one", "--runs", "2", "--json", str(folder / "figures.json")])
    return run.main(), json.loads((folder / "figures.json").read_text())


def test_json_has_value_target_better_peer_and_runs_of_each_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    status, figures = told(monkeypatch, tmp_path, 0.5)
    assert status == 0
    assert figures == [
        {"figure": "wall", "value": 0.5, "target": 0.8, "better": "lower", "peer": "a peer", "runs": [0.5, 0.5]}
    ]


def test_missed_target_is_status_1(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert told(monkeypatch, tmp_path, 0.9)[0] == 1


def test_help_names_every_group() -> None:
    (line,) = (line for line in (ROOT / "dev").read_text().splitlines() if "the groups are" in line)
    assert line.split("the groups are ")[1].replace(" and ", ", ").split(", ") == sorted(run.GROUPS)


def test_every_other_leaf_of_a_fragmented_disk_is_an_extent_of_its_own(tmp_path: Path) -> None:
    leaves = 9 * LEAF  # bits for two clusters of the bitmap
    raw, image = tmp_path / "disk.raw", tmp_path / "disk.qcow2"
    write_islands(raw, 2 * DATA_EVERY, first=DATA_EVERY // 2)
    with raw.open("r+b") as file:
        file.truncate(leaves * LEAF)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    change_every_other_leaf(image, leaves)
    with qemu_nbd(image, "qcow2", "--read-only", f"--bitmap={BITMAP}") as socket:
        changes = export_once.changes_of(f"nbd:{socket}:{BITMAP}")
        assert changes is not None
        found = [(extent.length, extent.kind) for extent in changes.extents()]
        changes.close()
    expected = [(LEAF, "unchanged" if leaf % 2 else "zero") for leaf in range(leaves)]
    for leaf in (DATA_EVERY // 2, DATA_EVERY // 2 + DATA_EVERY):
        expected[leaf] = (LEAF, "data")
    assert found == expected


def test_what_comes_to_a_server_is_counted_and_nothing_that_it_sends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, counting_proxy(server.getsockname()[1]) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port))
        client.sendall(bytes(3 * MIB))
        there, _unused = server.accept()
        for _unused in range(3):
            assert there.recv(MIB, socket.MSG_WAITALL) == bytes(MIB)
        there.sendall(b"answer")
        assert client.recv(6, socket.MSG_WAITALL) == b"answer"
        client.close()
        assert there.recv(1) == b"", "the end is passed on"
        there.close()
        assert proxy.received == 3 * MIB


@pytest.mark.slow
def test_increment_of_one_percent_reads_and_stores_little_more_than_the_changes(tmp_path: Path) -> None:
    figures = {figure.figure: figure.value for figure in OnePercent(Bench(tmp_path, 1), 256 * MIB).figures()}
    for kind in ("scattered", "contiguous"):
        assert 0.9 < figures[f"1 % of 0.25 GiB, {kind}: bytes read but for the spot check"] <= 1
        assert 1 < figures[f"1 % of 0.25 GiB, {kind}: bytes stored"] < 1.5
    assert figures["content of a chain of 3, 0.25 GiB: speed"] > 0
