# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file copied by the WebDAV server itself: https://www.rfc-editor.org/rfc/rfc4918#section-9.8"""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from functools import partial
from typing import Mapping, Optional

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..server_copy import CopyOrder, changed, unless_unable
from .folder import DavFolder
from .headers import CHECKSUM_NAME, is_same
from .placement import Placement

_LOOK = 1.0  # seconds between two looks at what grows


def copy_on_server(source: DavFolder, target: DavFolder, order: CopyOrder) -> Optional[ObjectInfo]:
    """None where the server does not copy, takes too long to say so, or would keep what is noted of the source."""
    return unless_unable(lambda: _copy(source, target, order))


def _copy(source: DavFolder, target: DavFolder, order: CopyOrder) -> ObjectInfo | None:
    info, retry = order.info, order.retry
    hidden = f"{order.key}.{secrets.token_hex(8)}.part"
    placement = Placement(target, order.key)
    try:
        retry.call(_insist_on, source, info)
        retry.call(target.make_folder, order.key.rpartition("/")[0])
        if not retry.call(_copied, source, info, target, hidden):
            return None
        retry.call(_insist_on, source, info)
        if not retry.call(_is_right, target, hidden, info, order.metadata):
            return None
        order.moved(info.size)
        retry.call(partial(placement.move, hidden, info.size, if_absent=order.if_absent))
        placed: ObjectInfo = retry.call(placement.placed, info.size)
        return placed
    finally:
        if not placement.done:
            with suppress(VmferryError):  # what is left of it, a cleanup finds
                placement.undo()
                target.remove(hidden)
                target.tidy(order.key)


def _insist_on(source: DavFolder, info: ObjectInfo) -> None:
    """Few servers look at a condition on the source of a copy."""
    now = source.find(info.key)
    if now is None or now.size != info.size or not is_same(now, info.etag):
        raise changed(source.url_of(info.key))


def _copied(source: DavFolder, info: ObjectInfo, target: DavFolder, hidden: str) -> bool:
    try:
        target.copy(source.target(info.key), hidden)
    except VmferryError as error:
        if error.kind != "timeout":
            raise
        return _grows(target, hidden, info.size)  # many a server says nothing before it has copied all
    return True


def _grows(target: DavFolder, hidden: str, size: int) -> bool:
    """Waits for as long as there is more at each look, and none is missing in the end. What has its whole length at
    once may be room that the server took, and be filled yet.
    """
    seen = -1
    while seen < size:
        found = target.head(hidden)
        if found is None or found.size <= seen or (seen < 0 and found.size == size):
            return False
        seen = found.size
        target.client.alive()
        time.sleep(_LOOK)
    return True


def _is_right(target: DavFolder, hidden: str, info: ObjectInfo, metadata: Mapping[str, str]) -> bool:
    """By all that the server says of the copy. False where it keeps what is noted of the source, and not what is to
    be noted of the copy."""
    found = target.find(hidden)
    here = {} if found is None else dict(found.metadata)
    checksum, expected = here.pop(CHECKSUM_NAME, ""), info.metadata.get(CHECKSUM_NAME, "")
    if found is None or found.size != info.size or (checksum and expected and checksum != expected):
        raise VmferryError(
            "checksum_mismatch",
            f"{target.url_of(hidden)}, which the server copied, is not what {info.key} is.",
            "Look at the server and its disk.",
        )
    return not here or here == dict(metadata)
