# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which failures leave what was made, where a task wants that: those that may be over by the next run."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import Kind, VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.intent import Intent
from ansible_collections.vmferry.migrate.plugins.module_utils._exports.naming import iso_time
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.attempts.attempt import AttemptFolder
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs import running_job
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.keeping import (
    NotResumable,
    Stake,
    TakenOver,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import TransferOptions
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.running_job import RunningJob
from ansible_collections.vmferry.migrate.plugins.module_utils._stores.filesystem.store import open_filesystem
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.journal import UnfitJournal
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise

EXPORT = "20261121T063000Z-1a2b3c4d"
PASSING = {"network", "timeout", "rate_limited", "no_space", "cancelled"}


def job(stake: Stake = "made") -> RunningJob:
    made = RunningJob("a" * 32, TransferOptions(), None, {})
    made.keeping.is_at_stake(stake)
    return made


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_may_pass_is_kept_and_nothing_else(kind: Kind) -> None:
    assert job().keeps(VmferryError(kind, "It failed.")) is (kind in PASSING)
    assert not job("nothing").keeps(VmferryError(kind, "It failed."))


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_a_dead_run_had_kept_stays_whatever_fails_before_anything_is_added_to_it(kind: Kind) -> None:
    assert job("found").keeps(VmferryError(kind, "It failed."))
    assert job("found").keeps(OSError(28, "No space left on device"))


@pytest.mark.parametrize(
    "cause", [NotResumable("it is gone"), UnfitJournal("Part 3 is another."), TakenOver("It is another's.", "")]
)
def test_what_cannot_be_gone_on_with_or_is_anothers_does_not_stay(cause: VmferryError) -> None:
    assert not job("found").keeps(cause)


@pytest.mark.parametrize("keeps", [True, False])
def test_what_was_settled_once_stays_so_whatever_goes_wrong_or_is_asked_for_behind_that(keeps: bool) -> None:
    one = job()
    one.keeping.settle(keeps)
    one.keeping.settle(not keeps)
    one.flow.request_cancel("the operator asks for it", ordered=True)
    one.flow.honour_cancel()
    for error in (OSError(28, "No space left on device"), Stopped(), VmferryError("network", "It went away.")):
        assert one.keeps(error) is keeps
    one.begin_anew()
    assert not one.keeps(VmferryError("network", "It went away."))


def test_the_first_error_decides_and_not_what_follows_from_it() -> None:
    one = job()
    one.flow.stop(VmferryError("network", "It went away."))
    assert one.keeps(Stopped())
    other = job()
    other.flow.stop(VmferryError("unauthenticated", "The key is wrong."))
    assert not other.keeps(VmferryError("network", "It went away."))


def test_what_somebody_does_not_want_is_not_kept() -> None:
    asked, silent = job(), job()
    asked.flow.request_cancel("the operator asks for it", ordered=True)
    silent.flow.request_cancel("it received SIGTERM")
    for one in (asked, silent):
        one.flow.honour_cancel()
    assert (asked.keeps(Stopped()), silent.keeps(Stopped())) == (False, True)


def test_neither_a_defect_nor_a_journal_that_lies_is_worth_keeping() -> None:
    assert not job().keeps(ZeroDivisionError())
    assert not job().keeps(UnfitJournal("Part 3 is another."))


@pytest.mark.parametrize("keeping", [True, False])
def test_a_job_that_is_left_behind_tells_what_is_kept_as_if_it_was_killed(
    keeping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running_job, "supervise", partial(supervise, grace=0.1, tick=0.05))
    stuck, one = threading.Event(), job("made" if keeping else "nothing")
    one.unfinished = lambda: (EXPORT, 1800000000.0)
    one.flow.stop(VmferryError("network", "It went away.", "Check the network."))
    with pytest.raises(VmferryError) as caught:
        one.supervise(stuck.wait)
    stuck.set()
    kept = {"kept": {"export": EXPORT, "until": iso_time(1800000000.0)}}
    assert caught.value.done == (kept if keeping else {})
    assert (iso_time(1800000000.0) in caught.value.hint) is keeping


@pytest.mark.parametrize("answers", [True, False])
def test_the_time_that_is_told_is_the_one_that_the_store_knows(
    answers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, one, began = open_filesystem(str(tmp_path), {}), job(), time.time() - 100
    one.capabilities = store.probe("probe")
    intent = Intent(EXPORT, one.id, "uuid", "web01", began, began, one.owner, window=3600.0).renewed(began, {})
    attempt = AttemptFolder(store, f"web01/{EXPORT}", intent, one)

    def silent(*_words: object, **_options: object) -> Any:
        raise VmferryError("timeout", "The server did not answer in time.")

    def export() -> None:
        with attempt:
            if not answers:
                monkeypatch.setattr(store, "put", silent)
            silent()

    with pytest.raises(VmferryError):
        export()
    assert (attempt.held_until == began + 3600.0) is not answers
    assert attempt.held_until >= began + 3600.0
