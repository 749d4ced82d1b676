# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk read out of a snapshot: which blocks there are, that each is proved, and what is asked of AWS for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Extent
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws import snapshot_blocks
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.block_reader import BlockReader
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.crew import Crew
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.request_rate import (
    PER_SECOND,
    RequestRates,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.session import Session
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.settings import AwsSettings
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.snapshot_blocks import (
    KeptPages,
    SnapshotBlocks,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.aws.snapshot_disk import MOST, SnapshotDisk
from rigs.aws import AwsServer
from rigs.aws.blocks import BLOCK, GIB

from .exports import block, disk

Opened = Callable[..., SnapshotDisk]


@pytest.fixture
def volume(aws: AwsServer) -> str:
    vm = aws.make_instance("disk", [disk(1, 2, 0, 3)])
    return aws.volumes(vm)["/dev/sda1"]


@pytest.fixture
def opened(aws: AwsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Opened]:
    """Of a snapshot, and of an older one."""
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path / "state"))
    session, crew = Session(AwsSettings.from_options(aws.settings())), Crew(4)
    rates = RequestRates(aws.account, aws.region, time.sleep)

    def open_disk(snapshot: str, older: str = "", kept: KeptPages | None = None, **more: Any) -> SnapshotDisk:
        reader = BlockReader(session, rates, snapshot, "/dev/sda1 of disk", lambda _seconds: None)
        blocks = SnapshotBlocks(session, rates, snapshot, GIB, "/dev/sda1 of disk", kept=kept)
        changed = SnapshotBlocks(session, rates, snapshot, GIB, "/dev/sda1 of disk", older) if older else None
        return SnapshotDisk(crew, reader, blocks, "/dev/sda1 of disk", changed, **more)

    yield open_disk
    crew.close()
    rates.close()
    session.close()


def taken(aws: AwsServer, volume: str) -> str:
    """A snapshot that is completed."""
    snapshot = str(aws.ec2.create_snapshot(VolumeId=volume)["SnapshotId"])
    aws.ec2.describe_snapshots(SnapshotIds=[snapshot])
    aws.ec2.describe_snapshots(SnapshotIds=[snapshot])
    return snapshot


