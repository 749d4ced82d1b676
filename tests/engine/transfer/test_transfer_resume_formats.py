# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of any format whose export is killed and gone on with: byte for byte what comes of one that lives."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest
from disks_in_memory import MemorySource
from engine.images.disks import content, mixed
from engine.images.other_formats import new_image
from killed_attempt import Attempt

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF, Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._images.fast_zlib import fast_zlib
from ansible_collections.vmferry.migrate.plugins.module_utils._images.formats import FORMATS
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import journal

SIZE = 70 * LEAF + 1000
RUNS = [Extent(0, 30 * LEAF, "data"), Extent(30 * LEAF, 5 * LEAF, "zero"), Extent(35 * LEAF, SIZE - 35 * LEAF, "data")]


@pytest.fixture(autouse=True)
def entries_as_often_as_can_be() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal, "STEP", 2 * LEAF)
        patch.setattr(journal, "SMALL", 0)
        yield


class OneImage(Attempt):
    def image(self, size: int, output: Any, data_bound: int, reads_runs: bool) -> Any:
        return FORMATS[self.format].write(new_image(size, RUNS), output)


def disk(format_: str) -> bytes:
    data = (content if FORMATS[format_].compressions == ("none",) else mixed)(0, SIZE, 1)
    return data[: 30 * LEAF] + bytes(5 * LEAF) + data[35 * LEAF :]


@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
@pytest.mark.parametrize("format_", [name for name in FORMATS if name != "qcow2"])
def test_a_killed_export_goes_on_to_the_same_image(format_: str, any_offset: bool) -> None:
    data = disk(format_)
    whole = OneImage(any_offset, format_)
    result = whole.run(MemorySource(data, RUNS))
    for deaths in ((0, 3), (1,), (2, 1, 1), (4,)):
        killed = OneImage(any_offset, format_)
        died = [killed.die(MemorySource(data, RUNS), writes) for writes in deaths]
        assert any(died)
        again = killed.run(MemorySource(data, RUNS))
        assert (again.digest_root, again.size) == (result.digest_root, result.size)
        assert killed.store.object == whole.store.object


@pytest.mark.parametrize("any_offset", [False, True], ids=["parts", "file"])
def test_what_one_library_has_begun_no_other_goes_on_with(any_offset: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes would be others: half an image of each is an image of neither."""
    data, killed = disk("vmdk"), OneImage(any_offset, "vmdk")
    assert killed.die(MemorySource(data, RUNS), 3)
    assert fast_zlib().__name__ == "isal.isal_zlib"
    fast_zlib.cache_clear()
    try:
        with monkeypatch.context() as without:
            without.setitem(sys.modules, "isal", None)  # as the import system marks what is not there
            with pytest.raises(journal.UnfitJournal):
                killed.run(MemorySource(data, RUNS))
    finally:
        fast_zlib.cache_clear()
