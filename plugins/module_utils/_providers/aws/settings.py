# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach an account of AWS: the settings of a task, read once and refused where they cannot be meant."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Mapping, Optional, Union

from ..._aws.credentials import AwsCredentials, check_endpoint
from ..._errors import VmferryError
from ..._http.certificates import check_authorities

_CREDENTIALS = tuple(entry.name for entry in fields(AwsCredentials))


@dataclass(frozen=True)
class AwsSettings:
    credentials: AwsCredentials
    region: Optional[str] = None  # None: what the environment or the profile says
    endpoint_url: Optional[str] = None  # of every service but STS; None: each its own
    validate_certs: bool = True
    ca_path: Optional[str] = None

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> AwsSettings:
        """Raises `invalid_config`."""
        own = [entry.name for entry in fields(cls) if entry.name != "credentials"]
        unknown = sorted(set(options) - {*own, *_CREDENTIALS})
        if unknown:
            known = ", ".join([*own, *_CREDENTIALS])
            raise VmferryError("invalid_config", f"aws has no setting {', '.join(unknown)}.", f"Known are {known}.")
        given = {name: value for name, value in options.items() if value not in (None, "")}
        credentials = AwsCredentials(**{name: given[name] for name in _CREDENTIALS if name in given})
        settings = cls(credentials, **{name: given[name] for name in own if name in given})
        credentials.check(refused)
        check_endpoint("endpoint_url", settings.endpoint_url, "https://ec2.example.org", refused)
        if settings.ca_path and not settings.validate_certs:
            raise refused("ca_path", "goes without validate_certs: false", "Leave one of them out.")
        return settings

    @property
    def verify(self) -> Union[str, bool, None]:
        """As botocore takes it. None, and not True: a profile may name its authorities."""
        if not self.validate_certs:
            return False
        if self.ca_path:
            check_authorities(self.ca_path, "The setting aws.ca_path")
        return self.ca_path


def refused(option: str, rule: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", f"The setting aws.{option} {rule}.", hint)
