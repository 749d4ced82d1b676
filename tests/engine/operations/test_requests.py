# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task asks for does not show its secrets where it is printed, as in a traceback with variables."""

from __future__ import annotations

from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import ProviderSpec, StoreSpec


def test_settings_are_not_printed() -> None:
    secret = {"secret_key": "never to be seen"}
    assert "seen" not in repr((StoreSpec("s3://exports", secret), ProviderSpec("libvirt", secret)))