def read(source: SnapshotDisk, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    source.read_into([(offset, memoryview(buffer))])
    return bytes(buffer)


def read_all(source: SnapshotDisk, failed: list[VmferryError]) -> None:
    try:
        list(source.extents())
        read(source, 0, BLOCK)
    except VmferryError as error:
        failed.append(error)


def test_what_was_never_written_is_zeros_and_nothing_is_asked_for_it(
    aws: AwsServer, volume: str, opened: Opened
) -> None:
    source = opened(taken(aws, volume))
    assert list(source.extents()) == [
        Extent(0, 2 * BLOCK, "data"),
        Extent(2 * BLOCK, BLOCK, "zero"),
        Extent(3 * BLOCK, BLOCK, "data"),
        Extent(4 * BLOCK, GIB - 4 * BLOCK, "zero"),
    ]
    assert read(source, 0, 6 * BLOCK) == disk(1, 2, 0, 3, 0, 0)
    assert (len(aws.calls("ListSnapshotBlocks")), len(aws.calls("GetSnapshotBlock"))) == (1, 3)


def test_pieces_that_cut_blocks_get_what_belongs_there_and_each_block_is_asked_for_once(
    aws: AwsServer, volume: str, opened: Opened
) -> None:
    source = opened(taken(aws, volume))
    list(source.extents())
    buffer = bytearray(3 * BLOCK)
    view = memoryview(buffer)
    half = BLOCK // 2
    source.read_into([(half, view[:BLOCK]), (3 * BLOCK + half, view[BLOCK : BLOCK + 100])])
    assert buffer[:BLOCK] == disk(1, 2)[half : half + BLOCK]
    assert buffer[BLOCK : BLOCK + 100] == block(3)[half : half + 100]
    assert read(source, 0, half) == block(1)[:half]
    assert read(source, BLOCK + half, half) == block(2)[half:]
    assert len(aws.calls("GetSnapshotBlock")) == 3


def test_what_differs_from_an_older_snapshot_is_told_and_a_block_that_is_gone_is_zeros(
    aws: AwsServer, volume: str, opened: Opened
) -> None:
    older = taken(aws, volume)
    aws.write(volume, BLOCK, b"new")
    aws.write(volume, 5 * BLOCK, block(9))
    aws.discard(volume, 3 * BLOCK, BLOCK)
    source = opened(taken(aws, volume), older)
    kinds = [(one.offset // BLOCK, one.length // BLOCK, one.kind) for one in source.extents()]
    assert kinds == [
        (0, 1, "unchanged"),
        (1, 1, "data"),
        (2, 1, "unchanged"),
        (3, 1, "zero"),
        (4, 1, "unchanged"),
        (5, 1, "data"),
        (6, GIB // BLOCK - 6, "unchanged"),
    ]
    assert read(source, 0, 6 * BLOCK) == block(1) + b"new" + block(2)[3:] + bytes(3 * BLOCK) + block(9), (
        "also where nothing changed"
    )


def test_pages_that_are_short_or_empty_lose_nothing(aws: AwsServer, volume: str, opened: Opened) -> None:
    aws.load(volume, disk(*range(1, 251)))
    older, _unused = taken(aws, volume), aws.discard(volume, 0, 250 * BLOCK)
    snapshot = taken(aws, volume)
    aws.change(page=100)
    try:
        aws.fault("ListSnapshotBlocks", "empty", skip=1)
        aws.fault("ListChangedBlocks", "empty", times=2)
        first = list(opened(older).extents())
        changes = list(opened(snapshot, older).extents())
    finally:
        aws.change(page=10_000)
    assert sum(one.length for one in first if one.kind == "data") == 250 * BLOCK
    assert sum(one.length for one in changes if one.kind == "zero") == 250 * BLOCK
    assert sum(one.length for one in changes) == GIB
    assert (len(aws.calls("ListSnapshotBlocks")), len(aws.calls("ListChangedBlocks"))) == (4, 5)


def test_so_many_pages_are_kept_of_all_disks_together(
    aws: AwsServer, volume: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_blocks, "KEPT", 1)
    snapshot, kept = taken(aws, volume), KeptPages()
    first, second = opened(snapshot, kept=kept), opened(snapshot, kept=kept)
    for source in (first, second, first):
        assert sum(one.length for one in source.extents() if one.kind == "data") == 3 * BLOCK
    assert len(aws.calls("ListSnapshotBlocks")) == 3, "that of the first was dropped for the second"
    assert read(first, 0, 4 * BLOCK) == read(second, 0, 4 * BLOCK) == disk(1, 2, 0, 3)


def test_more_pages_may_be_empty_the_larger_a_disk_is_and_not_without_end(
    aws: AwsServer, volume: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_blocks, "EMPTY", 2)
    snapshot = taken(aws, volume)
    aws.fault("ListSnapshotBlocks", "empty", times=3)  # 2,048 blocks are two more
    assert sum(one.length for one in opened(snapshot).extents() if one.kind == "data") == 3 * BLOCK
    aws.fault("ListSnapshotBlocks", "empty", times=-1)
    with pytest.raises(VmferryError, match="4 pages of the list are empty"):
        list(opened(snapshot).extents())


def test_tokens_that_are_over_are_asked_for_again(aws: AwsServer, volume: str, opened: Opened) -> None:
    source = opened(taken(aws, volume))
    list(source.extents())
    aws.expire_tokens()
    assert read(source, 0, 4 * BLOCK) == disk(1, 2, 0, 3)
    assert len(aws.calls("ListSnapshotBlocks")) >= 2


def test_a_page_whose_name_is_over_is_asked_for_by_its_first_block(aws: AwsServer, volume: str, opened: Opened) -> None:
    source = opened(taken(aws, volume))
    aws.fault("ListSnapshotBlocks", "empty")
    aws.fault("ListSnapshotBlocks", "tokens")
    assert sum(one.length for one in source.extents() if one.kind == "data") == 3 * BLOCK


@pytest.mark.parametrize("kind", ["corrupt", "truncate", "reset", "error", "throttle"])
def test_a_block_that_does_not_arrive_whole_is_asked_for_again(
    aws: AwsServer, volume: str, opened: Opened, kind: str
) -> None:
    source = opened(taken(aws, volume))
    aws.fault("GetSnapshotBlock", kind, times=2)
    assert read(source, 0, 2 * BLOCK) == disk(1, 2)


def test_a_block_that_never_fits_its_checksum_is_never_given(aws: AwsServer, volume: str, opened: Opened) -> None:
    source = opened(taken(aws, volume))
    aws.fault("GetSnapshotBlock", "corrupt", times=-1)
    with pytest.raises(VmferryError, match="Block 1 of /dev/sda1 of disk arrived otherwise") as caught:
        read(source, BLOCK, BLOCK)
    assert caught.value.kind == "checksum_mismatch"
    aws.heal()
    assert read(source, BLOCK, BLOCK) == block(2)


def test_a_key_that_may_not_be_used_is_named(aws: AwsServer, volume: str, opened: Opened) -> None:
    from botocore.exceptions import ClientError

    source = opened(taken(aws, volume))
    reader = source._reader
    reader._key = "arn:aws:kms:eu-west-1:1:key/k"
    said = {"Error": {"Code": "AccessDeniedException", "Message": "no"}, "Reason": "DEPENDENCY_ACCESS_DENIED"}

    def refuse(**_asked: Any) -> Any:
        raise ClientError(said, "GetSnapshotBlock")

    reader._session.client("ebs").get_snapshot_block = refuse
    aws.fault("GetSnapshotBlock", "denied")
    with pytest.raises(
        VmferryError, match=r"/dev/sda1 of disk .* may not use the key arn:aws:kms:eu-west-1:1:key/k"
    ) as caught:
        read(source, 0, BLOCK)
    assert caught.value.kind == "permission_denied"
    assert "kms:Decrypt" in caught.value.hint


def test_many_blocks_are_under_way_at_once_and_few_are_held(aws: AwsServer, volume: str, opened: Opened) -> None:
    """Eight reads one after the other of 0.25 s each take 2 s; four threads that read ahead, a quarter of it."""
    aws.load(volume, disk(*range(1, 61)))
    source = opened(taken(aws, volume))
    list(source.extents())
    most = 0
    for number in range(60):
        assert read(source, number * BLOCK, BLOCK) == block(number + 1)
        most = max(most, len(source._slots))
    assert 8 < most <= MOST, "it read ahead, and no farther"
    assert len(aws.calls("GetSnapshotBlock")) == 60, "and nothing twice"


def test_nothing_is_read_ahead_where_samples_are_read(aws: AwsServer, volume: str, opened: Opened) -> None:
    aws.load(volume, disk(*range(1, 61)))
    source = opened(taken(aws, volume))
    for number in (0, 1, 2, 30, 31, 59):
        assert read(source, number * BLOCK, 100) == block(number + 1)[:100]
    assert len(aws.calls("GetSnapshotBlock")) == 6


def test_whoever_waits_for_a_block_or_a_list_is_woken_when_it_is_closed(
    aws: AwsServer, volume: str, opened: Opened
) -> None:
    snapshot = taken(aws, volume)
    for operation in ("GetSnapshotBlock", "ListSnapshotBlocks"):
        source = opened(snapshot)
        failed: list[VmferryError] = []
        aws.forget_calls()
        aws.fault(operation, "hang", times=-1)  # whichever block is asked for first
        thread = threading.Thread(target=read_all, args=(source, failed))
        thread.start()
        while operation not in " ".join(aws.calls()):
            time.sleep(0.01)
        source.close()
        thread.join(30.0)  # which is less than the SDK's own patience
        aws.heal()
        assert not thread.is_alive()
        assert [one.kind for one in failed] == ["cancelled"]
        with pytest.raises(VmferryError, match="was ended"):
            read(source, 0, BLOCK)


def test_requests_keep_to_the_quota_of_the_account_and_those_of_other_processes_count(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("VMFERRY_STATE_DIR", str(tmp_path))
    slept: list[float] = []
    few = {**PER_SECOND, "GetSnapshotBlock": 4.0}

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        time.sleep(seconds)

    one = RequestRates("1", "eu-west-1", sleep, few)
    other = RequestRates("1", "eu-west-1", sleep, few)
    elsewhere = RequestRates("1", "us-east-1", sleep, few)
    begun = time.monotonic()
    for _unused in range(4):
        one.take("GetSnapshotBlock")
        other.take("GetSnapshotBlock")
    assert time.monotonic() - begun >= 1.0, "eight at four a second, of which few are saved up"
    slept.clear()
    elsewhere.take("GetSnapshotBlock")
    assert not slept
    for each in (one, other, elsewhere):
        each.close()
