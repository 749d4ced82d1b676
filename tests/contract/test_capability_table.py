# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of docs/stores.md is what the stores say, asked of real servers.

To write it anew: VMFERRY_WRITE_TABLES=1 pytest tests/contract/test_capability_table.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import StoreCapabilities
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.part_sizes import MAX_RECEIPTS

from .store_rigs import RIGS, StoreRig

PAGE = Path(__file__).resolve().parents[2] / "docs/stores.md"
BEGIN, END = "<!-- from tests/contract/test_capability_table.py -->\n", "<!-- to here -->\n"
# The rigs that do what the real thing does; the others are there for what can go wrong.
SHOWN = {
    "filesystem": ("[a path](path_and_nfs.md)", "`file:///srv/exports`, `/srv/exports`"),
    "nfs": ("[NFS](path_and_nfs.md)", "`nfs:///mnt/nas/exports`"),
    "s3": ("[S3](s3.md)", "`s3://bucket/prefix`"),
    "azure": ("[Azure Blob](azure_blob.md)", "`azblob://container/prefix`"),
    "gcs": ("[Google Cloud Storage](google_cloud_storage.md)", "`gs://bucket/prefix`"),
    "nginx_dav": ("[HTTP, WebDAV](http_webdav.md)", "`https://host/path`"),
}
NOT_SHOWN = {"wrapped", "sloppy_s3", "gcs_emulator", "rclone_dav"}
COLUMNS = (
    "store",
    "URL",
    "largest object that is written",
    "parts",
    "size of a part",
    "put only if absent",
    "put and delete only if unchanged",
    "refuses bytes that do not fit their checksum",
    "metadata",
    "how its bytes arrive",
)
UNITS = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1))


def size(count: int) -> str:
    for unit, length in UNITS:
        if not count % length and count // length < 10_000:
            return f"{count // length} {unit}"
    unit, length = next(((unit, length) for unit, length in UNITS if count >= length), ("B", 1))
    return f"{count / length:.4g} {unit}"


def yes(truth: bool) -> str:
    return "yes" if truth else "no"


def size_of_largest(found: StoreCapabilities) -> str:
    return size(min(found.max_object, parts_of(found) * found.max_part))


def parts_of(found: StoreCapabilities) -> int:
    return min(found.max_parts, MAX_RECEIPTS)


def way(rig: StoreRig, found: StoreCapabilities) -> str:
    if rig.declared.any_offset:
        return "at their place, in any order"
    parts = "as parts, in any order"
    return f"{parts}, which are read back and joined; or in one stream" if found.joins_parts else parts


def row(rig: StoreRig, found: StoreCapabilities) -> str:
    declared = rig.declared
    cells = (
        *SHOWN[rig.name],
        "what the file system holds" if declared.any_offset else size_of_largest(found),
        "any" if declared.any_offset else f"{parts_of(found):,}",
        "any" if declared.any_offset else f"{size(found.min_part)} to {size(found.max_part)}",
        yes(found.conditional_put),
        yes(found.conditional_replace),
        yes(found.verifies_checksums),
        yes(declared.keeps_metadata),
        way(rig, found),
    )
    return f"| {' | '.join(cells)} |\n"


@pytest.fixture(scope="session")
def rows() -> dict[str, str]:
    return {}


def test_every_rig_is_shown_or_known_not_to_be() -> None:
    assert {rig.name for rig in RIGS} == SHOWN.keys() | NOT_SHOWN


@pytest.mark.parametrize("name", SHOWN)
def test_the_row_of_a_store_is_what_it_says_of_itself(name: str, request: pytest.FixtureRequest) -> None:
    rig: StoreRig = request.getfixturevalue(name)
    wanted = row(rig, rig.fresh().probe("probe"))  # which is not closed: its client may be the session's
    text = PAGE.read_text()
    if os.environ.get("VMFERRY_WRITE_TABLES"):
        text = _with_row(text, wanted)
        PAGE.write_text(text)
    assert wanted in text.partition(BEGIN)[2].partition(END)[0]


def _with_row(text: str, wanted: str) -> str:
    before, _begin, rest = text.partition(BEGIN)
    table, _end, after = rest.partition(END)
    head = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n"
    title = wanted.split(" | ")[0]
    kept = [line for line in table.splitlines(keepends=True)[2:] if line.split(" | ")[0] != title]
    order = [f"| {shown[0]}" for shown in SHOWN.values()]
    lines = sorted([*kept, wanted], key=lambda line: order.index(line.split(" | ")[0]))
    return before + BEGIN + head + "".join(lines) + END + after
