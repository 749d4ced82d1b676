# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lies in a zip file is compiled once, until it is another."""

from __future__ import annotations

import zipimport
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import zipped_bytecode


def test_a_source_is_compiled_once_and_again_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bytes] = []
    inside: Any = zipimport
    original = inside._compile_source

    def counting(pathname: str, source: bytes) -> Any:
        compiled.append(source)
        return original(pathname, source)

    (tmp_path / "kept").mkdir()
    monkeypatch.setattr(zipped_bytecode, "FOLDER", str(tmp_path / "kept"))
    monkeypatch.setattr(inside, "_compile_source", counting)
    zipped_bytecode.keep_bytecode()
    found = []
    for number, text in enumerate(("VALUE = 1\n", "VALUE = 1\n", "VALUE = 2\n")):
        path = tmp_path / f"{number}.zip"
        with ZipFile(path, "w") as file:
            file.writestr("told.py", text)
        names: dict[str, int] = {}
        exec(zipimport.zipimporter(str(path)).get_code("told"), names)
        found.append(names["VALUE"])
    assert found == [1, 1, 2]
    assert compiled == [b"VALUE = 1\n", b"VALUE = 2\n"]
