# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server has copied of an object so far, in that object's journal: from it the next run has the server go on."""

from __future__ import annotations

from contextlib import contextmanager
from typing import ContextManager, Iterator

from ..._blocks import PartReceipt
from ..._stores.base import Store
from ..._stores.server_copy import CopyOrder, Earlier
from ..._transfer.failpoints import failpoint
from ..jobs.running_job import RunningJob
from .unfinished import Unfinished


class CopyNotes:
    """`Notes` of one copy."""

    def __init__(self, job: RunningJob, unfinished: Unfinished) -> None:
        self._job, self._unfinished = job, unfinished
        self.bytes_kept = 0

    @classmethod
    @contextmanager
    def of(cls, job: RunningJob, store: Store, source: str, order: CopyOrder, window: float) -> Iterator[CopyNotes]:
        """`source`: the URL of what is copied. `window`: seconds in which a copy that ended early is gone on with."""
        url, info = store.object_url(order.key), order.info
        how = f"{order.if_absent} {sorted(order.metadata.items())}"
        binding = f"by the server: {source} {info.etag} {info.size} to {url} {how}"
        with Unfinished.of(job, store, order.key, binding, window if info.etag else 0.0) as unfinished:
            yield cls(job, unfinished)

    def whole(self) -> None:
        """The object is there, whoever began another before."""
        self._unfinished.done()

    def earlier(self, step: int) -> Earlier | None:
        begun = self._unfinished.earlier(step)
        return None if begun is None else Earlier(begun.token, begun.receipts)

    def begin(self, token: str, step: int) -> None:
        self._unfinished.begin(token, step)
        failpoint("object-copy-begun")

    def kept(self, count: int) -> None:
        self.bytes_kept = count
        self._unfinished.go_on(count)
        self._job.log("info", f"Going on with {self._unfinished.url}, of which the server has {count} bytes already.")

    def took(self, receipt: PartReceipt) -> None:
        self._unfinished.took(receipt)
        failpoint("object-part-copied")

    def keeps(self, error: BaseException) -> bool:
        return self._unfinished.keeps(error)

    def undoing(self) -> ContextManager[None]:
        return self._unfinished.undoing()

    def forget(self) -> None:
        self._unfinished.forget()
