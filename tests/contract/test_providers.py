# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every provider promises, whatever it is. What one cannot do it must refuse; nothing here is skipped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._blocks import LEAF
from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.bring_vm import bring_vm
from ansible_collections.vmferry.migrate.plugins.module_utils._operations.jobs.requests import VmRequest
from ansible_collections.vmferry.migrate.plugins.modules.vm_export import argument_spec

from .providers.base import POWERS, Driver, Power
from .providers.bench import ProviderBench, act_at, cancel_at, refused
from .providers.fixtures import DRIVERS

MIB = 1 << 20
SIZE = 3 * MIB + 3 * 1024  # its last leaf is a short one
OTHER = 2 * MIB


def each(drivers: Any = DRIVERS) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("bench", drivers, ids=lambda driver: driver.name, indirect=True)


def disk(seed: int, size: int = SIZE) -> bytes:
    """Data, a hole, and something at its very end."""
    return Random(seed).randbytes(size // 2).ljust(size - 512, b"\0") + b"\xee" * 512


def exportable(driver: type[Driver]) -> tuple[Power, ...]:
    if not driver.abilities.exports:
        return ()
    return POWERS if driver.abilities.live else ("off",)


EXPORTERS = [driver for driver in DRIVERS if exportable(driver)]
EXPORTED = [
    pytest.param(driver, power, id=f"{driver.name}-{power}") for driver in DRIVERS for power in exportable(driver)
]
each_power = pytest.mark.parametrize(("bench", "power"), EXPORTED, indirect=["bench"])


@each()
@pytest.mark.parametrize("power", POWERS)
def test_a_vm_is_described_with_its_disks_as_it_is_listed(bench: ProviderBench, power: Power) -> None:
    vm = bench.driver.make_vm(disk(1), disk(2, OTHER), power=power)
    (told,) = bench.vms(vm)
    assert (told["provider"], told["name"]) == (bench.driver.name, vm)
    sizes = [bench.driver.size_of(size) for size in (SIZE, OTHER)]
    assert [(one["id"], one["size"]) for one in told["disks"]] == list(zip(("disk-0", "disk-1"), sizes, strict=True))
    assert len({one["name"] for one in told["disks"]}) == 2
    assert told["storage_bytes"] == sum(sizes)
    if bench.driver.abilities.power:
        assert told["power_state"] == f"powered_{power}"
    assert [one for one in bench.vms() if one["name"] == vm] == [bench.driver.in_a_list(told)]
    assert bench.vms(told["id"]) == [told]
    assert bench.vms(told["path"]) == [told]


@each()
def test_what_does_not_exist_or_cannot_be_reached_is_refused_with_its_kind(bench: ProviderBench) -> None:
    vm, broken = bench.driver.make_vm(disk(1)), bench.driver.broken
    assert refused(lambda: bench.vms("nobody"), "not_found", "nobody").hint
    refused(lambda: bench.vms(vm, provider=broken.spec), broken.kind)
    if bench.driver.abilities.exports:
        assert refused(lambda: bench.export("nobody"), "not_found", "nobody").hint
        known = bench.vms(vm)[0]["disks"][0]["name"]
        assert known in refused(lambda: bench.export(vm, disks=(known, "disk-7")), "not_found", "disk-7").hint
        refused(lambda: bench.export(vm, provider=broken.spec), broken.kind)
    assert bench.keys() == []
    bench.assert_nothing_left(vm)


@each_power
def test_a_full_export_is_all_disks_as_they_were_and_the_vm_stays_as_it_was(bench: ProviderBench, power: Power) -> None:
    vm = bench.driver.make_vm(disk(1), disk(2, OTHER), power=power)
    before = bench.disks(vm)
    planned = bench.export(vm, check_mode=True)
    assert (planned["changed"], planned["plan"]["mode"], bench.keys()) == (True, "full", [])
    made = bench.export(vm, verify="content")["export"]
    assert bench.content(made) == before == bench.disks(vm)
    assert [one["bytes_read"] < one["size"] for one in made["disks"]] == [bench.driver.knows_holes] * 2
    knows = bench.driver.abilities.powered_off and power == "off"
    assert made["consistency"] == ("powered_off" if knows else "crash_consistent")
    assert bench.driver.is_on(vm) == (power == "on")
    some = bench.export(vm, disks=("disk-1",), mode="full")["export"]
    assert ([one["id"] for one in some["disks"]], bench.content(some)) == (["disk-1"], before[1:])
    bench.assert_nothing_left(vm)


@each(EXPORTERS)
@pytest.mark.parametrize("power", POWERS)
def test_what_is_written_while_it_is_read_is_in_no_export(
    bench: ProviderBench, power: Power, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A VM that runs goes on writing; for one that cannot be frozen, or is started meanwhile, the export fails."""
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER), power=power)
    if power == "on" and not driver.abilities.live:
        refused(lambda: bench.export(vm), "busy")
        assert bench.keys() == []
        return
    before, locked = bench.disks(vm), []
    driver.patience = 0.0

    def write_everywhere() -> None:
        try:
            for number, size in enumerate((SIZE, OTHER)):
                driver.write(vm, number, 0, b"\xdd" * size)
        except BlockingIOError as error:
            locked.append(error)

    act_at(monkeypatch, "window-delivered", write_everywhere)
    if power == "on" or driver.locks or driver.apart:
        assert bench.content(bench.export(vm)["export"]) == before
        assert bool(locked) == (power == "off" and driver.locks)
        assert (bench.disks(vm) == before) == bool(locked)
    else:
        refused(lambda: bench.export(vm, on_failure="undo"), "conflict", "changed while it was exported")
        assert bench.keys() == []
    bench.assert_nothing_left(vm)


def tracks(bench: ProviderBench, power: Power) -> bool:
    return bench.driver.abilities.tracking and power in bench.driver.tracked


def change_at_random(bench: ProviderBench, vm: str, chance: Random) -> set[tuple[int, int]]:
    """Writes, zeros and discards anywhere, aligned and not; the disks' numbers and leaves that they touched."""
    touched = set()
    for _unused in range(6):
        number = chance.randrange(2)
        size = (SIZE, OTHER)[number]
        sectors = size // 512
        first = chance.randrange(sectors)
        count = min(chance.choice((1, 3, 128, 200, 512)), sectors - first)
        offset, length = first * 512, count * 512
        work = chance.choice(("write", "zero", "discard"))
        if work == "write":
            bench.driver.write(vm, number, offset, chance.randbytes(length))
        else:
            getattr(bench.driver, work)(vm, number, offset, length)
        touched |= {(number, leaf) for leaf in range(offset // LEAF, (offset + length - 1) // LEAF + 1)}
    return touched


@each_power
def test_increments_are_exact_under_random_writes_zeros_and_discards(bench: ProviderBench, power: Power) -> None:
    chance = Random(11)
    vm = bench.driver.make_vm(disk(1), disk(2, OTHER), power=power)
    made = [bench.export(vm)["export"]]
    moments = [bench.disks(vm)]
    for _unused in range(4):
        touched = change_at_random(bench, vm, chance)
        export = bench.export(vm, mode="incremental", verify="content")["export"]
        now = bench.disks(vm)
        differing = sum(one != other for one, other in zip(now, moments[-1], strict=True))
        changed = sum(one["bytes_changed"] for one in export["disks"])
        assert (differing > 0) <= (changed > 0)
        assert changed <= len(touched) * LEAF
        assert (export["mode"], export["parent"], export["fell_back"]) == ("incremental", made[-1]["id"], "")
        if tracks(bench, power):
            granules = {(number, leaf * LEAF // bench.driver.granule) for number, leaf in touched}
            assert sum(one["bytes_read"] for one in export["disks"]) <= len(granules) * bench.driver.granule
        made.append(export)
        moments.append(now)
    for export, moment in zip(made, moments, strict=True):
        assert bench.content(export) == moment
    again = bench.export(vm)
    assert (again["changed"], again["unchanged_since"]) == (False, made[-1]["id"])
    bench.assert_nothing_left(vm)
    bench.driver.write(vm, 1, 0, b"after nothing")
    last = bench.export(vm, mode="incremental")["export"]
    assert [one["bytes_changed"] for one in last["disks"]] == [0, LEAF]


@each_power
def test_where_tracking_was_lost_the_export_is_full_and_says_so(bench: ProviderBench, power: Power) -> None:
    """Who tracks nothing has nothing to lose: it compares, and says that."""
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER), power=power)
    first = bench.export(vm)["export"]
    driver.write(vm, 0, 5 * LEAF, b"x" * LEAF)
    if not tracks(bench, power):
        second = bench.export(vm, mode="incremental")["export"]
        assert (first["change_token"], second["change_token"]) == ("", "")
        assert "compared by digests" in second["reason"]
        assert sum(one["bytes_changed"] for one in second["disks"]) == LEAF
        return
    assert first["change_token"]
    driver.lose_tracking(vm)
    lost = driver.words_of_loss(first["change_token"])
    refused(lambda: bench.export(vm, mode="incremental"), "conflict", lost)
    assert sorted(driver.leftovers(vm, set())) == [], "the refused one left none of its own"
    second = bench.export(vm)["export"]
    assert (second["mode"], lost in second["fell_back"]) == ("full", True)
    assert second["chain_id"] != first["chain_id"]
    assert bench.content(second) == bench.disks(vm)
    driver.write(vm, 1, 0, b"y" * LEAF)
    third = bench.export(vm, mode="incremental")["export"]
    assert [one["bytes_changed"] for one in third["disks"]] == [0, LEAF]
    bench.assert_nothing_left(vm)


@each(EXPORTERS)
def test_a_chain_goes_on_when_the_vm_is_switched_on_and_off(bench: ProviderBench) -> None:
    """Or a new one begins, and says so, where nobody knows any more what changed."""
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER))
    last = bench.export(vm)["export"]
    for turn, power in enumerate(("on", "off", "on", "off")):
        driver.write(vm, 0, 7 * turn * LEAF, b"before" * 20)
        driver.power(vm, power)
        driver.write(vm, 0, 7 * turn * LEAF + 3 * LEAF, b"after" * 20)
        if power not in exportable(type(driver)):
            refused(lambda: bench.export(vm), "busy")
            continue
        forgot = power == "off" and not driver.remembers
        made = bench.export(vm, mode="auto" if forgot else "incremental")["export"]
        assert (made["mode"], made["parent"] or "") == (("full", "") if forgot else ("incremental", last["id"]))
        assert bool(made["fell_back"]) == forgot
        assert bench.content(made) == bench.disks(vm)
        assert not bench.export(vm)["changed"], "nothing was written since"
        bench.assert_nothing_left(vm)
        last = made


def add(bench: ProviderBench, vm: str) -> None:
    bench.driver.add_disk(vm, disk(3, MIB))


def remove(bench: ProviderBench, vm: str) -> None:
    bench.driver.remove_disk(vm)


def grow(bench: ProviderBench, vm: str) -> None:
    size = bench.driver.size_of(OTHER)
    bench.driver.grow(vm, 1, size + MIB)
    bench.driver.write(vm, 1, size + MIB - LEAF, b"z" * LEAF)


OTHERS = "disks were added or removed"
GROWN = "disk-1 was resized from {} to {} bytes"


@each(EXPORTERS)
@pytest.mark.parametrize(("change", "words"), [(add, OTHERS), (remove, OTHERS), (grow, GROWN)])
def test_a_disk_that_is_added_removed_or_grown_makes_the_export_full_and_the_chain_goes_on(
    bench: ProviderBench, change: Callable[[ProviderBench, str], None], words: str
) -> None:
    vm = bench.driver.make_vm(disk(1), disk(2, OTHER))
    first = bench.export(vm)["export"]
    before = bench.disks(vm)
    change(bench, vm)
    size = bench.driver.size_of(OTHER)
    words = words.format(size, bench.driver.size_of(size + MIB))
    refused(lambda: bench.export(vm, mode="incremental"), "conflict", words)
    second = bench.export(vm)["export"]
    assert (second["mode"], words in second["fell_back"]) == ("full", True)
    assert (bench.content(first), bench.content(second)) == (before, bench.disks(vm))
    bench.driver.write(vm, 0, 0, b"n" * LEAF)
    third = bench.export(vm)["export"]
    assert (third["mode"], third["parent"]) == ("incremental", second["id"])
    assert bench.content(third) == bench.disks(vm)
    bench.assert_nothing_left(vm)


@each()
@pytest.mark.parametrize("power", POWERS)
def test_snapshots_come_are_reverted_to_and_go_and_the_disks_are_as_they_should_be(
    bench: ProviderBench, power: Power
) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER), power=power)
    if not driver.abilities.snapshots:
        refused(lambda: bench.snapshot(vm, name="one"), "unsupported")
        return
    reverts = driver.abilities.reverts
    before = bench.disks(vm)
    planned = bench.snapshot(vm, name="one", check_mode=True)
    assert (planned["changed"], planned["plan"]["create"], bench.snapshots(vm)) == (True, "one", [])
    made = bench.snapshot(vm, name="one", quiesce="never")
    assert made["changed"]
    (told,) = made["snapshots"]
    assert (told["name"], told["ours"], told["whole"], told["current"]) == ("one", True, True, reverts)
    assert not bench.snapshot(vm, name="one")["changed"]
    assert bench.snapshots(vm) == ["one"]
    driver.write(vm, 0, LEAF, b"s" * 2 * LEAF)
    driver.discard(vm, 1, 0, LEAF)
    after = bench.disks(vm)
    assert after != before
    driver.power(vm, "off")
    if reverts:
        assert bench.snapshot(vm, "reverted", name="one")["changed"]
    else:
        refused(lambda: bench.snapshot(vm, "reverted", name="one"), "unsupported")
    assert bench.disks(vm) == (before if reverts else after)
    driver.power(vm, power)
    driver.write(vm, 0, 3 * LEAF, b"t" * LEAF)
    now = bench.disks(vm)
    for number in range(3):
        kept = bench.snapshot(vm, name=f"more-{number}", keep=2, quiesce="never")
        assert len(kept["snapshots"]) == 2
    assert [one["name"] for one in kept["snapshots"]] == ["more-1", "more-2"]
    assert bench.snapshot(vm, "absent", name="more-1")["removed"] == ["more-1"]
    assert bench.snapshot(vm, "absent")["removed"] == ["more-2"]
    assert not bench.snapshot(vm, "absent")["changed"]
    assert bench.disks(vm) == now
    assert driver.is_on(vm) == (power == "on")
    refused(lambda: bench.snapshot(vm, "reverted", name="one"), "not_found", "one")
    bench.assert_nothing_left(vm)


