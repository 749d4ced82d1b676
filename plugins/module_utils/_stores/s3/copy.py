# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object copied by the server itself, from one bucket or prefix to another that it also has."""

from __future__ import annotations

import secrets
from functools import partial
from typing import Any, Callable, Dict, Mapping, Optional

from ..._blocks import ObjectInfo, Part
from ..._errors import VmferryError
from ..metadata import UPLOAD_TOKEN, made_by, percent_encoded
from ..server_copy import CopyOrder, changed, copied_in_parts, insist_on_own, unless_unable
from .bucket import Bucket
from .parts import S3Parts

# bytes; the server takes its time for a call, and answers nothing meanwhile. At most 5 GiB:
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
AT_ONCE = 256 * 1024**2
MOST_PARTS = 10_000


def same_server(source: Bucket, target: Bucket) -> bool:
    """Whether the target's credentials are the source's. A customer's key would have to be told for both ends."""
    same = source.client.meta.endpoint_url == target.client.meta.endpoint_url and source.secrets == target.secrets
    return same and not source.encryption.customer_key and not target.encryption.customer_key


def copy_on_server(source: Bucket, target: Bucket, order: CopyOrder) -> Optional[ObjectInfo]:
    """None where the server does not do it."""
    info = order.info
    origin = {"CopySource": source.at(info.key), **({"CopySourceIfMatch": info.etag} if info.etag else {})}

    def insist() -> None:
        """There are servers that look at no condition on the source of a copy."""
        now = order.retry.call(source.head, info.key)
        if now is None or now.size != info.size or now.etag != info.etag:
            raise changed(f"{source.url}/{info.key}")

    insist()
    return unless_unable(lambda: _copy(origin, target, order, insist))


def _copy(origin: Mapping[str, Any], target: Bucket, order: CopyOrder, insist: Callable[[], object]) -> ObjectInfo:
    """`insist`: that the source is still what is to be copied."""
    size = order.info.size
    if size <= AT_ONCE and not order.if_absent:  # many servers copy a whole object on no condition
        copied: ObjectInfo = order.retry.call(_copied, origin, target, order)
        if origin["CopySource"] != target.at(order.key):
            _insist_behind(insist, target, copied, order)
        order.moved(size)
        return copied
    return copied_in_parts(
        order,
        max(AT_ONCE, -(-size // MOST_PARTS)),
        partial(S3Parts.to_copy, target, order.key, order.metadata),
        partial(S3Parts.resume, target, order.key, None, order.metadata),
        lambda writer, part: writer.copy_part(part, _ranged(origin, part)),
        insist,
    )


def _insist_behind(insist: Callable[[], object], target: Bucket, copied: ObjectInfo, order: CopyOrder) -> None:
    """A copy of what came after the source would have the notes of the source."""
    try:
        insist()
    except VmferryError:
        now = order.retry.call(target.head, order.key)
        if now is not None and now.etag == copied.etag:
            with target.doing("Removing", order.key):
                target.client.delete_object(**target.at(order.key), IfMatch=copied.etag)
        raise


def _copied(origin: Mapping[str, Any], target: Bucket, order: CopyOrder) -> ObjectInfo:
    mark = secrets.token_hex(16)
    with target.doing("Copying to", order.key):
        target.client.copy_object(
            **target.at(order.key),
            **origin,
            MetadataDirective="REPLACE",
            Metadata={**percent_encoded(order.metadata), UPLOAD_TOKEN: mark},
            **target.uploading(),
        )
    return insist_on_own(f"{target.url}/{order.key}", made_by(mark, target.head(order.key)), order.info.size)


def _ranged(origin: Mapping[str, Any], part: Part) -> Dict[str, Any]:
    return {**origin, "CopySourceRange": f"bytes={part.offset}-{part.offset + part.size - 1}"}
