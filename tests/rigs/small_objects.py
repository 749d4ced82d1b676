# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Thousands of tiny objects put into a server behind a store's back, since an SDK takes milliseconds for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

_CONNECTIONS = 8


def send_all(port: int, method: str, paths: Sequence[str], headers: Mapping[str, str] | None = None) -> None:
    """One request for each path, with a body of one byte. Raises `AssertionError` for what is not answered by 2xx."""

    def send(some: Sequence[str]) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        for path in some:
            connection.request(method, path, b"x", dict(headers or {}))
            answer = connection.getresponse()
            said = answer.read()
            assert 200 <= answer.status < 300, f"{method} {path}: {answer.status} {said[:200]!r}"
        connection.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(send, [paths[start::_CONNECTIONS] for start in range(_CONNECTIONS)]))
