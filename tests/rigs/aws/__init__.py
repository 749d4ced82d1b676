# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""EC2 and EBS direct on loopback: `with AwsServer() as aws: ...`."""

from __future__ import annotations

from rigs.aws.server import AwsServer, Leftovers

__all__ = ["AwsServer", "Leftovers"]
