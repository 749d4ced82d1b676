# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The control node's part of `vm_migrate`: starts the module as a job, and watches it."""

from __future__ import annotations

from ansible_collections.vmferry.migrate.plugins.plugin_utils.transfer_action import TransferAction


class ActionModule(TransferAction):
    """All of it is common to the modules that move bytes."""
