# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Argument specifications that add up, so that a system's connection options are written once."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible.module_utils import basic
from ansible.module_utils.common.validation import check_type_dict

from .._errors import VmferryError
from .masking import forms_of


class ArgumentSpec:
    """Options, and what must hold between them. `merge` leaves both sides as they were."""

    def __init__(
        self,
        options: Mapping[str, Mapping[str, Any]],
        *,
        required_if: Sequence[Sequence[Any]] = (),
        required_by: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.options = dict(options)
        self.required_if = list(required_if)
        self.required_by = dict(required_by or {})

    def merge(self, *others: ArgumentSpec) -> ArgumentSpec:
        """Options must be defined once: two definitions of one name raise ValueError."""
        merged = ArgumentSpec(self.options, required_if=self.required_if, required_by=self.required_by)
        for other in others:
            twice = merged.options.keys() & other.options.keys()
            if twice:
                raise ValueError(f"Options defined twice: {', '.join(sorted(twice))}")
            merged.options.update(other.options)
            merged.required_if += other.required_if
            merged.required_by.update(other.required_by)
        return merged

    def create_module(self) -> basic.AnsibleModule:
        return basic.AnsibleModule(
            argument_spec=self.options,
            required_if=self.required_if,
            required_by=self.required_by,
            supports_check_mode=True,
        )


class TaskArguments:
    """What the task says, with defaults and environment applied; `given` tells the two apart."""

    def __init__(self, module: basic.AnsibleModule) -> None:
        self.values: Mapping[str, Any] = module.params
        # AnsibleModule fills defaults into the same dict; only the unparsed arguments still tell who said what.
        self._said: Mapping[str, Any] = basic._load_params()
        self._masked: set[str] = module.no_log_values

    def conceal(self, secret: str) -> None:
        """From now on it is masked in whatever the module tells, as one is that the task itself says."""
        if secret:
            self._masked.update(forms_of(secret))

    def __getitem__(self, option: str) -> Any:
        return self.values[option]

    def text(self, option: str) -> str:
        """The option, '' where it was left out."""
        return self.values[option] or ""

    def given(self, option: str) -> bool:
        return self._said.get(option) is not None

    def given_suboptions(self, option: str) -> frozenset[str]:
        if not self.given(option):
            return frozenset()
        # A dict may also be written as JSON or as `key=value` text.
        return frozenset(name for name, value in check_type_dict(self._said[option]).items() if value is not None)

    def below(self, option: str) -> TaskArguments:
        """Of an option that is a dict with options of its own."""
        said = check_type_dict(self._said.get(option) or {})
        return _Nested(self.values[option], said, self._masked)

    def each(self, option: str) -> list[TaskArguments]:
        """Of an option that is a list of such dicts."""
        said = self._said.get(option) or []
        values = self.values[option]
        told = said if isinstance(said, list) and len(said) == len(values) else values
        return [_Nested(value, check_type_dict(one), self._masked) for value, one in zip(values, told)]


class _Nested(TaskArguments):
    def __init__(self, values: Mapping[str, Any], said: Mapping[str, Any], masked: set[str]) -> None:
        self.values, self._said, self._masked = values, said, masked


def without_unset(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Also without what is empty, as an environment variable is that a template had nothing for."""
    return {name: value for name, value in settings.items() if value not in (None, "")}


def invalid(message: str, hint: str) -> VmferryError:
    return VmferryError("invalid_config", message, hint, phase="validating")
