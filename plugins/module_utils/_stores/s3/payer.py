# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Buckets whose requests are paid for by who sends them, and who has to say so with each.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/RequesterPaysBuckets.html
"""

from __future__ import annotations

from typing import Any, Dict


def say_who_pays(client: Any) -> None:
    """A header, and not a parameter: not every operation of every botocore has one."""
    client.meta.events.register("before-call.s3", _before_call)


def _before_call(params: Dict[str, Any], **_unused: Any) -> None:
    params["headers"]["x-amz-request-payer"] = "requester"
