# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stores as a task names them: by a URL and settings, each test below a URL of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from secrets import token_hex

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import StoreSpec
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.base import Store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.open import open_store
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.s3.client import connect

from .store_rigs import S3Rig

KINDS = ("file", "s3")
one_client = cache(connect)  # of the same settings; making one costs more than most of what it is asked
Places = Callable[[str], StoreSpec]
each_kind = pytest.mark.parametrize("kind", KINDS)


def place(kind: str, folder: Path, s3: S3Rig) -> StoreSpec:
    if kind == "file":
        root = folder / f"store-{token_hex(4)}"
        root.mkdir()
        return StoreSpec(root.as_uri())
    return StoreSpec(f"s3://{s3.bucket}/{token_hex(4)}", s3.server.settings)


def opened(spec: StoreSpec) -> closing[Store]:
    """Behind the back of what is tested."""
    return closing(open_store(spec.url, spec.settings))
