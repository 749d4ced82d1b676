# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What AWX does with the files of examples/awx, where it can be said in a few lines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/awx"


class AnsibleLoader(yaml.SafeLoader):
    """Also reads `!unsafe`, the tag of strings that Ansible does not template."""


def _text(_loader: AnsibleLoader, node: yaml.ScalarNode) -> str:
    return str(node.value)


AnsibleLoader.add_constructor("!unsafe", _text)


def example(name: str) -> Any:
    return yaml.load((EXAMPLES / name).read_text(), AnsibleLoader)


def credential_types() -> dict[str, dict[str, Any]]:
    return {kind["name"]: kind for kind in example("credential_types.yml")["vmferry_credential_types"]}


def injected(kind: Mapping[str, Any], inputs: Mapping[str, str]) -> dict[str, str]:
    """The variables a job gets from a credential. A field that was left empty is not known to the templates."""
    sandbox = ImmutableSandboxedEnvironment()
    given = {field: value for field, value in inputs.items() if value}
    return {name: sandbox.from_string(text).render(**given) for name, text in kind["injectors"]["env"].items()}


def command_lines() -> set[str]:
    """Of all processes of this machine: what every user of a machine can read."""
    found = set()
    for one in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.add(one.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
