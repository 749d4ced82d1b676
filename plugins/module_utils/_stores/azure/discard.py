# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Unfinished uploads: which blocks there are, when they were begun, and how Azure is made to forget them.

No request aborts an upload. A name that has blocks only is listed as an uncommitted blob; beside an object that is
there, blocks are seen by asking for that very object's, which is done where something tells of an upload. What is left
alone, Azure forgets after a week.
"""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, Callable, Dict, Iterator, Sequence

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..base import SMALL_OBJECT
from ..keys import is_key
from .answers import WholeAnswer
from .container import Block, Container, absent, encode_metadata, is_pages, quoted, tier_of, unchanged
from .replacing import remove, replaced_key

DISCARDED = "vmferry-discarded"  # metadata of an empty object that is made only to be removed with the blocks
_TRIES = 20  # parts that were under way when an upload was aborted may land afterwards
_PAUSE = 0.25  # seconds
_AT_ONCE = 4  # questions about one object each, of which an old store has many
_OURS = re.compile(r"([0-9a-f]{8})[0-9a-f]{16}\d{6}[0-9a-f]{32}")


def abort_uploads(container: Container, prefix: str, chosen: Callable[[ObjectInfo], bool] | None) -> int:
    aborted, candidates = 0, list(_candidates(container, container.prefix + prefix))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(zip(candidates, pool.map(lambda one: one.blocks(container), candidates)))
    for one, blocks in found:
        if not (blocks or one.told_at):
            continue
        begun = _begun(blocks, container.session.now) if blocks else one.told_at
        info = ObjectInfo(one.key, sum(size for _unused, size in blocks or ()), "", begun)
        if (chosen is None or chosen(info)) and (one.pages or discard(container, one.key)):
            if one.beside:
                remove(container, one.beside)
            aborted += 1
    return aborted


@dataclass(frozen=True)
class _Candidate:
    key: str
    told_at: float = 0.0  # seconds since the epoch: when an object was made that tells of the upload; 0.0: by none
    beside: str = ""  # the key of that object, where it is another
    pages: bool = False  # that object is all that there is of it

    def blocks(self, container: Container) -> Sequence[Block] | None:
        return None if self.pages else container.blocks(self.key)


def _candidates(container: Container, prefix: str) -> Iterator[_Candidate]:
    """Names that have no object yet, and objects that are being replaced."""
    (discarded,) = encode_metadata({DISCARDED: ""})
    items = container.client.list_blobs(name_starts_with=prefix, include=["uncommittedblobs", "metadata"])
    for page in container.pages("Listing", "", items):
        for blob in page:
            key = blob.name[len(container.prefix) :]
            replaced = replaced_key(key)
            if replaced and is_key(replaced):
                yield _Candidate(replaced, blob.last_modified.timestamp(), key, is_pages(blob))
            elif is_key(key) and not blob.size and not is_pages(blob):
                # As an uncommitted blob, which has no size; whether it has an ETag depends on the server.
                names = {name.lower() for name in blob.metadata or {}}
                yield _Candidate(key, blob.last_modified.timestamp() if discarded in names else 0.0)


def _begun(blocks: Sequence[Block], now: float) -> float:
    """Of the youngest upload. Nobody knows when blocks of other programs were staged: they count as new."""
    known = [_OURS.fullmatch(name) for name, _unused in blocks]
    return max(float(int(match[1], 16)) if match else now for match in known)


def discard(container: Container, key: str, mark: str = "") -> bool:
    """Whether the server knows the blocks no more. With `mark`, another upload's are spared, and ours with them: they
    go when that one is completed. Others are left for Azure to forget.
    """
    for _unused in range(_TRIES):
        blocks = container.blocks(key)
        if blocks is None:
            return True
        if not blocks:
            _remove_discarded(container, key)
            return True
        try:
            if not all(name.startswith(mark) for name, _also_unused in blocks) or not _forget(container, key, blocks):
                return False
        except VmferryError as error:
            if error.kind not in ("conflict", "not_found"):
                raise
            time.sleep(_PAUSE)
    if container.properties(key) is not None:
        return False
    raise VmferryError(
        "conflict",
        f"The upload of {container.url}/{key} keeps coming back although it was aborted.",
        "Another process is still sending parts of it.",
        retryable=True,
    )


def _forget(container: Container, key: str, blocks: Sequence[Block]) -> bool:
    """An object that is there is committed once more as it is. False where that would take too much, or change it."""
    found = container.properties(key)
    if found is None:
        _forget_new(container, key)
        return True
    if found.tag_count:
        return False  # which may need a permission of their own
    blob, uncommitted = container.blob(key), {name for name, _unused in blocks}
    with container.doing("Discarding unfinished blocks of", key):
        committed, _unused = blob.get_block_list("committed")
        if sum(block.size for block in committed) != found.size:  # it was not put as blocks
            if found.size > SMALL_OBJECT:
                return False
            committed = [_as_block(container, key, found.size, len(blocks[0][0]))]
        elif uncommitted & {block.id for block in committed}:
            return False  # the SDK cannot say which of the two is meant, and Azure would take the new one
        as_it_is = {"metadata": found.metadata, **_kept(found), **unchanged(quoted(found.etag))}
        blob.commit_block_list(committed, **as_it_is)
    return True


def _as_block(container: Container, key: str, size: int, length: int) -> Any:
    """Of a name as long as those that are there, as Azure wants it."""
    from azure.storage.blob import BlobBlock

    whole, name = WholeAnswer(size, container.alive), token_hex(length)[:length]
    container.blob(key).download_blob(answer=whole)
    container.blob(key).stage_block(name, bytes(whole.found), length=size)
    return BlobBlock(name)


def _kept(found: Any) -> Dict[str, Any]:
    by_account = found.blob_tier_inferred or not found.blob_tier
    tier = {} if by_account else {"standard_blob_tier": tier_of(found.blob_tier)}
    return {"content_settings": found.content_settings, **tier}


def _forget_new(container: Container, key: str) -> None:
    """An empty list makes an empty object, and of that one can be rid, also later where an answer is lost."""
    blob, marked = container.blob(key), encode_metadata({DISCARDED: "1"})
    with container.doing("Discarding unfinished blocks of", key):
        made = blob.commit_block_list([], metadata=marked, **absent())
        blob.delete_blob(**unchanged(made["etag"]))


def _remove_discarded(container: Container, key: str) -> None:
    found = container.head(key)
    if found is not None and not found.size and DISCARDED in found.metadata:
        with container.doing("Discarding unfinished blocks of", key):
            container.blob(key).delete_blob(**unchanged(found.etag))
