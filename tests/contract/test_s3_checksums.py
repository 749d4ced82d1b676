# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checksum travels with a part, with the AWS runtime installed and without it; the server verifies each."""

from __future__ import annotations

import sys

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import Part
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.checksums import candidates
from rigs.choosy_s3 import choosy_s3
from rigs.fault_proxy import FaultProxy

from .s3_wire import exercise, sent_with
from .store_rigs import S3Rig


@pytest.mark.parametrize(("installed", "algorithm"), [(True, "crc64nvme"), (False, "crc32")])
def test_the_cheapest_checksum_that_the_server_verifies_is_sent(
    s3: S3Rig, s3_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, installed: bool, algorithm: str
) -> None:
    if not installed:
        monkeypatch.delattr("awscrt.checksums")
        monkeypatch.setitem(sys.modules, "awscrt.checksums", None)  # as the import system marks what is not there
    store = s3.open(endpoint_url=s3_proxy.endpoint_url)
    assert store.probe("probe").verifies_checksums
    s3_proxy.reset()
    exercise(store)
    sent = sent_with(s3_proxy.requests, f"x-amz-checksum-{algorithm}")
    assert "" not in sent["part"] | sent["put"]
    assert sent_with(s3_proxy.requests, "x-amz-checksum-algorithm")["create"] == {algorithm.upper()}


def test_crc64nvme_is_that_of_the_standard() -> None:
    checksum = candidates()[0]
    assert checksum.algorithm == "CRC64NVME"
    # The check value of CRC-64/NVME in the catalogue of parametrised CRC algorithms.
    assert checksum.digest(memoryview(b"123456789")).hex() == "ae8b14860a799888"


CRC64, CRC32, MD5 = "x-amz-checksum-crc64nvme", "x-amz-checksum-crc32", "content-md5"


@pytest.mark.parametrize(
    ("verified", "unknown", "chosen", "verifies"),
    [
        ({CRC32, MD5}, {CRC64}, CRC32, True),
        ({CRC32, MD5}, set(), CRC32, True),  # CRC64NVME is taken without a look
        ({MD5}, {CRC64, CRC32}, MD5, True),  # as before 2022
        ({MD5}, set(), MD5, True),
        (set(), {CRC64, CRC32}, MD5, False),
        (set(), set(), CRC64, False),
    ],
)
def test_a_checksum_that_is_only_taken_gives_way_to_one_that_is_compared(
    verified: set[str], unknown: set[str], chosen: str, verifies: bool
) -> None:
    with choosy_s3() as server:
        server.verified, server.unknown = frozenset(verified), frozenset(unknown)
        keys = {"access_key": "AKID", "secret_key": "secret", "region": "us-east-1", "addressing_style": "path"}
        store = open_store("s3://exports", {**keys, "endpoint_url": server.endpoint_url})
        assert store.probe("probe").verifies_checksums is verifies
        assert (server.objects, server.uploads) == (set(), set())
        server.part_headers.clear()
        store.open_parts("vm/disk-0.qcow2").write_part(Part(1, 0, 7), memoryview(b"vmferry"))
        sent = server.part_headers[0].keys() & {CRC64, CRC32, MD5}
        store.close()
    assert sent == {chosen}