@each()
def test_what_a_provider_does_not_claim_it_refuses_before_anything_is_changed(bench: ProviderBench) -> None:
    """And what it claims is planned: the findings of check mode hold no such refusal."""
    driver, can = bench.driver, bench.driver.abilities
    vm = driver.make_vm(disk(1), disk(2, OTHER))
    before = bench.vms(vm)
    claims: list[tuple[bool, Callable[[], Any]]] = [
        (can.exports, lambda: bench.export(vm, check_mode=True)),
        (can.powered_off, lambda: bench.export(vm, check_mode=True, consistency="powered_off")),
        (can.snapshots, lambda: bench.snapshot(vm, check_mode=True)),
        (can.power, lambda: bring_vm(VmRequest(driver.spec, vm, "powered_on"), check_mode=True)),
        (can.removal, lambda: bring_vm(VmRequest(driver.spec, vm, "absent", remove_disks=True), check_mode=True)),
    ]
    assert [works(work) for _claimed, work in claims] == [claimed for claimed, _work in claims]
    denied = [
        (can.exports, lambda: bench.export(vm)),
        (can.powered_off, lambda: bench.export(vm, consistency="powered_off")),
        (can.snapshots, lambda: bench.snapshot(vm)),
        (can.power, lambda: bring_vm(VmRequest(driver.spec, vm, "powered_on"), check_mode=False)),
        (can.removal, lambda: bring_vm(VmRequest(driver.spec, vm, "absent", remove_disks=True), check_mode=False)),
    ]
    for claimed, work in denied:
        if not claimed:
            refused(work, "unsupported")
    assert (bench.vms(vm), bench.keys()) == (before, [])
    bench.assert_nothing_left(vm)


