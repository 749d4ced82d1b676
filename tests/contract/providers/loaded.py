# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads what a run loads as it goes: once, in the process that all runs which are to die are forked from."""

from __future__ import annotations

import importlib
import pkgutil
from contextlib import suppress

from ansible_collections.vmferry.migrate.plugins import module_utils
from rigs.aws import shared_models

ROOMS = ("_operations", "_providers", "_exports", "_transfer", "_images", "_nbd", "_stores.filesystem")
WATCHDOG = "watchdog"  # a program of its own

shared_models.share()
with suppress(ImportError):  # where no test asks for a driver of it
    importlib.import_module("libvirt")
for room in ROOMS:
    package = importlib.import_module(f"{module_utils.__name__}.{room}")
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not found.name.endswith(f".{WATCHDOG}"):
            importlib.import_module(found.name)
