# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of the provider as tests open and read them."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import BlockSource
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.base import (
    Consistency,
    ExportDisk,
    ExportSession,
    Tracking,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.job import Job
from ansible_collections.vmferry.migrate.plugins.module_utils._providers.proxmox.provider import ProxmoxProvider
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.failpoints import VARIABLE

KIB, MIB = 1 << 10, 1 << 20
LEAF = 64 * KIB
EFI_BYTES = 528 * KIB
CHAIN = "c0ffee00"


def a_job() -> Job:
    return Job(secrets.token_hex(16), secrets.token_hex(4), CHAIN)


def noise(length: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(length)


def disk(seed: int = 1) -> bytes:
    """Data, nothing, data: 4 MiB."""
    return noise(MIB, seed) + bytes(2 * MIB) + noise(MIB, seed + 1000)


def an_export(
    provider: ProxmoxProvider,
    vmid: int,
    job: Job | None = None,
    *,
    consistency: Consistency = "auto",
    since: str = "",
    keep: bool = False,
) -> AbstractContextManager[ExportSession]:
    vm = provider.describe(str(vmid))
    return provider.open_export(vm, vm.disks, consistency, job or a_job(), Tracking(since, keep))


def begins(failpoint: str, settings: dict[str, Any], vmid: int, job: Job) -> None:
    """An export, in a process of its own, that comes as far as that."""
    os.environ[VARIABLE] = failpoint
    an_export(ProxmoxProvider(settings), vmid, job, keep=True).__enter__()


def content(source: BlockSource, parent: bytes = b"") -> bytes:
    """As an image of it would have it, on top of what it had before."""
    read = bytearray(parent or source.size)
    for extent in source.extents():
        if extent.kind == "data":
            source.read_into([(extent.offset, memoryview(read)[extent.offset : extent.end])])
        elif extent.kind == "zero":
            read[extent.offset : extent.end] = bytes(extent.length)
    return bytes(read)


def contents(session: ExportSession) -> dict[str, bytes]:
    return {one.spec.name: content(one.source) for one in session.disks}


def increments(session: ExportSession, parents: Mapping[str, bytes]) -> dict[str, bytes]:
    return {one.spec.name: content(changes_of(one), parents[one.spec.name]) for one in session.disks}


def changes_of(one: ExportDisk) -> BlockSource:
    assert one.changes is not None
    return one.changes


def changed_leaves(source: BlockSource) -> list[tuple[int, int, str]]:
    """First, how many, and of which kind."""
    found: Sequence[Any] = [extent for extent in source.extents() if extent.kind != "unchanged"]
    return [(one.offset // LEAF, one.length // LEAF, one.kind) for one in found]
