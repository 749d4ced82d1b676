# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An EBS snapshot into a raw file, by one pool of 64 threads, as people write it.

`aws_peer.py CONNECTION_FILE VOLUME FILE`
The checksum of each block is compared, since what is done in its place would do so as well. Nothing is tried again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

THREADS = 64


def main(connection: str, volume: str, target: str) -> None:
    asked = json.loads(Path(connection).read_text())
    named = {
        "endpoint_url": asked["endpoint_url"],
        "region_name": asked["region"],
        "aws_access_key_id": asked["access_key"],
        "aws_secret_access_key": asked["secret_key"],
        "config": Config(max_pool_connections=THREADS),
    }
    make: Any = boto3.client
    ec2, ebs = make("ec2", **named), make("ebs", **named)
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    ec2.get_waiter("snapshot_completed").wait(SnapshotIds=[snapshot], WaiterConfig={"Delay": 1})
    file = os.open(target, os.O_WRONLY | os.O_CREAT, 0o600)

    def copy(block: dict[str, Any]) -> None:
        answer = ebs.get_snapshot_block(
            SnapshotId=snapshot, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
        )
        data = answer["BlockData"].read()
        if base64.b64encode(hashlib.sha256(data).digest()).decode() != answer["Checksum"]:
            raise SystemExit(f"Block {block['BlockIndex']} is damaged.")
        os.pwrite(file, data, block["BlockIndex"] * len(data))

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            for size, blocks in _pages(ebs, snapshot):
                os.ftruncate(file, size << 30)
                list(pool.map(copy, blocks))
    finally:
        os.close(file)
        ec2.delete_snapshot(SnapshotId=snapshot)


def _pages(ebs: Any, snapshot: str) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """With the size of the volume, in GiB."""
    more: dict[str, str] = {}
    while True:
        page = ebs.list_snapshot_blocks(SnapshotId=snapshot, **more)
        yield page["VolumeSize"], page["Blocks"]
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


if __name__ == "__main__":
    main(*sys.argv[1:])
