# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nbdkit with a plugin `vddk` that needs no VDDK: a file for each disk of each snapshot."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

PROGRAM = """#!{python}
import json, os, sys
plugin = sys.argv.index("vddk")
options, given = sys.argv[1:plugin], dict(one.split("=", 1) for one in sys.argv[plugin + 1:])
descriptor = int(given.pop("password")[1:])
password = os.read(descriptor, 65536).decode().rstrip("\\n")
told = dict(argv=sys.argv, parameters=given, password=password, pid=os.getpid())
with open({asked!r}, "w") as file:
    json.dump(told, file)
if password != {password!r}:
    sys.exit("nbdkit: error: wrong password " + password)
keys = sorted(os.listdir(os.path.join({folder!r}, given["snapshot"])))
number = given["file"].rpartition("_")[2].partition(".")[0]
key = keys[int(number) if number.isdigit() else 0]
os.execv({nbdkit!r}, [{nbdkit!r}, *options, "file", os.path.join({folder!r}, given["snapshot"], key)])
"""


def fake_nbdkit(folder: Path, password: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """On the path until the test ends. Disks lie in `folder`, as snapshot/key. Returns the file of what was asked."""
    programs, asked = folder / "programs", folder / "asked"
    programs.mkdir(exist_ok=True)
    nbdkit = shutil.which("nbdkit", path=os.environ["PATH"].replace(str(programs), "/nowhere"))
    assert nbdkit, "install nbdkit"
    program = programs / "nbdkit"
    program.write_text(
        PROGRAM.format(
            python=sys.executable, asked=str(asked), password=password, folder=str(folder), nbdkit=str(nbdkit)
        )
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return asked
