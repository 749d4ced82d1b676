# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a folder that say whose its files are, and who may read them."""

from __future__ import annotations

import grp
import pwd
from typing import Any, Callable, Mapping

from ..._errors import VmferryError
from .folders import Access


def access_of(settings: Mapping[str, Any]) -> Access:
    return Access(
        _mode(settings.get("mode")),
        _account(settings.get("owner"), "owner", lambda name: pwd.getpwnam(name).pw_uid),
        _account(settings.get("group"), "group", lambda name: grp.getgrnam(name).gr_gid),
    )


def _mode(value: object) -> int:
    if value is None:
        return 0o600
    try:
        mode = value if isinstance(value, int) else int(str(value), 8)
    except ValueError:
        mode = -1
    if not 0o600 <= mode <= 0o777 or mode & 0o600 != 0o600:
        told = repr(value) if mode < 0 else f"'{mode:04o}'"
        raise VmferryError(
            "invalid_config",
            f"The storage option file_mode is {told}; an octal mode that lets the owner read and write was expected.",
            "Write it as a string, for example '0640'.",
        )
    return mode


def _account(value: object, option: str, by_name: Callable[[str], int]) -> int:
    if value is None:
        return -1
    text = str(value)
    if text.isdigit():
        return int(text)
    try:
        return by_name(text)
    except KeyError as error:
        raise VmferryError(
            "invalid_config",
            f"The storage option file_{option} names {text!r}, who does not exist.",
            "Create the account on the host that writes the files, or give its number.",
        ) from error
