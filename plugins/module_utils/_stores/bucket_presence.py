# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the bucket of a store is there: one that is missing looks like a missing object."""

from __future__ import annotations

from typing import Callable

from .._errors import VmferryError


class BucketPresence:
    def __init__(self, name: str, endpoint_url: str, look: Callable[[], object]) -> None:
        """`look` asks the server in a way that fails where there is no bucket."""
        self._name, self._endpoint_url, self._look = name, endpoint_url, look
        self.known = False

    def require(self) -> None:
        """Asks once at the most."""
        if self.known:
            return
        try:
            self._look()
        except VmferryError as error:
            if error.kind == "not_found":
                raise VmferryError(
                    "not_found",
                    f"The bucket {self._name} does not exist at {self._endpoint_url}.",
                    "Create the bucket, or correct the storage URL.",
                ) from error
            if error.kind != "permission_denied":  # without the permission to list nobody can tell
                raise
        self.known = True
