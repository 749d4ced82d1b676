# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a storage URL to its store: a table of functions, each with a static import inside, so that one is paid for."""

from __future__ import annotations

from typing import Any, Callable, Mapping
from urllib.parse import urlsplit

from .._errors import VmferryError
from .base import Store

Settings = Mapping[str, Any]
Alive = Callable[[], object]


def _filesystem(url: str, settings: Settings, alive: Alive) -> Store:
    from .filesystem import open_filesystem

    return open_filesystem(url, settings)


def _s3(url: str, settings: Settings, alive: Alive) -> Store:
    from .s3 import open_s3

    return open_s3(url, settings, alive)


_OPENERS: Mapping[str, Callable[[str, Settings, Alive], Store]] = {"file": _filesystem, "s3": _s3}


def open_store(url: str, settings: Settings, alive: Alive = lambda: None) -> Store:
    """The store at `url`: `file:///path`, a bare absolute path, or `s3://bucket/prefix`.

    `settings` are the task's `storage` options; `alive` is called while the bytes of one long call move. Nothing is
    written and nothing is asked of a server yet. Raises `invalid_config` for a URL or a setting that cannot be meant,
    `unsupported` for a scheme that is not known.
    """
    if url.startswith("/"):
        return _filesystem(url, settings, alive)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise VmferryError("invalid_config", "The storage URL cannot be parsed.") from error
    if "@" in parts.netloc:
        raise VmferryError(
            "invalid_config",
            f"The {parts.scheme} storage URL carries credentials before its '@'.",
            "Leave them out of the URL and put them into the storage options, which are kept out of logs.",
        )
    if parts.query or parts.fragment:
        raise VmferryError("invalid_config", "The storage URL carries a query or a fragment, which no store takes.")
    opener = _OPENERS.get(parts.scheme)
    if opener is None:
        known = ", ".join(f"{scheme}://" for scheme in sorted(_OPENERS))
        raise VmferryError(
            "unsupported" if parts.scheme else "invalid_config",
            f"The storage URL's scheme '{parts.scheme}' is not known.",
            f"Known are {known} and an absolute path.",
        )
    return opener(url, settings, alive)
