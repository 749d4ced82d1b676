# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Modules of plays are compiled once, for all plays of a run. Every start of a Python of our environments imports this.

Ansible starts a module from a zip file, and `zipimport` keeps no bytecode: it compiles each source anew at every start,
and twice at that, once to find it and once to run it. That is a third of the processor time of a play.
"""

from __future__ import annotations

import os
import sys

FOLDER = os.path.join(sys.prefix, "zipped-bytecode")  # noqa: PTH118 - pathlib is slow to import, for all that start


def keep_bytecode() -> None:
    import marshal
    import zipimport
    from contextlib import suppress
    from hashlib import sha256
    from typing import Any

    inside: Any = zipimport
    compiled = inside._compile_source
    found: dict[tuple[str, bytes], Any] = {}  # and soon to be run

    def compile_source(pathname: str, source: bytes) -> Any:
        """As of `zipimport`; a traceback names the file as it was called when it was compiled."""
        if (code := found.pop((pathname, source), None)) is None:
            code = found[pathname, source] = kept(pathname, source)
        return code

    def kept(pathname: str, source: bytes) -> Any:
        path = f"{FOLDER}/{sha256(source).hexdigest()}"
        with suppress(FileNotFoundError), open(path, "rb") as file:  # noqa: PTH123
            return marshal.loads(file.read())
        code = compiled(pathname, source)
        own = f"{path}.{os.getpid()}"
        with suppress(OSError):  # another run has just begun
            with open(own, "wb") as file:  # noqa: PTH123
                file.write(marshal.dumps(code))
            os.replace(own, path)  # noqa: PTH105
        return code

    inside._compile_source = compile_source


if os.path.isdir(FOLDER):  # noqa: PTH112
    keep_bytecode()
