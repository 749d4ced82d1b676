# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images sent from their first byte on: what was planned keeps its place, whatever is found when it is read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.planned import PlannedQcow2
from ansible_collections.vmferry.migrate.plugins.module_utils._images.qcow2.streamed import PlannedWriter

from .disks import FEW, FileOutput, feed, judge, reference, runs_of, sizes


def found_instead(data: st.DataObject, planned: list[Extent]) -> list[Extent]:
    """Leaf by leaf, some of the data is zeros after all."""
    found = []
    for run in planned:
        for at in range(run.offset, run.end, LEAF):
            empty = run.kind == "zero" or data.draw(st.booleans())
            found.append(Extent(at, min(LEAF, run.end - at), "zero" if empty else "data"))
    return found


@FEW
@given(st.data())
def test_any_disk_is_the_same_to_qemu_and_as_long_as_was_said_before(data: st.DataObject) -> None:
    size = data.draw(sizes())
    planned = data.draw(runs_of(size))
    runs = found_instead(data, planned)
    with tempfile.TemporaryDirectory() as folder:
        output = FileOutput(Path(folder) / "image")
        writer = PlannedWriter(PlannedQcow2(size, planned), output)
        feed(writer, size, runs, 1)
        output.finish(writer)
        assert output.path.stat().st_size == writer.size_bound
        judge(output.path, reference(Path(folder) / "reference", size, (runs, 1)), size)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_runs_of_data_need_not_end_where_those_of_the_plan_do(tmp_path: Path, count: int) -> None:
    size = 40 * LEAF
    planned = [Extent(0, 10 * LEAF, "data"), Extent(12 * LEAF, 28 * LEAF, "data")]
    runs = [Extent(at, min(count * LEAF, 10 * LEAF - at), "data") for at in range(0, 10 * LEAF, count * LEAF)]
    runs.append(Extent(13 * LEAF, 20 * LEAF, "data"))
    output = FileOutput(tmp_path / "image")
    writer = PlannedWriter(PlannedQcow2(size, planned), output)
    feed(writer, size, runs, 1)
    output.finish(writer)
    judge(output.path, reference(tmp_path / "reference", size, (runs, 1)), size)


@pytest.mark.parametrize("at", [0, 9, 20])
def test_data_where_none_was_announced_is_an_error_and_never_lost(tmp_path: Path, at: int) -> None:
    plan = PlannedQcow2(30 * LEAF, [Extent(LEAF, 9 * LEAF, "data")])
    writer = PlannedWriter(plan, FileOutput(tmp_path / "image"))
    with pytest.raises(VmferryError) as raised:
        feed(writer, 30 * LEAF, [Extent(at * LEAF, 2 * LEAF, "data")], 1)
    assert raised.value.kind == "internal"
