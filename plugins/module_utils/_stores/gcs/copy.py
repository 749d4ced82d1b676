# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object copied by Cloud Storage itself, from one bucket or prefix to another.

https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Dict, Optional, Tuple

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..metadata import checked_metadata
from ..server_copy import CopyOrder, changed, unless_unable
from .bucket import Bucket, Resource, info_of, matches
from .crc32c import decoded

_API = "/storage/v1"
_AT_ONCE = 1024**3  # bytes; where they have to move, the server answers nothing meanwhile
_TOKEN = re.compile(r"rewrite:([0-9]+):(.+)")  # bytes that are copied; the server's token, which is good for a week
_FORGOTTEN = ("internal", "not_found", "invalid_config")  # how an older token is refused


def copy_on_server(source: Bucket, target: Bucket, order: CopyOrder) -> Optional[ObjectInfo]:
    """None where the server does not do it."""
    return unless_unable(lambda: _copy(source, target, order))


def _copy(source: Bucket, target: Bucket, order: CopyOrder) -> ObjectInfo | None:
    info = order.info
    before = order.retry.call(source.look, info.key)
    if before is None or str(before.get("generation", "")) != info.etag:
        raise changed(f"{source.url}/{info.key}")
    if order.if_absent and target.look(order.key) is not None:  # the emulators copy on no condition
        raise VmferryError("conflict", f"{target.url}/{order.key} exists already.")
    crc = decoded(str(before.get("crc32c", "")))
    try:
        found = _rewritten(source, target, order)
    except VmferryError as error:
        made = _made_before(target, order, crc) if error.kind == "conflict" and order.if_absent else None
        if made is None:
            raise
        found = made
    if crc is None or not matches(found, crc, info.size):
        order.retry.call(target.remove, order.key, found.get("generation"))
        doing = target.doing("Copying to", order.key)
        raise VmferryError("checksum_mismatch", f"{doing} failed: the copy is not what the source is.", "")
    if (found.get("metadata") or {}) != dict(order.metadata):  # as an emulator does, which keeps the source's
        return None
    return info_of(order.key, found, target.connection.now)


def _rewritten(source: Bucket, target: Bucket, order: CopyOrder) -> Resource:
    try:
        return _rewritten_in_steps(source, target, order)
    except BaseException as error:
        if not order.notes.keeps(error):  # there is nothing to undo: what is not complete, the server forgets
            order.notes.forget()
        raise


def _rewritten_in_steps(source: Bucket, target: Bucket, order: CopyOrder) -> Resource:
    """What was rewritten before stays so: the token says how far."""
    told, token = _earlier(order)
    is_old = bool(token)
    while True:
        try:
            answer = _rewrite(source, target, order, token)
        except VmferryError as error:
            if not is_old or error.kind not in _FORGOTTEN:
                raise
            told, token, is_old = 0, "", False
            continue
        if is_old:
            order.notes.kept(told)
            order.moved(told)
            is_old = False
        copied = order.info.size if answer.get("done") else int(answer.get("totalBytesRewritten", 0))
        order.moved(copied - told)
        told = copied
        if answer.get("done"):
            found: Resource = answer.get("resource") or {}
            return found
        token = str(answer["rewriteToken"])
        order.notes.begin(f"rewrite:{copied}:{token}", _AT_ONCE)


def _made_before(target: Bucket, order: CopyOrder, crc: Optional[int]) -> Optional[Resource]:
    """Where nothing was when this copy began: maybe it was made, and its answer lost."""
    found: Optional[Resource] = order.retry.call(target.look, order.key)
    if found is None or crc is None or (found.get("metadata") or {}) != dict(order.metadata):
        return None
    return found if matches(found, crc, order.info.size) else None


def _earlier(order: CopyOrder) -> Tuple[int, str]:
    found = order.notes.earlier(_AT_ONCE)
    match = None if found is None else _TOKEN.fullmatch(found.token)
    return (0, "") if match is None else (int(match[1]), match[2])


def _rewrite(source: Bucket, target: Bucket, order: CopyOrder, token: str) -> Dict[str, Any]:
    asked: Dict[str, Any] = {"ifSourceGenerationMatch": order.info.etag, "maxBytesRewrittenPerCall": _AT_ONCE}
    if order.if_absent:
        asked["ifGenerationMatch"] = "0"
    if target.kms_key_name:
        asked["destinationKmsKeyName"] = target.kms_key_name
    if token:
        asked["rewriteToken"] = token
    described = {**target.described(None), "metadata": checked_metadata(order.metadata)}  # not the source's
    path = f"{source.path_of(order.info.key)}/rewriteTo{target.path_of(order.key)[len(_API) :]}"
    doing = target.doing("Copying to", order.key)
    answer: Dict[str, Any] = order.retry.call(
        partial(target.connection.json, doing, "POST", path, params=asked, json=described)
    )
    return answer
