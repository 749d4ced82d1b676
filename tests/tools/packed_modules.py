# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module is packed once, for all plays of a run. Every start of a Python of our environments imports this.

Ansible parses all that a module imports, compresses it, and keeps what it packed until the playbook ends, in a folder
of that playbook. One module of ours takes over a second of processor time, in each of some hundred plays. Here that
folder is a link to one for all playbooks that find the same sources.
"""

from __future__ import annotations

import os
import sys

FOLDER = os.path.join(sys.prefix, "packed-modules")  # noqa: PTH118 - pathlib is slow to import, for all that start
PACKER = "ansible.executor.module_common"
TYPE_CHECKING = False  # `typing` is as slow
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from typing import Any


class _OncePacked:
    """Finds nothing; sees when Ansible imports what packs modules."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: object = None) -> ModuleSpec | None:
        if name != PACKER:
            return None
        from importlib.util import find_spec

        sys.meta_path.remove(self)
        found: Any = find_spec(name)
        execute = found.loader.exec_module

        def execute_and_share(module: Any) -> None:
            execute(module)
            share_what_it_packs(module)

        found.loader.exec_module = execute_and_share
        spec: ModuleSpec = found
        return spec


def share_what_it_packs(packer: Any) -> None:
    original = packer.modify_module

    def modify_module(*positional: Any, **named: Any) -> Any:
        link_for_playbook(packer.C.DEFAULT_LOCAL_TMP)
        return original(*positional, **named)

    packer.modify_module = modify_module


def link_for_playbook(local_tmp: str) -> None:
    from contextlib import suppress
    from pathlib import Path

    link = Path(local_tmp, "ansiballz_cache")
    if link.is_symlink():
        return
    import ansible_collections.vmferry.migrate as collection

    shared = Path(FOLDER, state_of(Path(next(iter(collection.__path__)), "plugins")))
    with suppress(OSError):  # another worker of this playbook made it
        shared.mkdir(exist_ok=True)
        link.symlink_to(shared)


def state_of(plugins: Path) -> str:
    """Another one where any source of a module is another, or Ansible, whose sources are packed along."""
    from hashlib import sha256

    from ansible.release import __version__

    digest = sha256(__version__.encode())
    for room in ("module_utils", "modules"):
        for path in sorted((plugins / room).rglob("*.py")):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(plugins)} {len(content)}\n".encode() + content)
    return digest.hexdigest()


if os.path.isdir(FOLDER):  # noqa: PTH112
    sys.meta_path.insert(0, _OncePacked())
