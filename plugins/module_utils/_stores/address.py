# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An object, named by the store and its key, or by one URL."""

from __future__ import annotations

from urllib.parse import unquote

from .._errors import VmferryError
from .keys import check_key


def split_object_url(url: str) -> tuple[str, str]:
    """The URL of the store, and the object's key: what stands behind the last `/`. Raises `invalid_config`."""
    above, slash, name = url.rpartition("/")
    is_path = url.startswith("/")
    if not slash or not name or (not is_path and above.rstrip("/").endswith(":")):
        raise VmferryError(
            "invalid_config",
            f"{url!r} names no object.",
            "Write the object's own URL, such as s3://bucket/path/name, or name it by key below the URL.",
        )
    return above or "/", check_key(name if is_path else unquote(name))


def address(url: str, key: str) -> tuple[str, str]:
    """As `split_object_url` where there is no key."""
    return (url, check_key(key)) if key else split_object_url(url)
