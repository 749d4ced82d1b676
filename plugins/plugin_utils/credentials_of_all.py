# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's credentials for every store of a task (its own, both ends of a copy, further copies, and those
that VMs lie in) and for every provider: its own, and those at the ends of a migration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .credentials import hand_over
from .provider_credentials import FROM, hand_over_to_provider

ENDS = ("source", "destination", "image")  # options that are a store, or a provider, with its settings
FILES = "image"  # which an end may have, too
LISTS = ("copies_to",)  # that are a list of them


def hand_over_all(
    arguments: Mapping[str, Any], of_task: Mapping[str, Any], of_controller: Mapping[str, str]
) -> dict[str, Any]:
    """As `hand_over`. What cannot be read is left to the module, which tells it better."""

    def of_end(end: Any) -> Any:
        if isinstance(end, Mapping) and isinstance(end.get(FILES), Mapping):
            return {**end, FILES: of_end(end[FILES])}
        if not isinstance(end, Mapping):
            return end
        give = hand_over if "url" in end else hand_over_to_provider
        handed = give({FROM: arguments.get(FROM), **end}, of_task, of_controller)
        return {name: value for name, value in handed.items() if name != FROM or name in end}

    handed = hand_over(hand_over_to_provider(arguments, of_task, of_controller), of_task, of_controller)
    for name in ENDS:
        if name in handed:
            handed[name] = of_end(handed[name])
    for name in LISTS:
        if isinstance(handed.get(name), list):
            handed[name] = [of_end(one) for one in handed[name]]
    return handed
