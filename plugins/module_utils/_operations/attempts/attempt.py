# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An attempt's folder in the store: claimed by an intent before anything else, kept by a lease, undone if it fails.

Whoever takes over a dead attempt first makes its intent their own, and only then looks whether a manifest appeared. Its
owner, should it live after all (a host that was paused, a clock that is wrong), looks at the intent after it wrote the
manifest. So one of the two always sees the other: an export never commits while its data is being removed, and what
others saw committed stays. An owner that finds the intent to be another's takes back its manifest alone: the other may
be going on with the rest; and that one, if it passed over the attempt for its manifest, looks once more whether the
manifest was taken back.

Nothing else takes a manifest back, and beside one no data is removed: others count on it as soon as it is there. Where
the store falls silent during the commit, the export is there or is not, and the next run sees which.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import TracebackType

from ..._blocks import ObjectInfo
from ..._errors import VmferryError
from ..._exports.intent import BEAT, CANCEL, INTENT, Intent, read_intent
from ..._exports.manifest import MANIFEST, MANIFEST_LIMIT
from ..._stores.base import Store
from ..._transfer.failpoints import failpoint
from ..._transfer.flow import Stopped
from ..._transfer.last_words import LAST_WORDS, is_silence
from ..jobs.keeping import TakenOver
from ..jobs.running_job import RunningJob
from .dead_attempts import remove_attempt, remove_intent


