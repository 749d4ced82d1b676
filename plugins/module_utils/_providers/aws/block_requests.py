# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""GetSnapshotBlock by the shortest way: signed and sent by parts of botocore, read into memory that is there already.

An export sends it tens of thousands of times, and half of the time that it takes here goes into what the SDK looks up
for each of them anew. Whatever is answered with anything but a block is left to the SDK, which knows what errors mean
and how slowly to go on: https://docs.aws.amazon.com/ebs/latest/APIReference/API_GetSnapshotBlock.html
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import quote

from .session import Session
from .snapshot_blocks import BLOCK

PAUSE = 60.0  # seconds behind a refusal in which only the SDK asks, which then paces what it sends
_OK = 200


@dataclass(frozen=True)
class Proof:
    """What the server says of the block that it sent; `length`: bytes that arrived of it."""

    algorithm: str
    checksum: str
    length: int


class BlockRequests:
    """Thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._not_before = 0.0

    def ask(self, snapshot: str, index: int, token: str, buffer: bytearray) -> Optional[Proof]:
        """The block in `buffer`. None: the SDK is to ask. Raises OSError where the body breaks off."""
        if time.monotonic() < self._not_before:
            return None
        client = self._session.client("ebs")
        http = getattr(getattr(client, "_endpoint", None), "http_session", None)  # its proxies, authorities, time-outs
        if http is None:
            return None
        request = self._signed(client, snapshot, index, token)
        answer = None if request is None else _sent(http, request)
        if answer is None:
            return None
        if answer.status_code != _OK or answer.headers.get("Content-Length") != str(BLOCK):
            answer.raw.close()
            self._not_before = time.monotonic() + PAUSE
            return None
        told = answer.headers
        return Proof(
            told.get("x-amz-Checksum-Algorithm", "SHA256"), told.get("x-amz-Checksum", ""), _read(answer.raw, buffer)
        )

    def _signed(self, client: Any, snapshot: str, index: int, token: str) -> Any:
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        credentials = self._session.credentials()
        if credentials is None:
            return None
        server = client.meta.endpoint_url.rstrip("/")
        request = AWSRequest(
            "GET",
            f"{server}/snapshots/{snapshot}/blocks/{index}?blockToken={quote(token, safe='-._~')}",
            headers={"User-Agent": client.meta.config.user_agent},
            stream_output=True,
        )
        SigV4Auth(credentials, "ebs", client.meta.region_name).add_auth(request)
        return request.prepare()


def _sent(http: Any, request: Any) -> Any:
    """None where it was not answered."""
    from botocore.exceptions import BotoCoreError

    try:
        return http.send(request)
    except BotoCoreError:
        return None


def _read(body: Any, buffer: bytearray) -> int:
    """Straight into the memory: urllib3's own `readinto` makes a copy, for which each thread keeps half a MiB."""
    at, below = 0, getattr(body, "_fp", None) or body
    with memoryview(buffer) as view:
        while at < len(view):
            count = below.readinto(view[at:])
            if not count:
                break
            at += count
    body.release_conn()
    return at
