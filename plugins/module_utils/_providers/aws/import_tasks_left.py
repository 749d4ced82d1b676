# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What imports by tasks of AWS left that failed or died, besides what any import leaves: their tasks, the snapshots
that these made and nobody has marked yet, and what lies in S3 for them.

Tasks are found by their tags, wherever they read. What lies in S3 without a task, since the import died before, is
found by its note, where the staging place is known.
"""

from __future__ import annotations

from typing import Dict, Iterator, List, Optional, Sequence, Tuple

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from .asking import every, of
from .import_leftovers import remove
from .import_mark import IMPORT, ImportMark, by_attempt, insist_on_dead
from .import_staging import clear, drop_note, noted
from .import_task import ImportTask, cancel, forget, import_tasks
from .import_things import Thing
from .session import Session
from .staged_image import StagedPlace
from .tags import tags_of

_LISTING = "Looking for tasks that imports left"
Places = Dict[str, StagedPlace]  # by the attempt


def end_attempt(
    session: Session,
    flow: Flow,
    mark: ImportMark,
    place: Optional[StagedPlace],
    known: Sequence[str] = (),
    *,
    keep_images: bool = False,
) -> None:
    """Nothing of its tasks is left, but for snapshots that are marked. `place`: where the tasks tell of none. `known`:
    ids of tasks that AWS may not tell of yet.

    Raises the first error; then the tasks, or the note, go on telling what stays.
    """
    tasks = cancel(session, mark.name, mark.attempt, known)
    for task in tasks:
        _remove_unmarked(session, flow, mark, task)
    places = {place, *(StagedPlace.of_tags(task.tags) for task in tasks if task.mark and task.mark.unfinished)}
    for one in places:
        if one is not None and keep_images:
            drop_note(session, one)
        elif one is not None:
            clear(session, one, mark.name)
    forget(session, mark.name, tasks)


def clean_up_tasks(session: Session, flow: Flow, staging: str) -> Sequence[Tuple[str, str]]:
    """Of every import whose job is known to be dead: the VM it was to make, and a sentence."""
    marks, places = _unfinished(session, staging)
    return [(mark.name, _ended(session, flow, mark, places)) for mark in marks if mark.alive is False]


def undo_tasks(session: Session, flow: Flow, job_id: str, staging: str) -> Sequence[str]:
    """Of this job, which is dead, as the caller knows. `staging`: '' where nobody knows it. Raises `busy` where it can
    be seen that it lives."""
    marks, places = _unfinished(session, staging)
    return list(_undone(session, flow, [mark for mark in marks if mark.job == job_id], places))


def being_imported(session: Session, name: str, staging: str) -> Sequence[ImportMark]:
    """One mark of each import by tasks that is not whole, and makes a VM of that name."""
    return [mark for mark in _unfinished(session, staging)[0] if mark.name == name]


def _undone(session: Session, flow: Flow, marks: Sequence[ImportMark], places: Places) -> Iterator[str]:
    for mark in marks:
        insist_on_dead(mark)
        yield _ended(session, flow, mark, places)


def _ended(session: Session, flow: Flow, mark: ImportMark, places: Places) -> str:
    try:
        end_attempt(session, flow, mark, places.get(mark.attempt))
    except VmferryError as error:
        text = f"Left some of what a dead {mark.describe()} had begun for {mark.name}: {error.message} {error.hint}"
        return text.rstrip()
    return f"Removed the tasks and the images of a dead {mark.describe()} of {mark.name}."


def _unfinished(session: Session, staging: str) -> Tuple[List[ImportMark], Places]:
    marks = [task.mark for task in import_tasks(session, _LISTING)]
    places: Places = {}
    if staging:
        for place, mark in noted(session, staging):
            places[mark.attempt] = place
            marks.append(mark)
    return by_attempt(mark for mark in marks if mark is not None and mark.unfinished), places


def _remove_unmarked(session: Session, flow: Flow, mark: ImportMark, task: ImportTask) -> None:
    """Once it is marked, it is one of the import's things."""
    if not task.snapshot:
        return
    doing = f"Looking at {task.snapshot}, which the task {task.id} made"
    asked = [of("snapshot-id", [task.snapshot])]
    for said in every(session, "describe_snapshots", doing, asked, OwnerIds=["self"]):
        if IMPORT not in tags_of(said):
            remove(session, flow, [Thing("snapshot", task.snapshot, "", mark, said)])
