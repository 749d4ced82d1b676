# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object that is not whole yet, in its journal: an earlier run's, until this one goes on with it or has undone it.

The journal is all that tells of it. It is begun anew, or gone, only once what it told of is.
"""

from __future__ import annotations

import time
from contextlib import closing, contextmanager
from typing import ContextManager, Iterator, Mapping

from ..._blocks import PartReceipt, PartWriter
from ..._errors import VmferryError
from ..._stores.base import Store
from ..._transfer.object_journal import Begun, ObjectJournal, Place
from ..jobs.keeping import tell_what_is_kept
from ..jobs.running_job import RunningJob, state_dir_of

# How a store says that there is nothing to go on with. All else may pass, or be put right, and it is still there.
_GONE = ("not_found", "unsupported", "invalid_config")


class Unfinished:
    def __init__(
        self, job: RunningJob, journal: ObjectJournal, store: Store, key: str, binding: str, window: float
    ) -> None:
        self._job, self._journal, self._store, self._key = job, journal, store, key
        self._binding, self._window = binding, window
        self._is_ours = False  # what the journal tells of

    @classmethod
    @contextmanager
    def of(cls, job: RunningJob, store: Store, key: str, binding: str, window: float) -> Iterator[Unfinished]:
        """`binding`: what is sent there, and how. `window`: seconds in which what ended early is gone on with; 0: it is
        undone. Raises `busy` where another job has it."""
        with closing(ObjectJournal.open(state_dir_of(job.options), store.object_url(key))) as journal:
            yield cls(job, journal, store, key, binding, window)

    @property
    def url(self) -> str:
        return self._store.object_url(self._key)

    def fits(self) -> bool:
        """Whether an earlier run left something that can be gone on with."""
        return self._journal.begun(self._binding, self._window)[1] and self._window > 0

    def earlier(self, step: int) -> Begun | None:
        """What an earlier run left, in parts of `step` bytes. What cannot be gone on with is undone, or this raises."""
        begun, fits = self._journal.begun(self._binding, self._window)
        if begun is None or (fits and self._window > 0 and begun.part == step):
            return begun
        self._undo(begun)
        return None

    def resumed(self, begun: Begun, metadata: Mapping[str, str] | None = None) -> PartWriter | None:
        """None where it is gone."""
        try:
            return self._store.resume_parts(self._key, begun.token, begun.known, metadata=metadata)
        except VmferryError as error:
            if error.kind not in _GONE:
                raise
            self._job.log("info", f"What an earlier run sent of {self.url} cannot be used: {error}")
            return None

    def _undo(self, begun: Begun) -> None:
        writer = self.resumed(begun)
        if writer is not None:
            writer.abort()

    def go_on(self, count: int) -> None:
        """With `count` bytes that are there already."""
        self._journal.go_on(self._job.id)
        self._is_ours = True
        self._job.keeping.is_at_stake("made")
        self._job.tell(resumed={"export": self.url, "bytes_kept": count})

    def begin(self, token: str, step: int) -> None:
        self._journal.begin(self._binding, token, step, Place(self._store.url, self._key), self._job.id)
        self._is_ours = True
        self._job.keeping.is_at_stake("made" if self._window > 0 else "nothing")

    def took(self, receipt: PartReceipt) -> None:
        self._journal.took(receipt)

    def keeps(self, error: BaseException) -> bool:
        """Whether it stays for the next run, now that this one has failed; that is told."""
        if not self._is_ours or not self._job.keeps(error):
            return False
        self._job.undone = False  # until the next run
        cause = self._job.flow.error or error
        if isinstance(cause, VmferryError):
            tell_what_is_kept(cause, self.url, time.time() + self._window)
        return True

    def undoing(self) -> ContextManager[None]:
        return self._job.undoing(f"What was sent of {self.url}")

    def keep_or_undo(self, writer: PartWriter, error: BaseException) -> None:
        if self.keeps(error):
            writer.leave()
            return
        with self.undoing():
            self.drop(writer)

    def drop(self, writer: PartWriter) -> None:
        writer.abort()
        self.forget()

    def forget(self) -> None:
        """Nothing of it is left, if it was this run's."""
        if self._is_ours:
            self._journal.forget()

    def done(self) -> None:
        """The object is there. What an earlier run began of it, and this one did not go on with, goes."""
        if self._is_ours:
            self._journal.forget()
            return
        begun, _unused = self._journal.begun(self._binding, self._window)
        with self._job.undoing(f"What an earlier run sent of {self.url}"):
            if begun is not None:
                self._undo(begun)
            self._journal.forget()
