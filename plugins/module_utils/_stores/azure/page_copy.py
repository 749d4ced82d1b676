# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Page blobs, copied by Azure itself with all of their holes: a request that goes on behind its answer.

https://learn.microsoft.com/rest/api/storageservices/copy-blob
"""

from __future__ import annotations

import secrets
import time
from typing import Any, Dict

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..server_copy import CopyOrder, insist_on_own
from .container import Container, absent
from .grant import granted

_PAUSE = 0.5  # seconds between two looks at a copy
_STANDS_STILL = 600.0  # seconds without a byte, after which a copy is given up


def copy_whole(source: Container, target: Container, order: CopyOrder) -> ObjectInfo:
    """A page blob, by the server, with all of its holes."""
    key, info, mark = order.key, order.info, secrets.token_hex(8)
    metadata, condition = target.marked(order.metadata, mark), absent() if order.if_absent else {}

    def copy() -> ObjectInfo:
        found = target.if_marked(key, mark)  # maybe an answer was lost
        if found is None:
            copy_pages(source, info.key, info.etag, target, key, metadata, condition)
            found = target.if_marked(key, mark)
        return insist_on_own(f"{target.url}/{key}", found, info.size)

    return order.retry.call(copy)


def copy_pages(
    source: Container,
    source_key: str,
    etag: str,
    target: Container,
    key: str,
    metadata: Dict[str, str],
    condition: Dict[str, Any],
) -> None:
    """Returns when they are there; within an account that is at once, mostly."""
    grant = granted(source, source_key)
    url = str(source.blob(source_key).url) if grant.authorization else grant.url
    with target.hiding(grant.secret).doing("Completing", key):
        started = target.blob(key).start_copy_from_url(
            url, metadata=metadata, headers={"x-ms-source-if-match": etag}, **condition
        )
    status = str(getattr(started["copy_status"], "value", started["copy_status"]))
    seen, since = "", time.monotonic()
    while status == "pending":
        time.sleep(_PAUSE)
        target.alive()
        found = target.properties(key)
        if found is None or found.copy.id != started["copy_id"]:
            return  # another's by now, which whoever looks at it sees
        status, progress = str(found.copy.status), str(found.copy.progress)
        if progress != seen:
            seen, since = progress, time.monotonic()
        elif time.monotonic() - since > _STANDS_STILL:
            give_up(target, key, found)
            raise VmferryError("timeout", f"Azure copies no more bytes to {target.url}/{key}.", "Try again later.")
    if status != "success":
        raise VmferryError("network", f"Azure could not copy to {target.url}/{key}: {status}.", "Try again.")


def give_up(container: Container, key: str, found: Any) -> None:
    try:
        with container.doing("Giving up the copy to", key):
            container.blob(key).abort_copy(found.copy.id)
    except VmferryError as error:
        if error.kind not in ("conflict", "not_found"):  # it has ended by itself
            raise
