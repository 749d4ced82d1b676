# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many requests a second EBS direct takes, kept to by all processes of a host together.

The quotas are of an account in a region, and those that a new account has. Whoever asks for more is refused with
RequestThrottledException, as is everybody else in that account: https://docs.aws.amazon.com/general/latest/gr/ebs-service.html
"""

from __future__ import annotations

from threading import Lock
from typing import Callable, Dict, List, Mapping, Optional

from ..._errors import VmferryError
from ..._transfer.bucket import Bucket
from ..._transfer.limiter import Limiter
from ..._transfer.record import default_state_dir
from ..._transfer.shared_bucket import SharedBucket
from ..._transfer.timetable import Timetable

PER_SECOND: Mapping[str, float] = {
    "GetSnapshotBlock": 1000.0,
    "PutSnapshotBlock": 1000.0,
    "ListSnapshotBlocks": 50.0,
    "ListChangedBlocks": 50.0,
    "StartSnapshot": 10.0,
    "CompleteSnapshot": 10.0,
}


class RequestRates:
    """Thread-safe. Where the state directory cannot be written, a process keeps to the quotas alone."""

    def __init__(
        self,
        account: str,
        region: str,
        sleep: Callable[[float], object],
        per_second: Optional[Mapping[str, float]] = None,
    ) -> None:
        """`sleep`: may raise, to end a wait."""
        self._whose, self._sleep, self._per_second = f"aws {account} {region}", sleep, per_second or PER_SECOND
        self._lock = Lock()
        self._limiters: Dict[str, Limiter] = {}
        self._shared: List[SharedBucket] = []

    def take(self, operation: str) -> None:
        """Returns when one request of that name may be sent; raises what `sleep` raises."""
        with self._lock:
            limiter = self._limiters.get(operation)
            if limiter is None:
                limiter = self._limiters[operation] = self._limiter(operation)
        limiter.take(1)

    def close(self) -> None:
        with self._lock:
            shared, self._shared = self._shared, []
        for bucket in shared:
            bucket.close()

    def _limiter(self, operation: str) -> Limiter:
        timetable = Timetable(((0, self._per_second[operation]),))
        return Limiter(timetable, sleep=self._sleep, bucket=self._bucket(operation))

    def _bucket(self, operation: str) -> Bucket:
        try:
            bucket = SharedBucket(default_state_dir(), f"{self._whose} {operation}")
        except VmferryError:
            return Bucket()
        self._shared.append(bucket)
        return bucket
