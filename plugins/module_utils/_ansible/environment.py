# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the environment says, where a task says nothing."""

from __future__ import annotations

import os
from typing import Mapping

from ansible.module_utils.errors import AnsibleFallbackNotFound
from ansible.module_utils.parsing.convert_bool import boolean

from .argspec import invalid


def variable(*names: str) -> str:
    """The fallback of an option: the first that is set to something. A template that had nothing sets an empty one."""
    for name in names:
        if os.environ.get(name):
            return os.environ[name]
    raise AnsibleFallbackNotFound


def truth(environment: Mapping[str, str], name: str) -> bool | None:
    """None where it is not set. Raises `invalid_config`."""
    text = environment.get(name)
    if not text:
        return None
    try:
        return bool(boolean(text))
    except TypeError as error:
        raise invalid(f"The environment variable {name} is {text}.", "Set it to true or false.") from error
