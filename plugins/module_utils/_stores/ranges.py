# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A range of an object, as an HTTP server answers it, into memory that is there already.

Ranges: https://www.rfc-editor.org/rfc/rfc9110#section-14
"""

from __future__ import annotations

import re
import socket
from typing import Any, Callable, Mapping

from .._errors import VmferryError

READ_CHUNK = 1024 * 1024  # bytes read between two signs of life
_RANGE = re.compile(r"bytes (\d+)-(\d+)/")


def promised_bytes(status: int, headers: Mapping[str, str], url: str, offset: int, end: int) -> int:
    """How many of the bytes from `offset` to `end` an answer brings: fewer where the object ends before.

    `headers`: of any case, as HTTP libraries give them. `unsupported` where it brings others.
    """
    length = headers.get("Content-Length", "")
    found = _RANGE.match(headers.get("Content-Range", "")) if status == 206 else None
    if status != 206 and offset == 0 and length == str(end):
        return end
    if found is not None and int(found[1]) == offset and int(found[2]) < end:
        promised = max(0, int(found[2]) + 1 - offset)  # of a range behind the end some give less than nothing
        if length in ("", str(promised)):
            return promised
    raise VmferryError(
        "unsupported",
        f"Asked for bytes {offset} to {end} of {url}, the server gave others.",
        "The server, or a proxy before it, does not serve ranges of an object.",
    )


def fill(answer: Any, buffer: memoryview, promised: int, url: str, alive: Callable[[], object]) -> None:
    """The body of an answer of urllib3 into `buffer`, as it was sent.

    `network` where the connection breaks before all that was `promised` is here, `checksum_mismatch` where the object
    ends before the buffer is full.
    """
    filled, wanted = 0, buffer[:promised]
    while filled < promised:
        count = _read_into(answer, wanted[filled : filled + READ_CHUNK])
        if not count:
            raise VmferryError(
                "network", f"Reading {url} ended after {filled} of {promised} bytes.", "Try again later."
            )
        filled += count
        alive()
    if filled < len(buffer):
        raise VmferryError(
            "checksum_mismatch", f"{url} ends {len(buffer) - filled} bytes before what is known to be there."
        )


def _read_into(answer: Any, buffer: memoryview) -> int:
    """Past urllib3, which makes bytes of a body and copies them twice; the connection is its own again at the end."""
    from http.client import HTTPException, HTTPResponse

    from urllib3.exceptions import ProtocolError, ReadTimeoutError

    body = getattr(answer, "_original_response", None)
    if not isinstance(body, HTTPResponse):
        chunk = answer.read(len(buffer), decode_content=False)
        buffer[: len(chunk)] = chunk
        return len(chunk)
    try:
        count = body.readinto(buffer)
    except socket.timeout as error:  # which is a TimeoutError since Python 3.10 only
        raise ReadTimeoutError(None, None, "Read timed out.") from error  # type: ignore[arg-type]
    except (HTTPException, OSError) as error:
        raise ProtocolError(f"The connection broke: {type(error).__name__}.", error) from error
    if body.isclosed():
        answer.release_conn()
    return count
