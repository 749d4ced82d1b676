# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The pip of ansible-test's environments is installed once and copied."""

from __future__ import annotations

from pathlib import Path

import get_pip
import pytest


def test_what_was_installed_once_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sites = [tmp_path / name for name in ("one", "two", "other")]
    commands: list[list[str]] = []

    def install(command: list[str], **_unused: object) -> None:
        commands.append(command[1:])
        if "install" in command:
            (sites[len(commands) - 2] / command[-1]).write_text("installed")

    monkeypatch.setattr(get_pip, "KEPT", tmp_path / "kept")
    monkeypatch.setattr("subprocess.check_call", install)
    for site, wanted in zip(sites, ("pip==1", "pip==1", "pip==2")):
        site.mkdir()
        get_pip.put_pip([wanted], ["--quiet"], site)
    assert [command for command in commands if "ensurepip" not in command] == [
        ["-m", "pip", "install", "--quiet", "--quiet", "pip==1"],
        ["-m", "pip", "install", "--quiet", "--quiet", "pip==2"],
    ]
    assert [[path.name for path in site.iterdir()] for site in sites] == [["pip==1"], ["pip==1"], ["pip==2"]]
