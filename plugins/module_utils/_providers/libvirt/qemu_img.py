# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`qemu-img`, for what only QEMU knows of an image."""

from __future__ import annotations

import os
import subprocess

from ..._errors import VmferryError


def qemu_img(*arguments: str) -> str:
    """What it prints. Raises `invalid_config` where it is missing or complains."""
    try:
        done = subprocess.run(
            ["qemu-img", *arguments], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError as error:
        hint = "Install qemu-utils (Debian, Ubuntu) or qemu-img (Fedora, RHEL, SUSE)."
        raise VmferryError("invalid_config", "qemu-img is not installed.", hint) from error
    if done.returncode:
        said = " ".join((done.stderr.strip().splitlines() or ["it failed without a word"])[-1].split())[:300]
        kind = "no_space" if "No space left" in said else "busy" if "lock" in said else "invalid_config"
        raise VmferryError(kind, f"qemu-img {arguments[0]} failed: {said}.")  # type: ignore[arg-type]
    return done.stdout
