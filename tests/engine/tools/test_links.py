# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a page points at is there: files by their links and by their names, sections by their titles."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:docs|examples|playbooks|roles|tests|plugins|extensions|meta)/[\w./-]+)`")


def pages() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(listed.stdout.split())


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of titles."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", pages())
def test_links_lead_somewhere(page: str) -> None:
    broken = []
    for link in LINK.findall((ROOT / page).read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _hash, anchor = link.partition("#")
        target = (ROOT / page).parent / path if path else ROOT / page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", pages())
def test_files_that_are_named_exist(page: str) -> None:
    named = NAMED.findall((ROOT / page).read_text())
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_there_are_pages_with_links() -> None:
    links = [link for page in pages() for link in LINK.findall((ROOT / page).read_text())]
    assert len(pages()) > 8
    assert len(links) > 20
