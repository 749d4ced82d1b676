# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs ansible-test without containers, on a copy of the collection and with a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from environments import ROOT, find_interpreter
from steps import Step

BUILD = ROOT / ".build"
CACHE = ROOT / ".cache"


def copy_collection(name: str) -> Path:
    """A fresh copy of the files git knows or would take, in `.build/<name>/ansible_collections/vmferry/migrate`.

    ansible-test resolves its working directory, so the symlink that serves plays does not serve it; and neither it nor
    ansible-lint may stumble over environments and caches inside the checkout.
    """
    target = BUILD / name / "ansible_collections/vmferry/migrate"
    shutil.rmtree(target, ignore_errors=True)
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for file in sorted(filter(None, listing.stdout.decode().split("\0"))):
        if (ROOT / file).exists():  # a deleted file is in the index until the deletion is staged
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, target / file, follow_symlinks=False)
    # Else ansible-test asks the checkout's git for files, which ignores .build: "All targets skipped", and success.
    subprocess.run(["git", "init", "--quiet", "--initial-branch", "copy"], cwd=target, check=True)
    return target


def ansible_test(
    venv: Path, arguments: Sequence[str], *, name: str, copy: Path, home: Path | None = None, first: Path | None = None
) -> Step:
    """A step for `ansible-test`; `first` leads PATH, `home` replaces HOME."""
    paths = [*([first / "bin"] if first else []), venv / "bin", BUILD / "pythons", ROOT / ".venv/bin"]
    environment = {"PATH": os.pathsep.join([*map(str, paths), _path_without_shims()])}
    if home:
        environment["HOME"] = str(home)
    command: list[str | Path] = [venv / "bin/ansible-test", *arguments]
    return Step(name, command, copy, environment, refuted_by="All targets skipped")


def _path_without_shims() -> str:
    """PATH without pyenv's shims: they answer for every version, also for those that do not run."""
    return os.pathsep.join(p for p in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(p).name != "shims")


def offer_python(version: str) -> bool:
    """Lets ansible-test find an interpreter by name."""
    python = find_interpreter((version,))
    if python is None:
        return False
    link = BUILD / "pythons" / f"python{version}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(python.path.resolve())
    return True


def prepare_home(venv: Path, name: str) -> Path:
    """A HOME inside the checkout, one for each run that may have a neighbour, for ansible-test's own environments."""
    (Path.home() / ".cache/pip").mkdir(parents=True, exist_ok=True)
    home = CACHE / f"home-{name.replace(' ', '-')}"
    for shared in (".cache/pip", ".config/pip"):
        link = home / shared
        link.parent.mkdir(parents=True, exist_ok=True)
        if (Path.home() / shared).exists() and not link.is_symlink():
            link.symlink_to(Path.home() / shared)
    (home / ".pip").mkdir(exist_ok=True)
    (home / ".pip/pip.conf").write_text("[global]\nquiet = 2\n")  # read besides the one in .config
    _provide_get_pip(venv, home)
    return home


def _provide_get_pip(venv: Path, home: Path) -> None:
    """What ansible-test finds where it keeps get-pip.py, it does not download."""
    source = next(venv.glob("lib/python3*/site-packages/ansible_test/_internal/python_requirements.py"))
    found = re.search(r"\bpip='([0-9.]+)'", source.read_text())
    if found is None:
        raise LookupError(f"{source} no longer says which pip ansible-test wants")
    script = home / ".ansible/test/cache" / f"get_pip_{found[1].replace('.', '_')}.py"
    script.parent.mkdir(parents=True, exist_ok=True)
    script.unlink(missing_ok=True)
    script.symlink_to(Path(__file__).with_name("get_pip.py"))
