# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task says about being watched. The module gets the same options, and only looks at controller_timeout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.vmferry.migrate.plugins.module_utils._ansible.values import (
    duration_or_zero,
    progress_interval,
)
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError

CONTROLLER_TIMEOUT = "2m"
PROGRESS_INTERVAL = "5s"
FIRST_POLL = 0.3  # seconds: a job that has nothing to do ends at once
SLOWER = 1.5
LONGEST_PAUSE = 15.0
RENEWALS = 4  # of the lease within controller_timeout


@dataclass(frozen=True)
class WatchOptions:
    """Seconds. `silence`: how long the host may give no answer; `outlives`: whether the job then goes on."""

    controller_timeout: str
    outlives: bool
    silence: float
    prints: bool
    line_interval: float
    longest_pause: float

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> WatchOptions:
        """Raises `invalid_config` for a duration that cannot be used; the choices are the module's to check."""
        timeout = _said(arguments, "controller_timeout", CONTROLLER_TIMEOUT)
        seconds = duration_or_zero("controller_timeout", timeout)
        silence = seconds or duration_or_zero("controller_timeout", CONTROLLER_TIMEOUT)
        line_interval = progress_interval(_said(arguments, "progress_interval", PROGRESS_INTERVAL))
        return cls(
            controller_timeout=timeout,
            outlives=not seconds,
            silence=silence,
            prints=arguments.get("progress") != "none",
            line_interval=line_interval,
            longest_pause=min(max(line_interval, FIRST_POLL), silence / RENEWALS, LONGEST_PAUSE),
        )

    def pauses(self) -> Iterator[float]:
        """Before each poll: short at first, then longer."""
        pause = min(FIRST_POLL, self.longest_pause)
        while True:
            yield pause
            pause = min(pause * SLOWER, self.longest_pause)


def without_watcher(arguments: Mapping[str, Any]) -> str:
    """The controller_timeout of a job under `async`. Raises `invalid_config` if the task asks for another."""
    asked = _said(arguments, "controller_timeout", "0")
    if duration_or_zero("controller_timeout", asked):
        raise VmferryError(
            "invalid_config",
            f"controller_timeout is {asked}, and with async nobody watches the job: it would stop after that time.",
            "Leave controller_timeout or async out.",
            phase="validating",
        )
    return "0"


def _said(arguments: Mapping[str, Any], option: str, default: str) -> str:
    """The number 0, which is what YAML makes of it, is no option left out."""
    value = arguments.get(option)
    return default if value is None or value == "" else str(value)
