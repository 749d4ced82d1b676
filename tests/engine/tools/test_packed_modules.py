# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules are packed once for all playbooks that find the same sources."""

from __future__ import annotations

from pathlib import Path

import packed_modules
import pytest


def test_playbooks_share_a_folder_until_a_source_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ansible_collections.vmferry.migrate as collection

    plugins = tmp_path / "collection/plugins"
    for room in ("modules", "module_utils/_stores/s3"):
        (plugins / room).mkdir(parents=True)
    source = plugins / "module_utils/_stores/s3/store.py"
    source.write_text("VALUE = 1\n")
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(packed_modules, "FOLDER", str(tmp_path / "kept"))
    monkeypatch.setattr(collection, "__path__", [str(plugins.parent)])

    def folder_of_a_playbook(name: str) -> Path:
        (tmp_path / name).mkdir()
        packed_modules.link_for_playbook(str(tmp_path / name))
        packed_modules.link_for_playbook(str(tmp_path / name))  # by each of its workers
        return (tmp_path / name / "ansiballz_cache").resolve()

    first = folder_of_a_playbook("first")
    assert first.parent == tmp_path / "kept"
    assert folder_of_a_playbook("second") == first
    source.write_text("VALUE = 2\n")
    assert folder_of_a_playbook("third") != first
    source.rename(source.with_name("s4.py"))
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert folder_of_a_playbook("fourth").is_dir()
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_it_is_done_where_ansible_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    packed: list[str] = []
    linked: list[str] = []

    class Constants:
        DEFAULT_LOCAL_TMP = "/tmp/of-the-playbook"

    class Packer:
        C = Constants

        @staticmethod
        def modify_module(name: str, *, path: str) -> str:
            assert linked
            packed.append(name)
            return path

    monkeypatch.setattr(packed_modules, "link_for_playbook", linked.append)
    packer = Packer()
    packed_modules.share_what_it_packs(packer)
    assert packer.modify_module("vm_export", path="a path") == "a path"
    assert (linked, packed) == (["/tmp/of-the-playbook"], ["vm_export"])
