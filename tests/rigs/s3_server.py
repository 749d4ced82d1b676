# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every S3 server of the rigs is: an address and credentials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ACCESS_KEY = "AKIDVMFERRYTEST"
SECRET_KEY = "this-secret-must-never-show-up-anywhere"
ADMIN_ACCESS_KEY = "AKIDVMFERRYADMIN"
ADMIN_SECRET_KEY = "the-secret-of-the-administrator"


@dataclass(frozen=True)
class S3Server:
    endpoint_url: str
    port: int
    access_key: str = ACCESS_KEY
    secret_key: str = SECRET_KEY
    pid: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """The storage options that reach it."""
        return {
            "endpoint_url": self.endpoint_url,
            "access_key": self.access_key,
            "secret_key": self.secret_key,
            "region": "us-east-1",
            "addressing_style": "path",
        }

    def client(self) -> Any:
        """The administrator's boto3 client, for making buckets and for looking behind the store's back."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=ADMIN_ACCESS_KEY,
            aws_secret_access_key=ADMIN_SECRET_KEY,
            region_name="us-east-1",
            config=Config(s3={"addressing_style": "path"}),
        )
