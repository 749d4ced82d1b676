# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What imports that failed or died had made: removed, an image before its snapshots and an instance before both.

An import is whole once the last of its steps lost the state `unfinished`; what still has it then is needed no more.
"""

from __future__ import annotations

from typing import Callable, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..._errors import VmferryError
from ..._transfer.flow import Flow
from ..._transfer.retry import Retry, RetryPolicy
from .import_mark import ImportMark, insist_on_dead
from .import_things import KINDS, TOPS, Thing, of_attempt, unfinished_attempts
from .import_waits import wait_for
from .session import Session

ENDS_WITHIN = 600.0  # seconds for an instance to be terminated, and for its volumes to be let go
_POLICY = RetryPolicy(max_retries=6, base=1.0, cap=15.0)  # what is in use is let go within a minute


def clean_up_imports(session: Session, flow: Flow) -> Sequence[Tuple[str, str]]:
    """Of every import whose job is known to be dead: the VM it was to make, and a sentence."""
    return [(mark.name, _undone(session, flow, mark)) for mark in unfinished_attempts(session) if mark.alive is False]


def undo_imports(session: Session, flow: Flow, job_id: str) -> Sequence[str]:
    """Of this job, which is dead, as the caller knows. Raises `busy` where it can be seen that it lives."""
    return list(_undo_imports(session, flow, job_id))


def _undo_imports(session: Session, flow: Flow, job_id: str) -> Iterator[str]:
    for mark in unfinished_attempts(session):
        if mark.job == job_id:
            insist_on_dead(mark)
            yield _undone(session, flow, mark)


def _undone(session: Session, flow: Flow, mark: ImportMark) -> str:
    try:
        removed = remove_attempt(session, flow, mark.attempt)
    except VmferryError as error:
        text = f"Left some of what a dead {mark.describe()} had made of {mark.name}: {error.message} {error.hint}"
        return text.rstrip()
    what = ", ".join(f"{thing.kind} {thing.id}" for thing in removed)
    return f"Removed what a dead {mark.describe()} had made of {mark.name}: {what}."


def remove_attempt(session: Session, flow: Flow, attempt: str, known: Sequence[Thing] = ()) -> Sequence[Thing]:
    """All that this attempt made, but for what it had finished. `known`: what AWS may not find by its tags yet."""
    found = of_attempt(session, attempt)
    ids = {thing.id for thing in found}
    doomed = _doomed([*found, *(thing for thing in known if thing.id not in ids)])
    remove(session, flow, doomed)
    return doomed


def _doomed(found: Sequence[Thing]) -> List[Thing]:
    """All of it where the last step of those that were made is not finished, else what is of no more use."""
    top = next((kind for kind in TOPS if any(thing.kind == kind for thing in found)), "")
    if any(thing.unfinished for thing in found if thing.kind == top):
        return list(found)
    return [thing for thing in found if thing.unfinished]


def remove(session: Session, flow: Flow, doomed: Sequence[Thing]) -> None:
    """All of it that can be, whatever cannot; then the first error. What is gone already is none."""
    errors: List[VmferryError] = []
    retry = Retry(_POLICY, sleep=flow.sleep)
    for kind in KINDS:
        for thing in doomed:
            if thing.kind == kind:
                try:
                    retry.call(_removed, session, flow, thing)
                except VmferryError as error:
                    if error.kind != "not_found":
                        errors.append(error)
    if errors:
        raise errors[0]


def _removed(session: Session, flow: Flow, thing: Thing) -> None:
    try:
        _REMOVALS[thing.kind](session, flow, thing.id)
    except VmferryError as error:
        error.retryable = error.retryable or error.kind == "conflict"  # as of a snapshot whose image just went
        raise


def _remove_instance(session: Session, flow: Flow, instance: str) -> None:
    """And until it has ended: its volumes go with it, and what it was made of is in use until then."""
    client = session.client("ec2")
    with session.doing(f"Terminating the instance {instance}"):
        client.terminate_instances(InstanceIds=[instance])

    def look() -> Optional[bool]:
        with session.doing(f"Looking whether {instance} has ended"):
            pages = client.describe_instances(InstanceIds=[instance])["Reservations"]
        states = [one["State"]["Name"] for page in pages for one in page["Instances"]]
        return True if all(state == "terminated" for state in states) else None

    wait_for(flow, look, ENDS_WITHIN, f"{instance} to be terminated")


def _remove_image(session: Session, flow: Flow, image: str) -> None:
    with session.doing(f"Deregistering the image {image}"):
        session.client("ec2").deregister_image(ImageId=image)


def _remove_volume(session: Session, flow: Flow, volume: str) -> None:
    with session.doing(f"Deleting the volume {volume}"):
        session.client("ec2").delete_volume(VolumeId=volume)


def _remove_snapshot(session: Session, flow: Flow, snapshot: str) -> None:
    with session.doing(f"Deleting the snapshot {snapshot}"):
        session.client("ec2").delete_snapshot(SnapshotId=snapshot)


_REMOVALS: Mapping[str, Callable[[Session, Flow, str], None]] = {
    "instance": _remove_instance,
    "image": _remove_image,
    "volume": _remove_volume,
    "snapshot": _remove_snapshot,
}
