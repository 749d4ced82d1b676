# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An execution environment made of our files has what the collection needs, and nothing else of ours.

Only the last step of a build needs a container engine: everything that decides what goes into the image runs here, with
the scripts that ansible-builder puts into the context for the same purpose.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from bindep.depends import Depends
from collection_tests import copy_collection

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
DEFINITION = ROOT / "examples/awx/execution-environment.yml"
PYTHON_PACKAGES = {
    "azure-identity",
    "azure-storage-blob",
    "boto3",
    "cryptography",
    "google-auth",
    "google-crc32c",
    "libvirt-python",
    "numpy",
    "proxmoxer",
    "pyvmomi",
    "requests",
    "requests_toolbelt",
    "urllib3",
    "zstandard",
}
OPTIONAL = {"awscrt", "isal"}  # make checksums, and VMDKs, faster where they are installed
# Which Debian package holds each program that the collection starts.
HOLDERS = {
    "prlimit": "util-linux",
    "qemu-img": "qemu-utils",
    "qemu-nbd": "qemu-utils",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "unshare": "util-linux",
}
OF_A_NODE = {"test"}  # run where the system's own programs always are, on a node of Proxmox VE
DEBIAN, RED_HAT = ["platform:dpkg", "platform:debian"], ["platform:rpm", "platform:redhat", "platform:centos"]


