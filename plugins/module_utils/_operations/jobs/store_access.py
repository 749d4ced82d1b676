# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job's store calls go through: bandwidth, then retry."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from ..._blocks import BlockSource
from ..._stores.base import Store
from ..._stores.limited import Gate, LimitedStore
from ..._stores.open import open_store, store_kind
from ..._stores.retrying import RetryingStore
from ..._transfer.flow import Flow
from ..._transfer.last_words import LAST_WORDS, LastWords
from ..._transfer.limiter import Limiter
from ..._transfer.limits import Limits
from ..._transfer.priority import WEIGHTS
from ..._transfer.progress import Progress
from ..._transfer.retry import OnRetry, Retry, RetryPolicy
from ..._transfer.shared_bucket import SharedBucket
from ..._transfer.timetable import Timetable, parse_timetable
from .limited_source import LimitedSource
from .requests import StoreSpec, TransferOptions

READ_TIMEOUT = 60.0  # seconds without a byte of an answer
CONNECT_TIMEOUT = 10.0  # seconds; the SDK waits as long where a body is sent and nobody takes it
SPARE_CONNECTIONS = 8  # beside those of the workers: for the lease, and for the digest files and workers of more disks


def keeps_files(spec: StoreSpec) -> bool:
    """Whether the store's objects are files, here or on a server of files, which have no metadata of their own."""
    return not store_kind(spec.url, spec.settings.get("type")).keeps_metadata


def takes_any_offset(spec: StoreSpec) -> bool:
    """As `PartWriter.any_offset`, known before there is a writer."""
    return store_kind(spec.url, spec.settings.get("type")).any_offset


class StoreAccess:
    def __init__(
        self,
        options: TransferOptions,
        flow: Flow,
        progress: Progress,
        retried: OnRetry,
        shared_in: Path | None,
    ) -> None:
        """`shared_in`: the state directory in which jobs of this host share their bandwidth; None: with nobody."""
        self._options, self._flow, self._progress, self._shared_in = options, flow, progress, shared_in
        self._bucket: SharedBucket | None = None
        self._shared: Limiter | None = None
        policy = RetryPolicy(max_retries=options.max_retries, give_up_after=options.idle_timeout)
        retry = Retry(policy, flow.sleep, retried, on_answer=progress.answered)
        self._retry = LastWords(retry, flow, min(LAST_WORDS, options.idle_timeout))

    def open(self, spec: StoreSpec, *, limited: bool = True) -> tuple[Store, Limits]:
        """And how to move bytes to it. `limited`: of a transfer between two stores, one's bytes count."""
        limits = Limits.of_transfer(store_kind(spec.url, spec.settings.get("type")).any_offset, self._options.parallel)
        settings = {"parallel": limits.workers + SPARE_CONNECTIONS, **spec.settings, **self._patience(spec.settings)}
        store = open_store(spec.url, settings, self._progress.alive)
        timetable = parse_timetable(self._options.bandwidth_limit)
        if limited and not timetable.unlimited:
            store = LimitedStore(store, self._limiter_of(timetable), self._progress.passing)
        return RetryingStore(store, self._retry), limits

    def limited(self, source: BlockSource) -> BlockSource:
        """A disk that is read from a file without the store, as fast as that would be read."""
        timetable = parse_timetable(self._options.bandwidth_limit)
        if timetable.unlimited:
            return source
        return LimitedSource(source, Gate(self._limiter_of(timetable), self._progress.passing))

    def close(self) -> None:
        if self._bucket is not None:
            self._bucket.close()

    def _limiter_of(self, timetable: Timetable) -> Limiter:
        self._shared = self._shared or self._limiter(timetable)
        return self._shared

    def _limiter(self, timetable: Timetable) -> Limiter:
        if self._shared_in is not None:
            self._bucket = SharedBucket(self._shared_in, repr(timetable))
        return Limiter(
            timetable,
            self._options.bandwidth_burst,
            self._flow.sleep,
            waiting=self._progress.alive,
            bucket=self._bucket,
            weight=WEIGHTS[self._options.priority],
        )

    def _patience(self, given: Mapping[str, Any]) -> dict[str, float]:
        """A store that stands still is not waited for longer than the job would be."""
        chosen = {"read_timeout": READ_TIMEOUT, "connect_timeout": CONNECT_TIMEOUT, **given}
        return {name: min(chosen[name], self._options.idle_timeout) for name in ("read_timeout", "connect_timeout")}
