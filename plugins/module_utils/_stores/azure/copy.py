# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object copied by Azure itself, from one container or prefix to another of the same account."""

from __future__ import annotations

from functools import partial
from typing import Optional

from ..._blocks import ObjectInfo
from ..server_copy import CopyOrder, changed, copied_in_parts, insist_on_own, unless_unable
from .checksums import Checksum
from .container import Container, absent, is_pages, quoted
from .grant import granted
from .page_copy import copy_whole
from .parts import AzureParts, new_mark

# bytes: what Copy Blob From URL takes, https://learn.microsoft.com/rest/api/storageservices/copy-blob-from-url
AT_ONCE = 256 * 1024**2
STEP = 128 * 1024**2  # bytes of a block; the server takes its time for one, and answers nothing meanwhile


def same_account(source: Container, target: Container) -> bool:
    """The source's credentials are told to no other server than the one that they are for."""
    one, other = source.client, target.client
    return (one.scheme, one.primary_hostname, one.account_name) == (
        other.scheme,
        other.primary_hostname,
        other.account_name,
    )


def copy_on_server(
    source: Container, target: Container, order: CopyOrder, *, checksum: Checksum, pages: bool
) -> Optional[ObjectInfo]:
    """None where the server does not do it, and where the copy is to be of another type than the source: `pages`, a
    page blob.
    """
    found = order.retry.call(source.properties, order.info.key)
    if found is None or quoted(found.etag) != order.info.etag:
        raise changed(f"{source.url}/{order.info.key}")
    if is_pages(found) is not pages:
        return None
    return unless_unable(lambda: _copy(source, target, order, checksum, pages))


def _copy(source: Container, target: Container, order: CopyOrder, checksum: Checksum, pages: bool) -> ObjectInfo:
    info = order.info
    if pages or info.size <= AT_ONCE:
        copied = copy_whole(source, target, order) if pages else _copied(source, target, order)
        order.moved(info.size)
        return copied
    return copied_in_parts(
        order,
        STEP,
        partial(AzureParts.create, target, order.key, checksum, order.metadata),
        partial(AzureParts.resume, target, order.key, checksum, order.metadata),
        lambda writer, part: writer.copy_part(part, granted(source, info.key), info.etag),
    )


def _copied(source: Container, target: Container, order: CopyOrder) -> ObjectInfo:
    """In one call, which makes the object whole or not at all."""
    mark = new_mark(target.session.now)
    tries = 0

    def copy() -> ObjectInfo:
        nonlocal tries
        tries += 1
        found = target.if_marked(order.key, mark) if tries > 1 else None  # maybe an answer was lost
        if found is None:
            _ask(source, target, order, mark)
            found = target.if_marked(order.key, mark)
        return insist_on_own(f"{target.url}/{order.key}", found, order.info.size)

    copied: ObjectInfo = order.retry.call(copy)
    return copied


def _ask(source: Container, target: Container, order: CopyOrder, mark: str) -> None:
    grant = granted(source, order.info.key)
    with target.hiding(grant.secret).doing("Copying to", order.key):
        target.blob(order.key).start_copy_from_url(
            grant.url,
            metadata=target.marked(order.metadata, mark),
            requires_sync=True,
            headers={"x-ms-source-if-match": order.info.etag},
            **(absent() if order.if_absent else {}),
            **grant.options,
            **target.creating,
        )
