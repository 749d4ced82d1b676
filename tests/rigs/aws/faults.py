# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong on purpose: the next calls of an operation meet it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

from rigs.aws.rest_api import Answer, ApiError

# By kind: what EBS direct says (code, reason), and EC2 and STS do (code, status).
# https://docs.aws.amazon.com/ebs/latest/userguide/error-retries.html
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
REFUSALS: Mapping[str, tuple[tuple[str, str], tuple[str, int]]] = {
    "throttle": (("RequestThrottledException", "ACCOUNT_THROTTLED"), ("RequestLimitExceeded", 503)),
    "error": (("InternalServerException", ""), ("InternalError", 500)),
    "denied": (("AccessDeniedException", "UNAUTHORIZED_ACCOUNT"), ("UnauthorizedOperation", 403)),
    "expired": (("ExpiredTokenException", ""), ("RequestExpired", 400)),
    "quota": (("ServiceQuotaExceededException", "DEPENDENCY_SERVICE_QUOTA_EXCEEDED"), ("SnapshotLimitExceeded", 400)),
    "unknown_key": (("UnrecognizedClientException", ""), ("AuthFailure", 401)),
}
KINDS = (
    *REFUSALS,
    "refuse",  # EC2 and STS, with `code` and `status`
    "empty",  # a page with no blocks, and a token of the next one
    "tokens",  # those of blocks and pages are said to be expired
    "corrupt",  # a bit of a block differs from what the checksum is of
    "truncate",  # half the answer, then the line is cut
    "slow",  # by `seconds`
    "reset",  # the line is cut before anything is done
    "lose_answer",  # and after
    "hang",  # there is no answer, ever
)


@dataclass
class Fault:
    on: str  # of an operation: GetSnapshotBlock
    kind: str
    match: str = ""  # what the request's path or body contains
    skip: int = 0  # calls that go well before
    times: int = 1  # -1: until it is healed
    seconds: float = 0.0
    code: str = ""
    status: int = 400

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"there is no {self.kind}, but {', '.join(KINDS)}")


class Faults:
    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append(fault)

    def heal(self) -> None:
        with self._lock:
            self._waiting.clear()

    def met(self, operation: str, said: str) -> Fault | None:
        """By a call; `said`: its path and what it asks."""
        with self._lock:
            for fault in self._waiting:
                if fault.on != operation or fault.match not in said:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times > 0:
                    fault.times -= 1
                    if fault.times == 0:
                        self._waiting.remove(fault)
                return fault
        return None


def refusal_of_blocks(kind: str) -> ApiError:
    (code, reason), _others = REFUSALS[kind]
    return ApiError(code, f"As the test wants it: {kind}", reason)


def refusal_by_query(service: str, fault: Fault) -> Answer:
    """Of EC2, whose errors are no other service's, or of STS."""
    code, status = (fault.code, fault.status) if fault.kind == "refuse" else REFUSALS[fault.kind][1]
    return query_error(service, code, f"As the test wants it: {fault.kind}", status)


def query_error(service: str, code: str, message: str, status: int) -> Answer:
    error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    if service == "ec2":
        text = f"<Response><Errors>{error}</Errors><RequestID>rig</RequestID></Response>"
    else:
        text = f"<ErrorResponse>{error}<RequestId>rig</RequestId></ErrorResponse>"
    return Answer(status, text.encode(), {"Content-Type": "text/xml"})


def asked_of(given: Mapping[str, Any]) -> Fault:
    return Fault(**given)
