# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What others tell a running job: to stop, and that its controller lives. And how many jobs may run at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from ansible_collections.vmferry.migrate.plugins.module_utils._errors import VmferryError
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.flow import Flow, Stopped
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.orders import LEASE, Orders, ask_to_stop
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.progress import Progress
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.slots import Slots
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.supervise import supervise

PATH = str(Path(__file__).resolve().parents[3] / ".build")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Unrecorded:
    def update(self, snapshot: object) -> None:
        """Nobody looks."""


def test_a_job_that_nobody_told_anything_goes_on(tmp_path: Path) -> None:
    clock = Clock()
    orders = Orders(tmp_path, 0, clock)
    clock.now += 1e9
    assert orders.reason_to_stop() == ""


def test_whoever_asks_first_is_named_in_one_printable_line(tmp_path: Path) -> None:
    ask_to_stop(tmp_path, "the operator\x1b[31m\nwho was in a hurry")
    ask_to_stop(tmp_path, "somebody else")
    assert Orders(tmp_path).reason_to_stop() == "the operator [31m who was in a hurry asked for it"
    assert (tmp_path / "cancel").stat().st_mode & 0o777 == 0o600


def test_a_controller_that_has_to_end_stops_the_job_and_does_not_say_that_nobody_wants_its_work(tmp_path: Path) -> None:
    (tmp_path / "abandon").write_text("the end of the play\n")
    orders = Orders(tmp_path)
    assert (orders.reason_to_stop(), orders.was_asked) == ("the end of the play asked for it", False)
    ask_to_stop(tmp_path, "the operator")
    assert (orders.reason_to_stop(), orders.was_asked) == ("the operator asked for it", True)


def test_an_empty_order_is_an_order_once_nothing_has_been_written_into_it(tmp_path: Path) -> None:
    (tmp_path / "cancel").touch()
    orders = Orders(tmp_path)
    assert [orders.reason_to_stop(), orders.reason_to_stop()] == ["", "somebody asked for it"]


def test_who_asks_is_named_also_by_a_job_that_looks_while_that_is_written(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    (tmp_path / "cancel").touch()
    assert orders.reason_to_stop() == ""
    (tmp_path / "cancel").write_text("the operator\n")
    assert orders.reason_to_stop() == "the operator asked for it"


def test_a_controller_that_falls_silent_ends_the_job_and_one_that_is_heard_does_not(tmp_path: Path) -> None:
    clock = Clock()
    orders = Orders(tmp_path, 120, clock)
    for moment in range(1, 10):
        clock.now += 100
        os.utime(_touched(tmp_path / LEASE), ns=(moment, moment))
        assert orders.reason_to_stop() == ""
    clock.now += 119
    assert orders.reason_to_stop() == ""
    clock.now += 2
    assert "controller_timeout" in orders.reason_to_stop()


def test_a_controller_that_was_never_heard_of_ends_the_job_too(tmp_path: Path) -> None:
    clock = Clock()
    orders = Orders(tmp_path, 120, clock)
    clock.now += 121
    assert "120 s" in orders.reason_to_stop()


def test_a_clock_that_is_set_back_does_not_look_like_silence(tmp_path: Path) -> None:
    clock = Clock()
    os.utime(_touched(tmp_path / LEASE), (2e9, 2e9))
    orders = Orders(tmp_path, 120, clock)
    clock.now += 100
    os.utime(tmp_path / LEASE, (1e9, 1e9))
    assert orders.reason_to_stop() == ""
    clock.now += 119
    assert orders.reason_to_stop() == ""


def test_a_reason_to_stop_cancels_what_is_supervised(tmp_path: Path) -> None:
    flow, orders = Flow(), Orders(tmp_path)

    def work() -> None:
        ask_to_stop(tmp_path, "the test")
        flow.sleep(30)

    with pytest.raises(VmferryError) as caught:
        supervise(flow, Progress(), Unrecorded(), work, reason_to_stop=orders.reason_to_stop, tick=0.01)
    assert caught.value.kind == "cancelled"
    assert caught.value.message == "The job was cancelled: the test asked for it."


def no_wait(seconds: float) -> None:
    raise Stopped


def unheard() -> None:
    """Nobody is told that there is a wait."""


def test_as_many_as_there_are_slots_and_no_more(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "state", "libvirt qemu:///system", 2)
    told: list[str] = []
    with ExitStack() as held:
        for _unused in range(2):
            held.enter_context(slots.taken(no_wait, lambda: told.append("wait")))
        assert told == []
        with pytest.raises(Stopped), slots.taken(no_wait, lambda: told.append("wait")):
            raise AssertionError("a third one ran")
        assert told == ["wait"]
    with slots.taken(no_wait, unheard):
        assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_other_hypervisors_have_slots_of_their_own(tmp_path: Path) -> None:
    one, other = (Slots(tmp_path, f"libvirt qemu+ssh://{host}/system", 1) for host in ("kvm/1", "kvm-1"))
    with one.taken(no_wait, unheard), other.taken(no_wait, unheard):
        assert one.account != other.account


def test_who_waits_gets_the_slot_that_is_given_back(tmp_path: Path) -> None:
    slots, tries = Slots(tmp_path, "libvirt", 1), []
    first = ExitStack()
    first.enter_context(slots.taken(no_wait, unheard))

    def sleep(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 3:
            first.close()

    with slots.taken(sleep, unheard):
        assert len(tries) == 3


HOLDER = """
import sys, time
from pathlib import Path
from ansible_collections.vmferry.migrate.plugins.module_utils._transfer.slots import Slots
with Slots(Path(sys.argv[1]), "libvirt", 1).taken(time.sleep, lambda: None):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_gives_its_slot_back(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": PATH}, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        slots = Slots(tmp_path, "libvirt", 1)
        with pytest.raises(Stopped), slots.taken(no_wait, unheard):
            raise AssertionError("two ran at once")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    with slots.taken(no_wait, unheard):
        assert holder.returncode == -signal.SIGKILL


def _touched(path: Path) -> Path:
    path.touch()
    return path