class AttemptFolder:
    """Entering writes the intent, leaving by an error removes everything below the folder; the intent goes last. Where
    another run has made the intent its own, leaving removes nothing of what is that run's now.
    """

    beat = BEAT

    def __init__(
        self, store: Store, folder: str, intent: Intent, job: RunningJob, written: ObjectInfo | None = None
    ) -> None:
        """`written`: the intent, where it is there already since a dead run's was made this one's."""
        self._store, self.folder, self._intent, self._job = store, folder, intent, job
        self._capabilities = job.capabilities
        self._written = written
        self._etag = ""
        self.held_until = 0.0  # seconds since the epoch, as the store was told last
        self.claimed_at = 0.0  # by the store's clock
        self._done = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._committed = False
        self._manifest: bytes | None = None

    def __enter__(self) -> AttemptFolder:
        try:
            text, conditional = self._intent.to_json(), self._capabilities.conditional_put
            written = self._written or self._store.put(self.key(INTENT), text, if_absent=conditional)
            self._etag, self.claimed_at = written.etag, written.modified
            self.held_until = self._intent.held_until
            failpoint("claimed")
        except BaseException:  # it may have been written although its answer was lost
            self._undo()
            raise
        self._keeper.start()
        return self

    def key(self, file: str) -> str:
        return f"{self.folder}/{file}"

    def commit(self, manifest: bytes) -> None:
        """Raises `conflict` where another run has taken this one for dead: then nothing is committed."""
        self._let_go(None)
        self._renew()
        failpoint("manifest")
        self._manifest = manifest
        try:
            self._put_manifest(manifest)
            failpoint("committed")
            self._insist_on_commit()
        except TakenOver:
            raise
        except (VmferryError, Stopped) as error:
            if not self._is_seen_committed():
                raise
            self._job.log("warning", f"The export is committed, although the store did not say so at once: {error}")
        self._committed = True
        # Beside a manifest it means nothing, and the next run removes it.
        with suppress(VmferryError), self._job.flow.shielded():
            remove_intent(self._store, self.folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go(LAST_WORDS if is_silence(self._job.flow.error or error) else None)
        if self._committed:
            return
        if isinstance(error, TakenOver) or isinstance(self._job.flow.error, TakenOver):
            with self._job.undoing(self._store.object_url(self.key(MANIFEST))):
                self._take_back_manifest()
        if self._job.keeps(error):
            self._leave()
        else:
            self._undo()

    def _leave(self) -> None:
        """Everything stays, for whoever comes next: nobody has to wait for the lease."""
        self._job.undone = False  # until the next run, or somebody who cancels this job
        with self._job.undoing(f"The claim on {self._store.object_url(self.folder)}"):
            self._intent = self._intent.left(time.time())
            self._put_own_intent()

    def _undo(self) -> None:
        url = self._store.object_url(self.folder)
        with self._job.undoing(url):
            if not self._is_ours():
                return
            if not remove_attempt(self._store, self.folder, self._job.warn, intent_too=self._job.undone):
                self._job.warn(f"{url} was committed all the same, and stays. Run the task again, which finds it.")

    def _take_back_manifest(self) -> None:
        seen = self._own_manifest()
        if seen is not None:
            try:
                self._store.delete(seen.key, if_match=seen.etag)
            except VmferryError as error:
                if error.kind != "conflict":  # the other run has put its own in its place
                    raise

    def _own_manifest(self) -> ObjectInfo | None:
        key = self.key(MANIFEST)
        info = None if self._manifest is None else self._store.stat(key)
        return info if info is not None and self._store.get(key, MANIFEST_LIMIT) == self._manifest else None

    def _is_ours(self) -> bool:
        """What has no intent is nobody's, or was committed by the run that made the intent its own."""
        key = self.key(INTENT)
        try:
            return read_intent(self._store.get(key), key).job_id == self._intent.job_id
        except VmferryError as error:
            if error.kind == "not_found":
                return self._store.stat(self.key(MANIFEST)) is None
            if error.kind == "invalid_config":  # whoever takes it over writes it anew
                return True
            raise

    def _let_go(self, patience: float | None) -> None:
        with self._job.flow.changing():  # the keeper may be waiting for its next try
            self._done.set()
        self._keeper.join(patience)

    def _keep(self) -> None:
        with suppress(Stopped), self._job.flow.until(self._done.is_set):
            while not self._done.wait(self.beat):
                self._beat()

    def _beat(self) -> None:
        try:
            self._renew()
            if self._store.stat(self.key(CANCEL)) is not None:
                self._job.flow.request_cancel(f"{self._store.object_url(self.key(CANCEL))} asks for it", ordered=True)
        except VmferryError as error:
            if error.kind == "conflict":
                self._job.flow.stop(error)
                raise Stopped from error
            # The data's own requests decide whether the store is lost.
            self._job.log("warning", f"The lease could not be renewed: {error}")

    def _renew(self) -> None:
        self._intent = self._intent.renewed(time.time(), self._job.progress.snapshot())
        self._put_own_intent()

    def _put_own_intent(self) -> None:
        """Also where an earlier answer was lost. Raises `conflict` where it is another's."""
        if not self._capabilities.conditional_replace:
            self._insist_on_ownership()
        try:
            self._put_intent()
        except VmferryError as error:
            if error.kind not in ("conflict", "not_found"):
                raise
            self._adopt()
            self._put_intent()

    def _put_intent(self) -> None:
        condition = self._etag if self._capabilities.conditional_replace else None
        intent = self._intent
        self._etag = self._store.put(self.key(INTENT), intent.to_json(), if_match=condition).etag
        self.held_until = intent.held_until

    def _adopt(self) -> None:
        """What is there is no longer what was seen to be written. It is ours where an answer was lost."""
        info = self._store.stat(self.key(INTENT))
        self._insist_on_ownership()
        self._etag = info.etag if info is not None else ""

    def _insist_on_ownership(self) -> None:
        key = self.key(INTENT)
        try:
            seen = read_intent(self._store.get(key), self._store.object_url(key))
        except VmferryError as error:
            if error.kind == "not_found":
                raise self._taken_over() from error
            raise
        if seen.job_id != self._intent.job_id:
            raise self._taken_over()

    def _put_manifest(self, manifest: bytes) -> None:
        key = self.key(MANIFEST)
        try:
            self._store.put(key, manifest, if_absent=self._capabilities.conditional_put)
        except VmferryError as error:
            if error.kind != "conflict":
                raise
            # Of the run that this one goes on with, as it was on the way when that was killed. Both tell of this data.
            self._insist_on_ownership()
            late = self._store.stat(key) if self._capabilities.conditional_replace else None
            self._store.put(key, manifest, if_match=late.etag if late is not None else None)

    def _is_seen_committed(self) -> bool:
        """Where an answer was lost. Raises `TakenOver`."""
        try:
            with self._job.flow.shielded():
                if self._own_manifest() is None:
                    return False
                self._insist_on_commit()
        except TakenOver:
            raise
        except VmferryError:
            return False
        return True

    def _insist_on_commit(self) -> None:
        """Others who saw the manifest remove the intent beside it, and build on the export: it is committed then. Where
        one removed the intent with all the rest, before there was a manifest, nothing is left beside it.
        """
        try:
            self._insist_on_ownership()
        except TakenOver:
            manifest, intent = self.key(MANIFEST), self.key(INTENT)
            left = {info.key for info in self._store.list(f"{self.folder}/")}
            if manifest not in left or intent in left or len(left) == 1:
                raise

    def _taken_over(self) -> VmferryError:
        return TakenOver(
            f"Another run took this export of {self._intent.vm_name} for dead, and goes on with it or removes it.",
            "This host was paused for minutes, or a clock is wrong. Export again.",
        )
