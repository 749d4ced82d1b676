# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage options that every store reached over HTTP looks at, and how the others that it knows are read."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Mapping, Optional, Sequence, Type, TypeVar, Union

from .._errors import VmferryError
from .._http.certificates import check_authorities

Settings = TypeVar("Settings", bound="ConnectionSettings")


@dataclass(frozen=True)
class ConnectionSettings:
    validate_certs: bool = True
    ca_path: Optional[str] = None
    connect_timeout: float = 10.0  # seconds
    read_timeout: float = 60.0  # seconds without a byte
    parallel: int = 4
    allowed_hosts: Optional[Sequence[str]] = None

    @classmethod
    def from_options(cls: Type[Settings], options: Mapping[str, Any]) -> Settings:
        """Of the task's `storage`. Raises `invalid_config` for what cannot be meant."""
        known = {entry.name for entry in fields(cls)}
        settings = cls(**{name: value for name, value in options.items() if name in known and value is not None})
        settings._check()
        return settings

    def _check(self) -> None:
        """Raises `invalid_config` for options that do not go together."""

    @property
    def verify(self) -> Union[str, bool]:
        """As requests takes it."""
        return (self.ca_path or True) if self.validate_certs else False

    def check_ca_path(self) -> None:
        """Before any request: afterwards a missing file looks like a broken connection."""
        if self.validate_certs and self.ca_path:
            check_authorities(self.ca_path)


def refused(option: str, rule: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", f"The storage option {option} {rule}.", hint)
