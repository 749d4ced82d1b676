# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection that breaks is no end of an object, also to a library that takes it for one."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.azure.answers import RangeAnswer, WholeAnswer


class Raw(BytesIO):
    def read(self, size: int | None = -1, decode_content: bool = True) -> bytes:
        return super().read(size)


def answer(data: bytes, status: int = 200, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return SimpleNamespace(status_code=status, headers=named, raw=Raw(data))


def range_of(data: bytes, size: int) -> bytes:
    buffer = bytearray(size)
    taken = RangeAnswer("azblob://c/k", 10, memoryview(buffer), lambda: None)
    taken.take(answer(data, 206, Content_Range=f"bytes 10-{9 + min(size, 8)}/18"))
    return bytes(buffer)


def whole_of(data: bytes, limit: int = 100) -> bytes:
    taken = WholeAnswer(limit, lambda: None)
    taken.take(answer(data, Content_Length="8"))
    return bytes(taken.found)


def test_what_was_promised_is_what_is_taken() -> None:
    assert range_of(b"12345678", 8) == b"12345678"
    with pytest.raises(VmferryError, match="ends 12 bytes before"):
        range_of(b"12345678", 20)
    assert whole_of(b"12345678") == b"12345678"
    assert whole_of(b"12345678", 3) == b"123"


@pytest.mark.parametrize("broken", [lambda: range_of(b"123", 8), lambda: whole_of(b"123"), lambda: whole_of(b"")])
def test_a_connection_that_breaks_is_told(broken: Any) -> None:
    with pytest.raises(VmferryError) as raised:
        broken()
    assert (raised.value.kind, raised.value.retryable) == ("network", True)
