# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a job is looked at, and for how long it may be out of sight."""

from __future__ import annotations

from itertools import islice

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.plugin_utils.watch_options import WatchOptions, without_watcher


def test_defaults() -> None:
    options = WatchOptions.of({})
    assert (options.controller_timeout, options.silence, options.prints, options.outlives) == ("2m", 120, True, False)
    growing = [0.3 * 1.5**count for count in range(7)]
    assert list(islice(options.pauses(), 9)) == pytest.approx([*growing, 5.0, 5.0])


@pytest.mark.parametrize(
    ("interval", "timeout", "longest"), [("5s", "8s", 2.0), ("1m", "2m", 15.0), ("1m", "0", 15.0), ("1s", "1h", 1.0)]
)
def test_the_lease_is_renewed_in_time(interval: str, timeout: str, longest: float) -> None:
    options = WatchOptions.of({"progress_interval": interval, "controller_timeout": timeout})
    assert list(islice(options.pauses(), 20))[-1] == longest


@pytest.mark.parametrize("zero", ["0", 0], ids=["text", "number"])
def test_a_job_that_outlives_its_play_is_watched_for_as_long_as_others(zero: object) -> None:
    options = WatchOptions.of({"controller_timeout": zero})
    assert (options.controller_timeout, options.outlives, options.silence) == ("0", True, 120)


@pytest.mark.parametrize("option", ["controller_timeout", "progress_interval"])
def test_what_is_no_duration_is_refused_by_its_name(option: str) -> None:
    with pytest.raises(VmferryError, match=f"{option}: 'soon'") as caught:
        WatchOptions.of({option: "soon"})
    assert caught.value.kind == "invalid_config"


@pytest.mark.parametrize("interval", [0, "0", "0s"])
def test_lines_without_a_pause_are_refused_and_what_to_write_is_told(interval: object) -> None:
    with pytest.raises(VmferryError, match=r"progress_interval is 0.*more than 0") as caught:
        WatchOptions.of({"progress_interval": interval})
    assert caught.value.kind == "invalid_config"
    assert "progress: none" in caught.value.hint


def test_nobody_watches_under_async() -> None:
    assert without_watcher({}) == without_watcher({"controller_timeout": "0s"}) == "0"
    with pytest.raises(VmferryError, match="controller_timeout is 5m"):
        without_watcher({"controller_timeout": "5m"})
