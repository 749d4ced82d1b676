# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies below an exception: an SDK wraps requests, which wraps urllib3, which wraps sockets."""

from __future__ import annotations

from typing import Iterator, Optional

_MOST = 8
_WRAPPED = ("inner_exception", "reason")  # as the Azure SDK and urllib3 call it


def layers(error: BaseException) -> Iterator[BaseException]:
    """The exception itself first."""
    seen: Optional[BaseException] = error
    for _unused in range(_MOST):
        if seen is None:
            return
        yield seen
        named = [getattr(seen, name, None) for name in _WRAPPED]
        by_botocore = getattr(seen, "kwargs", {}).get("error")
        inner = [each for each in (by_botocore, *named, *seen.args) if isinstance(each, BaseException)]
        inner = [each for each in inner if each is not seen]
        seen = inner[0] if inner else seen.__cause__ or seen.__context__
