# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One connection to an account of AWS in one region: a boto3 session, and a client of each service."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import Any, Dict, Iterator, Optional

from ..._aws.client_config import known_to, patience
from ..._aws.few_first import FewFirst
from ..._aws.models import Models
from ..._aws.session import open_session
from ..._errors import VmferryError
from .errors import translated
from .settings import AwsSettings

_CONNECTIONS = 64  # of a client: each thread that reads or writes blocks has one
_ATTEMPTS = 8
# Of EC2, what exports ask all the time: the description of the others, too, takes 25 MB.
FEW = (
    *("DescribeInstances", "DescribeInstanceTypes", "DescribeInstanceAttribute", "DescribeVolumes"),
    *("DescribeSnapshots", "DescribeImages", "DescribeExportImageTasks"),
    *("CreateSnapshots", "DeleteSnapshot", "CreateTags", "DeleteTags", "StopInstances", "StartInstances"),
)
_PATIENCE = patience(connect_timeout=10, read_timeout=60)


class Session:
    """Thread-safe. Nothing is sent before the first request."""

    def __init__(self, settings: AwsSettings) -> None:
        self.settings = settings
        self._lock = Lock()
        self._opened: Optional[Any] = None
        self._region = ""
        self._account = ""
        self._clients: Dict[str, Any] = {}
        self._models = Models({"ec2": FEW})

    @property
    def region(self) -> str:
        """Raises `invalid_config` where nobody names one."""
        self._boto()
        return self._region

    @property
    def account(self) -> str:
        """The id of the account, twelve digits. Asked for once."""
        if not self._account:
            with self.doing("Asking whose credentials these are"):
                self._account = self.client("sts").get_caller_identity()["Account"]
        return self._account

    def client(self, service: str) -> Any:
        """Of `ec2`, `ebs`, `sts` or `s3`, thread-safe, to be shared by everything this process does."""
        boto = self._boto()
        with self._lock:
            if service not in self._clients:
                made = self._made(boto, service)
                self._clients[service] = FewFirst(made, lambda: self._whole(service)) if service == "ec2" else made
            return self._clients[service]

    def credentials(self) -> Any:
        """As botocore signs with them, those of a role made new in time; None where there are none."""
        found = self._boto().get_credentials()
        return found and found.get_frozen_credentials()

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Errors of the SDK as ours; `what` names the verb and the object."""
        with translated(what, self.settings.credentials.secrets):
            yield

    def close(self) -> None:
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _boto(self) -> Any:
        with self._lock:
            if self._opened is None:
                settings = self.settings
                self._opened, self._region = open_session(
                    settings.credentials,
                    settings.region,
                    settings.verify,
                    _PATIENCE,
                    translated,
                    "The provider aws",
                    self._models,
                )
            if not self._region:
                hint = "Set it, or AWS_REGION in the environment, or a region in the profile."
                raise VmferryError("invalid_config", "aws.region is not set.", hint)
            return self._opened

    def _whole(self, service: str) -> Any:
        boto = self._boto()
        with self._lock:
            self._models.know_all(service)
            return self._made(boto, service)

    def _made(self, boto: Any, service: str) -> Any:
        from botocore.config import Config

        settings = self.settings
        endpoint = settings.credentials.sts_endpoint_url if service == "sts" else settings.endpoint_url
        config = {
            **_PATIENCE,
            "max_pool_connections": _CONNECTIONS,
            "retries": {"mode": "adaptive", "total_max_attempts": _ATTEMPTS},
        }
        with self.doing(f"Preparing the client of {service}"):
            return boto.client(
                service,
                region_name=self._region,
                endpoint_url=endpoint,
                verify=settings.verify,
                config=Config(**known_to(Config, config)),
            )
