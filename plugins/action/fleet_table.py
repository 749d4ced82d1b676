# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ansible_collections.vmferry.migrate.plugins.plugin_utils._fleet import fleet_table
from ansible_collections.vmferry.migrate.plugins.plugin_utils.table_action import TableAction


class ActionModule(TableAction):
    def table(self, rows: Sequence[dict[str, Any]], kind: str) -> list[str]:
        return fleet_table(rows, kind)
