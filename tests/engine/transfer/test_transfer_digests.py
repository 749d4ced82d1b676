# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The root is the naive one, the file says all that is needed, and damage is told with its place."""

from __future__ import annotations

import io
from typing import Iterator

import pytest
from disk_strategies import SEEDS, SIZES, random_disk
from disks_in_memory import naive_root
from engine.searching import examples
from hypothesis import given, settings

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_check import DigestCheck
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digest_file import (
    DigestReader,
    digest_file_bound,
    merged_leaves,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.digests import (
    DigestWriter,
    leaf_digests,
)


def digest_file(disk: bytes) -> tuple[bytes, str]:
    file = bytearray()
    writer = DigestWriter(len(disk), file.extend)
    writer.leaves(0, leaf_digests(bytearray(disk), len(disk)))
    root = writer.finish()
    return bytes(file), root


def increment(disk: bytes, changed: list[int], parents: list[bytes]) -> tuple[bytes, str]:
    file = bytearray()
    writer = DigestWriter(len(disk), file.extend, merged_leaves([reader(one) for one in parents]))
    digests = leaf_digests(bytearray(disk), len(disk))
    for index in changed:
        if digests[index] is None:
            writer.zero(index, 1)
        else:
            writer.leaves(index, [digests[index]])
    root = writer.finish()
    return bytes(file), root


def reader(file: bytes) -> DigestReader:
    return DigestReader(io.BytesIO(file).read, "disk-0.digests")


def check_of(disk: bytes) -> DigestCheck:
    file, root = digest_file(disk)
    return DigestCheck(len(disk), merged_leaves([reader(file)]), root, "disk-0")


@given(SEEDS, SIZES)
@settings(deadline=None, max_examples=examples(40))
def test_the_root_is_the_naive_one(seed: int, size: int) -> None:
    disk = random_disk(seed, size)
    file, root = digest_file(disk)
    assert root == naive_root(disk)
    assert len(file) <= digest_file_bound(-(-size // LEAF) * LEAF, size)


def test_a_disk_of_nothing_but_zeros_has_a_small_file_and_the_naive_root() -> None:
    file, root = digest_file(bytes(200 * LEAF + 5))
    assert file.count(b"\n") == 1
    assert file.endswith(b"\n")
    assert root == naive_root(bytes(200 * LEAF + 5))


@given(SEEDS, SIZES)
@settings(deadline=None, max_examples=examples(40))
def test_an_increments_root_is_that_of_the_whole_disk(seed: int, size: int) -> None:
    first, second, third = (random_disk(seed + n, size) for n in range(3))
    files = [digest_file(first)[0]]
    for old, new in ((first, second), (second, third)):
        changed = [
            n for n in range(-(-size // LEAF)) if old[n * LEAF : (n + 1) * LEAF] != new[n * LEAF : (n + 1) * LEAF]
        ]
        file, root = increment(new, changed, files)
        assert root == naive_root(new)
        files.append(file)
    check = DigestCheck(size, merged_leaves([reader(one) for one in files]), naive_root(third), "disk-0")
    found = leaf_digests(bytearray(third), size)
    check.compare(0, found, check.expect(0, len(found)))
    assert check.finish() == naive_root(third)


@given(SEEDS, SIZES)
@settings(deadline=None, max_examples=examples(30))
def test_a_file_read_in_crumbs_says_the_same(seed: int, size: int) -> None:
    file, _unused = digest_file(random_disk(seed, size))
    stream = io.BytesIO(file)
    crumbs = DigestReader(lambda count: stream.read(min(count, 7)))
    assert crumbs.header == reader(file).header
    assert list(crumbs) == list(reader(file))


def damaged_files() -> Iterator[tuple[str, bytes]]:
    file, _unused = digest_file(random_disk(3, 131 * LEAF + 512) + b"x")
    head = file.index(b"\n") + 1
    record = file[head : head + 24]
    yield "empty", b""
    yield "no header", b"not json\n" + file[head:]
    yield "another file", b'{"format": "other"}\n'
    yield "huge first line", b"x" * 100_000
    yield "cut in a digest", file[:-1]
    yield "cut in the words", file[: head + 5]
    yield "twice the same chunk", file + file[head:]
    yield "beyond the disk", file[:head] + (10**6).to_bytes(8, "big") + record[8:] + file[head + 24 :]
    yield "stored and zero", file[:head] + record[:16] + record[8:16] + file[head + 24 :]
    yield "no size", file.replace(b'"size"', b'"sise"')


@pytest.mark.parametrize(
    ("what", "file"), list(damaged_files()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_damaged_file_is_refused(what: str, file: bytes) -> None:
    with pytest.raises(VmferryError) as caught:
        list(reader(file))
    assert caught.value.kind == "checksum_mismatch", what
    assert "disk-0.digests" in caught.value.message


def test_a_newer_format_is_unsupported_not_damaged() -> None:
    file, _unused = digest_file(b"x")
    with pytest.raises(VmferryError) as caught:
        reader(file.replace(b'"sha256"', b'"blake9"'))
    assert caught.value.kind == "unsupported"


def test_a_wrong_leaf_is_named_by_its_place_on_the_disk() -> None:
    disk = random_disk(8, 70 * LEAF)
    check = check_of(disk)
    wrong = bytearray(disk)
    wrong[66 * LEAF + 3] ^= 1
    found = leaf_digests(wrong, len(wrong))
    with pytest.raises(VmferryError) as caught:
        check.compare(0, found, check.expect(0, 70))
    assert caught.value.kind == "checksum_mismatch"
    assert f"bytes {66 * LEAF} to {67 * LEAF}" in caught.value.message


def test_zeros_told_by_the_image_where_data_was_exported_are_found() -> None:
    disk = bytes(640 * LEAF) + b"x" * LEAF + bytes(900 * LEAF)
    check_of(disk).expect_zeros(0, 640)
    check_of(disk).expect_zeros(641, 900)
    with pytest.raises(VmferryError) as caught:
        check_of(disk).expect_zeros(0, 1541)
    assert f"bytes {640 * LEAF} to" in caught.value.message


def test_a_digest_file_changed_along_with_the_data_is_found_by_its_root() -> None:
    good, bad = random_disk(4, 80 * LEAF), random_disk(5, 80 * LEAF)
    check = DigestCheck(len(bad), merged_leaves([reader(digest_file(bad)[0])]), naive_root(good), "disk-0")
    found = leaf_digests(bytearray(bad), len(bad))
    check.compare(0, found, check.expect(0, len(found)))
    with pytest.raises(VmferryError) as caught:
        check.finish()
    assert caught.value.kind == "checksum_mismatch"


def test_records_cut_off_the_end_are_found_by_the_root() -> None:
    disk = bytes([7]) * (128 * LEAF)
    file, root = digest_file(disk)
    check = DigestCheck(len(disk), merged_leaves([reader(file[: -(24 + 64 * 32)])]), root, "disk-0")
    with pytest.raises(VmferryError):
        check.finish()