def works(work: Callable[[], Any]) -> bool:
    try:
        result = work()
    except VmferryError as error:
        if error.kind != "unsupported":
            raise
        return False
    return not any(one["kind"] == "unsupported" for one in result.get("findings", ()))


CANCELLED_AT = ("claimed", "window-delivered", "objects-complete")


@each_power
def test_an_export_that_is_cancelled_anywhere_leaves_nothing_and_can_be_made(
    bench: ProviderBench, power: Power, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = bench.driver.make_vm(disk(1), disk(2, OTHER), power=power)
    for point in CANCELLED_AT:
        with monkeypatch.context() as patched:
            cancel_at(patched, point)
            refused(lambda: bench.export(vm, on_failure="undo"), "cancelled")
        assert bench.keys() == [], point
        bench.assert_nothing_left(vm)
    assert bench.content(bench.export(vm)["export"]) == bench.disks(vm)
    bench.assert_nothing_left(vm)


HARDWARE = ("cpu", "memory_mb", "architecture")


@each(EXPORTERS)
def test_an_import_is_the_disks_and_the_machine_as_it_was_or_as_asked_and_is_made_once(bench: ProviderBench) -> None:
    driver = bench.driver
    vm = driver.make_vm(disk(1), disk(2, OTHER))
    first = bench.export(vm)["export"]
    if not driver.abilities.imports:
        refused(lambda: bench.import_("back"), "unsupported")
        assert [one["name"] for one in bench.vms()] == [vm]
        return
    driver.write(vm, 0, 0, b"u" * LEAF)
    bench.export(vm)
    assert bench.import_("back", check_mode=True)["changed"]
    assert list(driver.left_of_imports()) == []
    made = bench.import_("back")
    assert (made["changed"], made["vm"]["name"], made["vm"]["power_state"]) == (True, "back", "powered_off")
    assert bench.disks("back") == bench.disks(vm)
    (was,), (told,) = bench.vms(vm), bench.vms("back")
    assert [told[key] for key in HARDWARE] == [was[key] for key in HARDWARE]
    assert was["firmware"] in (told["firmware"], "unknown")
    assert told["id"] != was["id"]
    assert not bench.import_("back")["changed"]
    assert (bench.disks("back"), bench.vms("back")) == (bench.disks(vm), [told])
    refused(lambda: bench.import_("back", export=first["id"]), "conflict", "back")
    driver.remove_vm("back")
    asked, *hardware = driver.other_hardware
    bench.import_("other", export=first["id"], placement={**asked, "power_on": driver.abilities.power})
    (told,) = bench.vms("other")
    assert [told["cpu"], told["memory_mb"], driver.is_on("other")] == [*hardware, driver.abilities.power]
    driver.remove_vm("other")
    assert list(driver.left_of_imports()) == []
    bench.assert_nothing_left(vm)


@each(EXPORTERS)
def test_an_import_touches_nothing_that_is_not_its_own_and_says_so_before_it_writes(bench: ProviderBench) -> None:
    driver = bench.driver
    vm, neighbour = driver.make_vm(disk(1)), driver.make_vm(disk(3))
    bench.export(vm)
    before = (bench.disks(vm), bench.disks(neighbour), bench.vms())
    wrong: list[tuple[str, Mapping[str, Any], str, str]] = [
        (neighbour, {}, "conflict", neighbour),
        ("back", {"export": "no-export"}, "not_found", "no-export"),
        (driver.wrong_name, {}, "invalid_config", "back"),
    ]
    wrong += [("back", {"placement": one}, kind, words) for one, kind, words in driver.wrong_placements]
    for name, options, kind, words in wrong:
        if driver.abilities.imports:
            refused(partial(bench.import_, name, **options), kind, words)
        elif "export" not in options:
            refused(partial(bench.import_, name, **options), "unsupported")
    theirs = driver.in_the_way("back")
    if driver.abilities.imports and theirs is not None:
        theirs.write_bytes(b"somebody's")
        refused(lambda: bench.import_("back"), "conflict", theirs.name)
        assert theirs.read_bytes() == b"somebody's"
        theirs.unlink()
    assert (bench.disks(vm), bench.disks(neighbour), bench.vms()) == before
    assert list(driver.left_of_imports()) == []
    bench.assert_nothing_left(vm)


@pytest.mark.parametrize("target", DRIVERS, ids=lambda driver: f"to-{driver.name}")
@pytest.mark.parametrize("source", EXPORTERS, ids=lambda driver: f"from-{driver.name}")
def test_a_vm_goes_from_each_provider_to_each_with_the_same_digests(
    source: type[Driver], target: type[Driver], make_bench: Callable[[type[Driver]], ProviderBench]
) -> None:
    here, there = make_bench(source), make_bench(target)
    vm = here.driver.make_vm(disk(1), disk(2, OTHER))
    exported = here.export(vm)["export"]
    if not target.abilities.imports:
        refused(lambda: there.import_("moved", store=here.store), "unsupported")
        return
    networks = {nic["network"]: there.driver.network for nic in here.vms(vm)[0]["nics"] if there.driver.network}
    there.import_("moved", store=here.store, placement={"network_map": networks})
    assert there.disks("moved") == here.disks(vm)
    again = there.export("moved")["export"]
    sizes = [[one["size"] for one in export["disks"]] for export in (exported, again)]
    assert sizes[1] == [there.driver.size_of(size) for size in sizes[0]]
    roots = [[one["digest_root"] for one in export["disks"]] for export in (exported, again)]
    assert (roots[0] == roots[1]) == (sizes[0] == sizes[1])
    there.driver.remove_vm("moved")


@each(EXPORTERS)
def test_secrets_are_in_no_command_line_record_result_or_export(
    bench: ProviderBench, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """A provider whose connection takes none says so, and its options are looked at."""
    vm, spec, secrets = bench.driver.with_secrets(request.getfixturevalue, disk(1))
    if not secrets:
        options = argument_spec().options[bench.driver.name]["options"]
        assert not [name for name, option in options.items() if option.get("no_log")]
        return
    seen: list[bytes] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.005):
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):  # it ended meanwhile
                    seen.append(process.read_bytes())

    looking = threading.Thread(target=look)
    looking.start()
    try:
        results: list[Any] = [bench.vms(vm, provider=spec), bench.export(vm, provider=spec, verify="content")]
        results.append(bench.export(vm, provider=spec, mode="full"))
        results.append(str(refused(lambda: bench.export("nobody", provider=spec), "not_found")))
    finally:
        over.set()
        looking.join()
    written = [path.read_bytes() for path in bench.folder.rglob("*") if path.is_file()]
    assert len(seen) > 1
    assert len(written) > 4
    everything = [*seen, *written, repr((results, caplog.records, spec)).encode()]
    for secret in secrets:
        assert len(secret) > 5
        assert not [text for text in everything if secret.encode() in text]
