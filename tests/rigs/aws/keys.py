# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may call: whoever tests say, the administrator of the rig, and roles that were assumed."""

from __future__ import annotations

ACCESS_KEY = "AKIAVMFERRYTEST00001"
SECRET_KEY = "this-secret-must-never-show-up-anywhere"
ADMIN_ACCESS_KEY = "AKIAVMFERRYADMIN0001"
ADMIN_SECRET_KEY = "the-secret-of-the-administrator"
REGION = "us-east-1"
ACCOUNT = "123456789012"  # moto's
OF_ROLES = "ASIA"


def is_known(access_key: str) -> bool:
    return access_key in (ACCESS_KEY, ADMIN_ACCESS_KEY) or access_key.startswith(OF_ROLES)
