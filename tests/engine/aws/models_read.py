# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""For whoever forks processes: each session of boto3 reads the description of EC2 anew, which takes longer than what
they do. Whoever imports this has read it."""

from __future__ import annotations

import boto3
from botocore import loaders, session

_ONE = loaders.create_loader()
for room in (loaders, session):
    room.create_loader = lambda *_given: _ONE  # type: ignore[attr-defined]
for service in ("ec2", "ebs", "s3", "sts"):
    boto3.client(service, region_name="us-east-1", aws_access_key_id="none", aws_secret_access_key="none").close()  # type: ignore[call-overload]
