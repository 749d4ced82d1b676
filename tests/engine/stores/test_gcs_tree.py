# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How temporary objects become one: never more than 32 at a time, always in order, never twice what is there."""

from __future__ import annotations

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._stores.gcs.tree import (
    FAN_IN,
    Node,
    roots_over,
    still_to_join,
    whole_of,
)


def parts(count: int) -> list[Node]:
    return [Node(0, number, 8 + number % 3, number * 2654435761 % 2**32) for number in range(1, count + 1)]


def leaves(nodes: list[Node]) -> list[int]:
    return [leaf for node in nodes for leaf in (leaves(list(node.sources)) if node.sources else [node.index])]


def made(roots: list[Node], there: dict[str, int]) -> list[Node]:
    return [node for level in still_to_join(roots, there) for node in level]


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 1024, 1025, 10_000])
def test_every_part_is_in_it_once_and_in_order(count: int) -> None:
    roots = list(roots_over(parts(count)))
    assert leaves(roots) == list(range(1, count + 1))
    assert whole_of(roots) == whole_of(parts(count))


@pytest.mark.parametrize("count", [33, 1024, 1025, 10_000])
def test_no_request_joins_more_than_the_service_takes(count: int) -> None:
    roots = list(roots_over(parts(count)))
    assert len(roots) <= FAN_IN
    assert all(1 <= len(node.sources) <= FAN_IN for node in made(roots, {}))


def test_a_level_is_made_before_what_is_made_of_it() -> None:
    there: dict[str, int] = {part.name: part.size for part in parts(1100)}
    for level in still_to_join(list(roots_over(parts(1100))), {}):
        for node in level:
            assert all(there[source.name] == source.size for source in node.sources)
        there.update({node.name: node.size for node in level})


def test_what_was_made_before_a_kill_is_not_made_again_though_its_sources_are_gone() -> None:
    roots = list(roots_over(parts(1100)))
    assert made(roots, {roots[0].name: roots[0].size}) == made(roots[1:], {})
    half = roots[0].sources[3]
    assert half not in made(roots, {half.name: half.size})


def test_what_has_another_size_than_it_should_is_made_again() -> None:
    roots = list(roots_over(parts(40)))
    assert roots[0] in made(roots, {roots[0].name: roots[0].size - 1})


def test_a_name_tells_what_it_holds_and_which_parts_went_into_it() -> None:
    roots = roots_over(parts(1100))
    for node in [*roots, *roots[0].sources]:
        again = Node.named(node.name, node.size)
        assert again is not None
        assert (again.level, again.index, again.crc) == (node.level, node.index, node.crc)
        numbers = leaves([node])
        assert [number for number in range(1, 1101) if again.holds(number)] == numbers


def test_names_are_what_no_key_can_have_and_sort_apart() -> None:
    names = [node.name for node in [*parts(100), *roots_over(parts(100))]]
    assert len(set(names)) == len(names)
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in names)
    assert Node.named("something", 1) is None