def run(command: Sequence[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """What an operator gets who builds the collection and follows the example. A copy for each worker of the tests."""
    folder = tmp_path_factory.mktemp("ee")
    shutil.copy(DEFINITION, folder)
    run(["ansible-galaxy", "collection", "build", copy_collection(f"ee-{worker_id}"), "--output-path", folder], folder)
    create = ["create", "--file", DEFINITION.name, "--context", "context", "--output-filename", "Containerfile"]
    run(["ansible-builder", *create], folder)
    return folder / "context"


@pytest.fixture(scope="module")
def collections(context: Path) -> Path:
    """Where the galaxy stage of the build installs what the definition names."""
    installed = context.parent / "collections"
    install: list[str | Path] = ["collection", "install", "--offline", "-r", "requirements.yml", "-p", installed]
    run(["ansible-galaxy", *install], context / "_build")
    return installed


@pytest.fixture(scope="module")
def found(context: Path, collections: Path) -> Path:
    """The lists that the build's own introspection makes, as requirements.txt and bindep.txt."""
    lists = context.parent / "lists"
    lists.mkdir()
    script: list[str | Path] = [sys.executable, context / "_build/scripts/introspect.py", "introspect", collections]
    write = [f"--write-pip={lists / 'requirements.txt'}", f"--write-bindep={lists / 'bindep.txt'}"]
    run([*script, "--user-bindep=bindep.txt", *write], context / "_build")
    return lists


def lines(file: Path) -> dict[str, str]:
    """Each entry of a list, and who wanted it."""
    pairs = (line.split("# from collection") for line in file.read_text().splitlines() if line.strip())
    return {entry.strip(): origin.strip() for entry, origin in pairs}


def packages(found: Path, platform: Sequence[str], *profiles: str) -> set[str]:
    """What bindep asks of a package manager."""
    depends = Depends((found / "bindep.txt").read_text())
    return {rule[0] for rule in depends.active_rules([*platform, *profiles])}


def programs_the_code_starts() -> set[str]:
    """Where processes are started: first words of lists, and arguments of look-ups, that this machine can run."""
    named: set[str] = set()
    for source in (file.read_text() for file in PLUGINS.rglob("*.py")):
        if re.search(r"\bimport subprocess|\brun_command\(|\bprogram\(", source):
            named.update(first for node in ast.walk(ast.parse(source)) for first in _first_words(node))
    return {name for name in named if shutil.which(name)}


def _first_words(node: ast.AST) -> Iterator[str]:
    words: Sequence[ast.expr] = ()
    if isinstance(node, ast.List):
        words = node.elts
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        words = node.args if node.func.id in ("program", "which") else ()
    for word in words[:1]:
        if isinstance(word, ast.Constant) and isinstance(word.value, str):
            yield word.value


def test_context_is_complete_and_names_this_version_of_the_collection(context: Path, collections: Path) -> None:
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())
    assert (context / "Containerfile").read_text().count("FROM base AS") == 3
    tarball = f"{galaxy['namespace']}-{galaxy['name']}-{galaxy['version']}.tar.gz"
    assert (context / "_build/collections" / tarball).is_file()
    installed = collections / "ansible_collections" / galaxy["namespace"] / galaxy["name"]
    assert yaml.safe_load((installed / "MANIFEST.json").read_text())["collection_info"]["version"] == galaxy["version"]
    assert {file.name for file in installed.parents[1].iterdir() if not file.name.endswith(".info")} == {"vmferry"}


def test_tarball_of_the_collection_brings_its_lists_but_no_tests(collections: Path) -> None:
    installed = collections / "ansible_collections/vmferry/migrate"
    for name in ("meta/execution-environment.yml", "requirements.txt", "bindep.txt"):
        assert (installed / name).read_bytes() == (ROOT / name).read_bytes()
    assert not (installed / "tests").exists()


def test_image_gets_exactly_our_python_packages(found: Path) -> None:
    wanted = {line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")}
    assert lines(found / "requirements.txt") == dict.fromkeys(wanted, "vmferry.migrate")
    assert {re.split(r"[<>=~!\s]", line)[0] for line in wanted} == PYTHON_PACKAGES


def test_image_gets_exactly_our_system_packages_and_what_the_definition_adds(found: Path) -> None:
    assert {entry for entry, origin in lines(found / "bindep.txt").items() if origin == "user"} == {
        "openssh-clients [platform:rpm]"
    }
    assert packages(found, RED_HAT) == {"qemu-img", "util-linux", "libvirt-libs", "openssh-clients"}
    assert packages(found, DEBIAN) == {"qemu-utils", "util-linux", "libvirt0", "openssh-client"}


def test_what_builds_the_binding_of_libvirt_stays_out_of_the_final_image(found: Path) -> None:
    red_hat = packages(found, RED_HAT, "compile") - packages(found, RED_HAT)
    assert red_hat == {"gcc", "libvirt-devel", "pkgconf-pkg-config", "python3-devel"}
    debian = packages(found, DEBIAN, "compile") - packages(found, DEBIAN)
    assert debian == {"gcc", "libc6-dev", "libvirt-dev", "pkg-config", "python3-dev"}


def test_debian_knows_each_package_by_name(found: Path) -> None:
    wanted = packages(found, DEBIAN, "compile")
    shown = run(["apt-cache", "show", "--no-all-versions", *wanted], ROOT)
    assert set(re.findall(r"^Package: (\S+)$", shown, re.MULTILINE)) == wanted


def test_packages_hold_the_programs_that_the_code_starts(found: Path) -> None:
    assert programs_the_code_starts() - OF_A_NODE == set(HOLDERS)
    for program, package in HOLDERS.items():
        assert package in packages(found, DEBIAN)
        assert any(Path(file).name == program for file in run(["dpkg", "-L", package], ROOT).splitlines())


def test_python_packages_alone_give_the_modules_all_they_import(found: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run([sys.executable, "-m", "venv", venv], tmp_path)
    python = venv / "bin/python"
    run([python, "-m", "pip", "install", "--quiet", "-r", found / "requirements.txt"], tmp_path)
    needed = imported_from_elsewhere() - OPTIONAL
    assert {"boto3", "libvirt"} <= needed
    run([python, "-I", "-c", "; ".join(f"import {name}" for name in sorted(needed))], tmp_path)


def imported_from_elsewhere() -> set[str]:
    """What the modules import that is neither Python's nor Ansible's nor ours."""
    names: set[str] = set()
    for file in (file for room in ("module_utils", "modules") for file in (PLUGINS / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    own = {*sys.stdlib_module_names, "ansible", "ansible_collections"}
    return {name for name in names if name.partition(".")[0] not in own}
