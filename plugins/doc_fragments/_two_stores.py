# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of a store, once more for each end of a copy: below the option that names that end."""

from __future__ import annotations

import re

from ansible_collections.vmferry.migrate.plugins.doc_fragments._storage import ModuleDocFragment as Storage

_SETTINGS = re.compile(r"^  storage:\n(?:(?: {3,}.*)?\n)+", re.MULTILINE)


def settings_below(option: str) -> str:
    """The documentation of `storage`, as a suboption of `option`."""
    (settings,) = _SETTINGS.findall(Storage.DOCUMENTATION)
    text = re.sub(r"\bO\((storage|url)\b", rf"O({option}.\1", settings)
    return re.sub(r"(?m)^(?=.)", "    ", text)


class ModuleDocFragment:
    # Annotated, since ansible-test takes every plain assignment here for a literal.
    DOCUMENTATION: str = f"""
options:
  source:
    description:
      - Where the objects are.
    type: dict
    required: true
    suboptions:
      url:
        description:
          - The store that has them, by any URL that a store can have, such as V(file:///path) or V(s3://bucket/prefix).
            With neither O(source.key) nor O(source.prefix), the URL of one object.
        type: str
        required: true
      key:
        description:
          - The key of one object below O(source.url).
        type: str
      prefix:
        description:
          - Copy all objects whose keys begin with this. They keep their keys. An empty one copies the whole store.
        type: str
{settings_below("source")}
  destination:
    description:
      - Where the copies shall be.
    type: dict
    required: true
    suboptions:
      url:
        description:
          - The store that they go to, as V(file:///path) or V(s3://bucket/prefix).
        type: str
        required: true
      key:
        description:
          - The key of the copy of one object below O(destination.url). If not given, the key is the same, or the
            object's name where O(source.url) is its URL.
        type: str
{settings_below("destination")}
"""

    COPIES: str = f"""
options:
  copies_to:
    description:
      - Further stores that the export is copied to, after it is committed, together with what it stands on as far as
        that is not there yet. The manifest of each export goes last.
      - Every block is compared with its digest on the way. What is there already is not copied again.
      - A copy that fails fails the task, and leaves the export and other copies as they are. RV(copies) says which
        hold. The next run completes those that do not, even if it makes no new export.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description:
          - The store, as O(url).
        type: str
        required: true
{settings_below("copies_to[]")}
"""
