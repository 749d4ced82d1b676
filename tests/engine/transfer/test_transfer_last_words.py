# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job that ends since nothing answers does not wait again and again for what does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer import workers
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow, Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.last_words import LastWords
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.retry import Retry, RetryPolicy

PATIENCE = 0.3  # seconds
SOON = 5.0


class SilentStore:
    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()

    def ask(self) -> str:
        self.asked += 1
        assert self.answers.wait(60)
        return "answer"


@pytest.fixture
def store() -> Iterator[SilentStore]:
    made = SilentStore()
    yield made
    made.answers.set()


@pytest.fixture
def flow() -> Flow:
    return Flow()


def last_words(flow: Flow) -> LastWords:
    return LastWords(Retry(RetryPolicy(max_retries=1, base=0.01), flow.sleep), flow, PATIENCE)


def silence() -> VmferryError:
    return VmferryError("timeout", "No byte moved for 300 s.")


def test_all_that_is_undone_in_a_store_known_to_be_silent_waits_once(flow: Flow, store: SilentStore) -> None:
    words = last_words(flow)
    flow.stop(silence())
    started = time.monotonic()
    for _unused in range(20):
        with flow.shielded(), pytest.raises(VmferryError) as caught:
            words.call(store.ask)
        assert caught.value.kind == "timeout"
    assert PATIENCE <= time.monotonic() - started < 15 * PATIENCE  # not twenty times
    assert store.asked == 1


def test_a_store_that_a_call_gave_up_on_is_known_to_be_silent(flow: Flow, store: SilentStore) -> None:
    words = last_words(flow)

    def refuse() -> None:
        raise silence()

    with pytest.raises(VmferryError):
        words.call(refuse)
    with flow.shielded(), pytest.raises(VmferryError, match="nothing answers"):
        words.call(store.ask)


def test_one_that_answers_again_is_told_all_and_asked_again_where_a_call_fails(flow: Flow, store: SilentStore) -> None:
    words, failed = last_words(flow), []
    flow.stop(silence())
    store.answers.set()

    def fails_once() -> str:
        if not failed:
            failed.append(True)
            raise VmferryError("network", "The connection broke.")
        return store.ask()

    with flow.shielded():
        assert [words.call(fails_once) for _unused in range(3)] == ["answer"] * 3


def test_what_is_undone_for_another_reason_has_all_its_patience(flow: Flow, store: SilentStore) -> None:
    words = last_words(flow)
    flow.stop(VmferryError("timeout", "The job took longer than max_duration.", retryable=False))
    threading.Timer(3 * PATIENCE, store.answers.set).start()
    with flow.shielded():
        assert words.call(store.ask) == "answer"


def test_no_other_thread_begins_a_call_once_the_store_is_known_to_be_silent(flow: Flow, store: SilentStore) -> None:
    words = last_words(flow)
    flow.stop(silence())
    with pytest.raises(Stopped):
        words.call(store.ask)
    assert store.asked == 0


def test_a_call_that_was_given_up_is_not_tried_again_behind_our_back(flow: Flow) -> None:
    words, tries = last_words(flow), []

    def slow_failure() -> None:
        tries.append(time.monotonic())
        time.sleep(2 * PATIENCE)
        raise silence()

    flow.stop(silence())
    with flow.shielded(), pytest.raises(VmferryError):
        words.call(slow_failure)
    time.sleep(3 * PATIENCE)
    assert len(tries) == 1


def test_workers_that_wait_for_what_does_not_answer_are_left_behind(
    flow: Flow, store: SilentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LAST_WORDS", PATIENCE)
    error = silence()
    threading.Timer(0.1, flow.stop, [error]).start()
    started = time.monotonic()
    with pytest.raises(VmferryError) as caught:
        workers.run_workers(flow, 2, store.ask)
    assert caught.value is error
    assert time.monotonic() - started < SOON


def test_workers_end_before_anybody_goes_on_where_the_error_is_another(
    flow: Flow, store: SilentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LAST_WORDS", 0.0)
    ended = []

    def work() -> None:
        store.ask()
        ended.append(True)

    threading.Timer(0.1, flow.stop, [VmferryError("no_space", "The disk is full.")]).start()
    threading.Timer(0.1 + PATIENCE, store.answers.set).start()
    with pytest.raises(VmferryError):
        workers.run_workers(flow, 2, work)
    assert len(ended) == 2
