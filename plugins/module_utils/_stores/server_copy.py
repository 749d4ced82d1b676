# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects that a server copies by itself: what is asked of it, when it is left to this host, and copies in parts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Callable, ContextManager, Mapping, Optional, Protocol, Tuple, TypeVar

from .._blocks import ObjectInfo, Part, PartReceipt, PartWriter
from .._errors import VmferryError
from .roles import ONCE, Retry

CANNOT = ("unsupported", "permission_denied", "unauthenticated")  # the bytes can still go through this host

Writer = TypeVar("Writer", bound=PartWriter)


@dataclass(frozen=True)
class Earlier:
    """A copy that ended before it was whole: by what the store knows it, and which parts it has."""

    token: str
    receipts: Mapping[int, PartReceipt] = field(default_factory=dict)

    @property
    def known(self) -> int:
        """Bytes, up to the end of the last part."""
        return max((one.part.offset + one.part.size for one in self.receipts.values()), default=0)


class Notes(Protocol):
    """What is known of a copy once its process has ended."""

    def earlier(self, step: int) -> Earlier | None:
        """Of the same version, to the same place, in parts of `step` bytes."""

    def begin(self, token: str, step: int) -> None: ...

    def kept(self, count: int) -> None:
        """So many bytes of an earlier one need not be copied again."""

    def took(self, receipt: PartReceipt) -> None: ...

    def keeps(self, error: BaseException) -> bool:
        """Whether what was copied stays for the next one, now that this one has failed."""

    def undoing(self) -> ContextManager[None]:
        """Inside, what was copied is removed although the job was stopped. What fails of that is told, not raised: the
        error that is being undone is the one to be raised."""

    def forget(self) -> None:
        """Nothing of it is left."""


class _NothingNoted:
    def earlier(self, step: int) -> Earlier | None:
        return None

    def begin(self, token: str, step: int) -> None: ...

    def kept(self, count: int) -> None: ...

    def took(self, receipt: PartReceipt) -> None: ...

    def keeps(self, error: BaseException) -> bool:
        return False

    def undoing(self) -> ContextManager[None]:
        return suppress(VmferryError)

    def forget(self) -> None: ...


NOTHING_NOTED: Notes = _NothingNoted()


@dataclass(frozen=True)
class CopyOrder:
    """What is to be copied, and how."""

    info: ObjectInfo  # of the source, which is to be that very object until it is copied
    key: str  # of the copy
    metadata: Mapping[str, str] = field(default_factory=dict)  # of the copy, and nothing else
    moved: Callable[[int], object] = lambda count: None  # is told how many bytes are copied; may raise, which ends it
    if_absent: bool = False  # `conflict` where something is at `key`
    retry: Retry = ONCE  # of each step, so that what fails is repeated and what was copied is not
    notes: Notes = NOTHING_NOTED


def unless_unable(copy: Callable[[], Optional[ObjectInfo]]) -> ObjectInfo | None:
    """None where the server does not do it."""
    try:
        return copy()
    except VmferryError as error:
        if error.kind in CANNOT:
            return None
        raise


def changed(url: str) -> VmferryError:
    """Of a source that is no longer the object to be copied."""
    return VmferryError("conflict", f"{url} has changed since it was looked at.")


def insist_on_own(url: str, found: ObjectInfo | None, size: int) -> ObjectInfo:
    """`found`: what this copy made at `url`, where that is still there."""
    if found is None or found.size != size:
        raise VmferryError("conflict", f"{url} was replaced while it was written.", retryable=True)
    return found


def copied_in_parts(
    order: CopyOrder,
    step: int,
    create: Callable[[], Writer],
    resume: Callable[[str, int], Optional[Writer]],
    copy: Callable[[Writer, Part], str],
    insist: Callable[[], object] = lambda: None,
) -> ObjectInfo:
    """By a writer whose parts the server fills, `step` bytes each but the last: one that is `create`d, or one that an
    earlier copy left. `resume` gets its token, and how many bytes it has; `copy` returns the part's receipt;
    `insist` raises where the source is another by the time that all parts are there.
    """
    writer, there = _writer(order, step, create, resume)
    try:
        receipts = []
        for number, offset in enumerate(range(0, order.info.size, step), 1):
            receipt = there.get(number)
            if receipt is None:
                part = Part(number, offset, min(step, order.info.size - offset))
                receipt = PartReceipt(part, b"", order.retry.call(copy, writer, part))
                order.notes.took(receipt)
            receipts.append(receipt)
            order.moved(receipt.part.size)
        insist()
        return order.retry.call(partial(writer.complete, receipts, order.info.size, if_absent=order.if_absent))
    except BaseException as error:
        if order.notes.keeps(error):
            writer.leave()
        else:
            with order.notes.undoing():
                order.retry.call(writer.abort)
                order.notes.forget()
        raise


def _writer(
    order: CopyOrder, step: int, create: Callable[[], Writer], resume: Callable[[str, int], Optional[Writer]]
) -> Tuple[Writer, Mapping[int, PartReceipt]]:
    """Also the parts that it has."""
    earlier = order.notes.earlier(step)
    writer = None if earlier is None else order.retry.call(resume, earlier.token, earlier.known)
    if earlier is not None and writer is not None:
        there = {number: one for number, one in earlier.receipts.items() if order.retry.call(writer.confirms, one)}
        order.notes.kept(sum(one.part.size for one in there.values()))
        return writer, there
    writer = order.retry.call(create)
    order.notes.begin(writer.token, step)
    return writer, {}
