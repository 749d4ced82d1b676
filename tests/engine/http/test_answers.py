# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answers and failures of any server mean, before a store adds what only its own says."""

from __future__ import annotations

import ssl
import time
from email.utils import formatdate

import pytest
from urllib3.exceptions import MaxRetryError, NewConnectionError, ReadTimeoutError

from ansible_collections.vmferry.migrate.plugins.module_utils._http.answers import (
    BUSY,
    CONNECTION_BROKE,
    GARBLED,
    SHORT,
    Meaning,
    blotted,
    failure,
    refusal,
    unreached,
)


def test_a_server_says_in_seconds_or_by_a_date_when_to_come_again() -> None:
    assert refusal(BUSY, "Reading", "7").retry_after == 7
    at = refusal(BUSY, "Reading", formatdate(time.time() + 60, usegmt=True)).retry_after
    assert at is not None
    assert 50 < at <= 60
    assert refusal(BUSY, "Reading", formatdate(time.time() - 60, usegmt=True)).retry_after == 0


@pytest.mark.parametrize("wait", ["", "soon", "-1"])
def test_what_is_no_time_to_wait_is_none(wait: str) -> None:
    assert refusal(BUSY, "Reading", wait).retry_after is None


def test_bytes_that_the_wire_changed_are_sent_again_and_an_object_that_is_too_short_stays_so() -> None:
    assert refusal(GARBLED, "Writing").retryable
    assert not refusal(SHORT, "Reading").retryable


def test_what_a_server_repeats_of_the_credentials_is_blotted_out() -> None:
    assert blotted("the key\n hunter2 is  not known.", ["hunter2"]) == "the key … is not known"


def _explained(_error: Exception) -> Meaning:
    return CONNECTION_BROKE


def test_a_certificate_that_was_refused_once_is_refused_again() -> None:
    error = failure(ssl.SSLCertVerificationError("refused"), "Reading", _explained, "the storage URL")
    assert not error.retryable
    assert failure(OSError("broken"), "Reading", _explained).retryable


def test_a_name_is_missed_where_the_user_gave_it() -> None:
    refused = ssl.SSLCertVerificationError("refused")
    refused.verify_code = 62
    assert "into the storage URL" in failure(refused, "Reading", _explained, "the storage URL").hint
    assert "into endpoint_url" in failure(refused, "Reading", _explained).hint


def test_a_server_that_is_not_there_is_told_from_one_that_is_slow_however_deep_it_lies() -> None:
    pool, hint = None, "Check endpoint_url and the network."
    nobody = MaxRetryError(pool, "/", NewConnectionError(pool, "refused"))  # type: ignore[arg-type]
    assert unreached(OSError(nobody)) == (
        "network",
        "no connection could be made",
        "Check endpoint_url and the network.",
    )
    slow = ConnectionError(ReadTimeoutError(pool, "/", "late"))  # type: ignore[arg-type]
    assert unreached(slow) == ("timeout", "the server did not answer in time", hint)
    assert unreached(OSError("reset")) is None
