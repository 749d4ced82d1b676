# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a job that moved files or objects left of those that it did not finish: removed at once, not by the next run."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from ..._errors import VmferryError
from ..._stores.base import Store
from ..._stores.open import open_store
from ..._transfer.object_journal import Begun, ObjectJournal, left_by
from ..attempts.litter import probe_key
from ..jobs.requests import StoreSpec

MOVES_OBJECTS = frozenset({"upload", "download", "copy"})  # kinds of jobs


def undo_objects(state_dir: Path, job: str, spec: StoreSpec | None) -> None:
    """Found by the journals of this host. `spec`: the store that was written to, where that is no folder. Raises
    `invalid_config` where it is not told, `busy` where another job goes on with what is there."""
    for path, found in left_by(state_dir, job):
        with closing(_opened(found, spec)) as store, closing(ObjectJournal.at(path, store.object_url(found.place.key))):
            _remove(store, path, job)


def _opened(found: Begun, spec: StoreSpec | None) -> Store:
    url = found.place.store
    if url.startswith("file://"):
        return open_store(url, {})
    store = None if spec is None else open_store(spec.url, spec.settings)
    if store is not None and store.url == url:
        return store
    if store is not None:
        store.close()
    raise VmferryError(
        "invalid_config",
        f"What the job left is in {url}, and is removed with the settings of that store alone.",
        "Give url and storage, as the task that started it had them for the store that it wrote to.",
    )


def _remove(store: Store, path: Path, job: str) -> None:
    """Read again, now that nobody else writes there. An object that was complete stays."""
    now = next((found for one, found in left_by(path.parent.parent, job) if one == path), None)
    if now is None:
        return
    store.probe(probe_key())  # by what it finds, an upload is known again
    writer = store.resume_parts(now.place.key, now.token, now.known)
    if writer is not None:
        writer.abort()
    path.unlink()
