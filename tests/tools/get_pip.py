# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes get-pip.py's place, which is downloaded from a host that is no package index: pip fetches the pip asked for.

ansible-test makes some thirty environments and asks for pip in each. It is installed once, and then copied with its
bytecode, for to install and compile it took as long as all else that is put there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path

NOT_FOR_PIP = ("--no-setuptools", "--no-wheel")
KEPT = Path(__file__).resolve().parents[2] / ".cache/pips"


def put_pip(packages: list[str], options: list[str], site: Path) -> None:
    """Into the environment that runs this, which holds nothing yet."""
    kept = KEPT / "-".join([*packages, sys.implementation.cache_tag or ""])
    if kept.is_dir():
        shutil.copytree(kept, site, dirs_exist_ok=True)
        return
    subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
    subprocess.check_call([sys.executable, "-m", "pip", "install", "--quiet", *options, *packages])
    own = kept.with_name(f"{kept.name}.{os.getpid()}")
    shutil.copytree(site, own)
    with suppress(OSError):  # another one was faster
        own.rename(kept)
    shutil.rmtree(own, ignore_errors=True)


if __name__ == "__main__":
    asked = [argument for argument in sys.argv[1:] if argument not in NOT_FOR_PIP]
    put_pip(
        [argument for argument in asked if not argument.startswith("-")],
        [argument for argument in asked if argument.startswith("-")],
        Path(sysconfig.get_path("purelib")),
    )
