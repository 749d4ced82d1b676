# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which checksum travels with a part, with the AWS runtime installed and without it; the server verifies each."""

from __future__ import annotations

import sys

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3_checksums import candidates
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
