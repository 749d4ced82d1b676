# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`./dev test`: the groups of checks, their time budgets, and the summary at the end."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from collection_tests import BUILD, ansible_test, copy_collection, offer_python, prepare_home
from environments import (
    CONTROLLER_PYTHONS,
    CORES,
    HOST_PYTHON,
    ROOT,
    EnvironmentFailure,
    add_requirements,
    core_venv,
    host_venv,
    main_venv,
)
from report import CaseResult, GroupResult, print_summary, read_junit
from steps import Step, Steps

JUNIT = BUILD / "junit"
LOGS = BUILD / "logs"
# All of it, whatever is added over the years, on two cores. The budgets below may not sum up to more.
WHOLE_RUN_SECONDS = 40 * 60
# A budget is what a group takes on a machine that has nothing else to do, and the summary tells when it took longer.
# What ends a step is another limit: a busy machine is several times slower, which is no defect, and a hang is endless.
HUNG_FACTOR = 3
HUNG_RUN_SECONDS = 2 * WHOLE_RUN_SECONDS
SETUP_BUDGET = 100
BIN = ROOT / ".venv/bin"
# By this path mypy gives a file the one name by which all others import it.
COLLECTION = BUILD / "ansible_collections/vmferry/migrate"


@dataclass(frozen=True)
class Machine:
    """The environments this run found or made."""

    cores: dict[str, Path] = field(default_factory=dict)  # oldest first
    host: Path | None = None

    @property
    def newest(self) -> str:
        """Of ansible-core; the runs that are not repeated for every core use it."""
        return list(self.cores)[-1]


@dataclass(frozen=True)
class Group:
    name: str
    budget: int
    promise: str
    check: Callable[[Steps, Machine], None]
    needs: Set[str] = frozenset()
    beside: str = ""  # another group, which leaves a core idle: those beside it run there meanwhile, one by one


def lint(steps: Steps, machine: Machine) -> None:
    copy = copy_collection("lint")
    in_copy = {
        **_with_venv(),
        "ANSIBLE_COLLECTIONS_PATH": str(copy.parents[2]),
        "ANSIBLE_HOME": str(ROOT / ".cache/ansible"),
    }
    steps.run_together(
        [
            *_python_lint(),
            Step("ansible-lint", [BIN / "ansible-lint", "--offline", "--strict"], copy, in_copy),
            Step("docs", [BIN / "antsibull-docs", "lint-collection-docs", *_DOCS_LINT, "."], copy, in_copy),
            Step("changelog", [BIN / "antsibull-changelog", "lint"], copy, in_copy),
            Step("yamllint", [BIN / "yamllint", "--strict", "."], copy),
            Step("trailing whitespace", ["bash", "-c", f"! {_TRAILING_WHITESPACE}"], ROOT),
        ]
    )


_DOCS_LINT = ("--plugin-docs", "--skip-rstcheck", "--validate-collection-refs", "self")
_TRAILING_WHITESPACE = "git grep --untracked -nIE '[[:space:]]+$' -- . ':!COPYING'"


def _python_lint() -> list[Step]:
    return [
        Step("mypy", [BIN / "mypy", COLLECTION / "plugins", "tests"], ROOT),
        Step("ruff check", [BIN / "ruff", "check", "--quiet"], ROOT),
        Step("ruff format", [BIN / "ruff", "format", "--check", "--quiet"], ROOT),
    ]


def fast(steps: Steps, machine: Machine) -> None:
    steps.run_together(_python_lint())
    steps.run(_pytest("fast", "tests/unit", "tests/engine", "-m", "not slow", "-n", "2"))


def engine(steps: Steps, machine: Machine) -> None:
    steps.run(_pytest("engine", "tests/engine", "tests/contract", f"--ignore-glob={_PROVIDERS}", *_WAITING))
    if machine.host:
        # Rigs and tools run with the newest Python only; what runs on hosts is everything else.
        elsewhere = [f"--ignore=tests/engine/{name}" for name in ("rigs", "tools")]
        selection = ("tests/engine", *elsewhere, "-m", "not slow", *_WAITING)
        steps.run(_pytest(f"engine-{HOST_PYTHON}", *selection, python=machine.host / "bin/python"))


def system(steps: Steps, machine: Machine) -> None:
    contract = sorted(ROOT.glob(_PROVIDERS))
    steps.run(_pytest("system", "tests/system", *(str(path.relative_to(ROOT)) for path in contract), *_WAITING))


_PROVIDERS = "tests/contract/test_providers*.py"  # which need the machines of the system tests, and are run with them


def plays(steps: Steps, machine: Machine) -> None:
    steps.run(_pytest("plays", "tests/plays", "-n", "3"))


# These tests wait for servers and for time to pass more than they compute, on whatever number of cores.
_WAITING = ("-n", "4")


def sanity(steps: Steps, machine: Machine) -> None:
    jobs = []
    for core, venv in reversed(machine.cores.items()):  # the longest first, or it runs alone in the end
        # These tests do not ship; ruff and mypy look at them.
        excluded = [word for folder in _TESTS_BY_PYTEST for word in ("--exclude", folder)]
        # What it thinks of the same sources hardly differs, and takes most of the time.
        older = ["--skip-test", "pylint"] if core != machine.newest else []
        jobs.append(_on_core(venv, ["sanity", *excluded, *older], f"sanity on {core}"))
    if machine.host and offer_python(HOST_PYTHON):
        arguments = ["sanity", "--test", "compile", "--test", "import"]
        name = f"sanity for Python {HOST_PYTHON}"
        jobs.append(_on_core(machine.cores[machine.newest], arguments, name, HOST_PYTHON))
    steps.run_together(jobs)


_TESTS_BY_PYTEST = tuple(
    f"tests/{name}/" for name in ("benchmarks", "contract", "engine", "plays", "rigs", "system", "tools")
)


def units(steps: Steps, machine: Machine) -> None:
    jobs = [_on_core(venv, ["units"], f"units on {core}") for core, venv in machine.cores.items()]
    if machine.host:
        name = f"units on Python {HOST_PYTHON}"
        jobs.append(_on_core(machine.cores[machine.newest], ["units"], name, HOST_PYTHON, first=machine.host))
    steps.run_together(jobs)
    for job in jobs:
        for file in (job.folder / "tests/output/junit").glob("*.xml"):
            JUNIT.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, JUNIT / f"units-{job.folder.parents[2].name}-{file.name}")


def integration(steps: Steps, machine: Machine) -> None:
    for core, venv in machine.cores.items():
        targets = [] if core == machine.newest else ["smoke"]
        steps.run(_on_core(venv, ["integration", *targets], f"integration on {core}", own_home=False))


def molecule(steps: Steps, machine: Machine) -> None:
    copy = copy_collection("molecule")
    environment = {
        **_with_venv(),
        "ANSIBLE_COLLECTIONS_PATH": str(copy.parents[2]),
        "ANSIBLE_HOME": str(ROOT / ".cache/ansible"),
    }
    steps.run_together([Step("molecule", [BIN / "molecule", "test", "--all"], copy, environment)])


def demo(steps: Steps, machine: Machine) -> None:
    steps.run(Step("demo", [ROOT / "dev", "demo"], ROOT))
    steps.run(Step("demo, again within a minute", ["timeout", "60", ROOT / "dev", "demo"], ROOT))


def _with_venv() -> dict[str, str]:
    return {"PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def _pytest(report: str, *arguments: str, python: Path = BIN / "python") -> Step:
    """Bytecode is kept, whatever this machine's habit: every worker loads all tests, and tests start many a Python."""
    command: list[str | Path] = [python, "-m", "pytest", "-q", *arguments, "--junitxml", JUNIT / f"{report}.xml"]
    environment = {**_with_venv(), "PYTHONDONTWRITEBYTECODE": ""}
    return Step(f"pytest {' '.join(arguments)}", command, ROOT, environment)


def _on_core(
    venv: Path,
    arguments: Sequence[str],
    name: str,
    python: str = "",
    *,
    first: Path | None = None,
    own_home: bool = True,
) -> Step:
    """`ansible-test` of one environment in a copy of its own, so that several can run side by side."""
    python = python or next((venv / "lib").glob("python3*")).name.removeprefix("python")
    command = [arguments[0], "--local", "--python", python, *arguments[1:]]
    copy = copy_collection(name.replace(" ", "-"))
    # An async job's record is looked for in the home the password database names, so there HOME must stay.
    home = prepare_home(venv, name) if own_home else None
    return ansible_test(venv, command, name=name, copy=copy, home=home, first=first)


SERVERS, EVERY_CORE, HOST, PYTEST = "real servers", "every core", "the Python of a host", "tests by pytest"
VSPHERE = "the simulator of vSphere"  # which needs half a gigabyte of packages and a minute of compiling
FAST = Group("fast", 150, "ruff, mypy, unit and engine tests that are not slow", fast, {SERVERS, VSPHERE, PYTEST})
GROUPS = (
    Group("lint", 45, "ruff, mypy, ansible-lint, docs, changelog, yamllint, trailing whitespace", lint),
    Group(
        "units", 80, f"unit tests on every ansible-core and on Python {HOST_PYTHON}", units, {EVERY_CORE, HOST, PYTEST}
    ),
    Group(
        "sanity",
        180,
        f"ansible-test sanity on every ansible-core (pylint on the newest) and for Python {HOST_PYTHON}",
        sanity,
        {EVERY_CORE},
    ),
    Group(
        "engine",
        560,
        f"the engine by rooms, also on Python {HOST_PYTHON}; contracts of stores",
        engine,
        {SERVERS, VSPHERE, HOST, PYTEST},
    ),
    Group("system", 560, "exports and imports against real libvirt and S3 servers", system, {SERVERS, VSPHERE, PYTEST}),
    Group("plays", 480, "ansible-playbook, over SSH too: live jobs, fleets, AWX", plays, {SERVERS, VSPHERE, PYTEST}),
    Group("integration", 200, "the modules in plays", integration, {SERVERS, EVERY_CORE}),
    Group("molecule", 120, "the roles", molecule, {SERVERS}, beside="integration"),
    Group("demo", 60, "./dev demo", demo, {SERVERS}, beside="integration"),
)
assert SETUP_BUDGET + sum(group.budget for group in GROUPS if not group.beside) <= WHOLE_RUN_SECONDS


_WHERE_FROM = "from your system, pyenv or `uv python install`"


def set_up(steps: Steps, groups: Sequence[Group]) -> Machine:
    """Makes the environments the groups need, side by side."""
    needs = {need for group in groups for need in group.needs}
    if EVERY_CORE in needs and " " in str(ROOT):
        raise EnvironmentFailure(f"ansible-test breaks below a folder with a space in its name: {ROOT}")
    requirements = [*(["requirements.txt"] if SERVERS in needs else []), "requirements-test.txt"]
    jobs: dict[str, Callable[[], Path | None]] = {".venv": partial(main_venv, requirements)}
    if EVERY_CORE in needs:
        jobs.update({core: partial(core_venv, core) for core in CORES})
    if HOST in needs:
        jobs["host"] = host_venv
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        futures = {name: pool.submit(job) for name, job in jobs.items()}
    made = {name: future.result() for name, future in futures.items()}
    for core in CORES:
        if core in made and made[core] is None:
            wanted = " or ".join(CONTROLLER_PYTHONS[core])
            steps.missing(f"Python {wanted} for ansible-core {core}; {_WHERE_FROM}")
    if "host" in made and made["host"] is None:
        steps.missing(f"a Python {HOST_PYTHON}, the oldest that shipped code must run on; {_WHERE_FROM}")
    machine = Machine({core: venv for core in CORES if (venv := made.get(core))}, made.get("host"))
    if machine.cores and SERVERS in needs:
        add_requirements(machine.newest, "requirements.txt")  # after .venv: pip then has libvirt's binding built
    return machine


def run_group(group: Group, machine: Machine, deadline: float) -> tuple[GroupResult, list[CaseResult]]:
    """`deadline`: of the whole run, by the monotonic clock."""
    print(f"\n=== {group.name}: {group.promise} (about {group.budget} s)", flush=True)
    for stale in JUNIT.glob(f"{group.name}*.xml"):
        stale.unlink()
    started = time.monotonic()
    steps = Steps(group.name, min(HUNG_FACTOR * group.budget, deadline - started), LOGS, strict=_is_ci())
    group.check(steps, machine)
    seconds = time.monotonic() - started
    if seconds > group.budget:
        steps.notes.append(f"slower than planned: {seconds:.0f} s instead of {group.budget} s")
    tests = read_junit(group.name, sorted(JUNIT.glob(f"{group.name}*.xml")))
    if PYTEST in group.needs and not tests:
        steps.failures.append("no test ran")
    if skipped := [test.name for test in tests if test.outcome == "skipped"]:
        steps.failures.append(f"nothing may be skipped, but {len(skipped)} were: {', '.join(skipped[:5])}")
    return GroupResult(group.name, seconds, group.budget, steps.failures, steps.notes), tests


def run(groups: Sequence[Group]) -> int:
    started = time.monotonic()
    setup = Steps("setup", HUNG_FACTOR * SETUP_BUDGET, LOGS, strict=_is_ci())
    machine = set_up(setup, groups)
    results = [GroupResult("setup", time.monotonic() - started, SETUP_BUDGET, setup.failures, setup.notes)]
    tests: list[CaseResult] = []
    with _simulator_compiled_meanwhile(groups):
        for turn in _turns(groups):
            with ThreadPoolExecutor(max_workers=2) as pool:
                ended = list(pool.map(partial(run_group, machine=machine, deadline=started + HUNG_RUN_SECONDS), turn))
            results += [result for result, _unused in ended]
            tests += [case for _unused, found in ended for case in found]
    print_summary(results, tests)
    return 1 if any(result.failures for result in results) else 0


@contextmanager
def _simulator_compiled_meanwhile(groups: Sequence[Group]) -> Iterator[None]:
    """While the first groups run, on what they leave of the cores; a test that comes too early waits for it."""
    if not any(VSPHERE in group.needs for group in groups):
        yield
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    with (LOGS / "simulator.log").open("wb") as log:
        command = ["nice", "-n", "19", sys.executable, str(ROOT / "tests/rigs/vsphere/build.py")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        compiling = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        try:
            yield
        finally:
            compiling.wait()


def _turns(groups: Sequence[Group]) -> list[list[Group]]:
    """Groups that run at the same time, turn by turn."""
    turns: list[list[Group]] = []
    for group in groups:
        together = next((turn for turn in turns if group.beside in [one.name for one in turn]), None)
        if together is None:
            turns.append([group])
        else:
            together.append(group)
    return turns


def _is_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev test")
    names = [group.name for group in GROUPS]
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(names))
    parser.add_argument("--fast", action="store_true", help=FAST.promise)
    parser.add_argument("--list", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--needs", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.list:
        for group in (*GROUPS, FAST):
            print(f"  {'--fast' if group is FAST else group.name:<12} {group.budget:>4} s  {group.promise}")
        return 0
    if unknown := set(options.groups) - set(names):
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.fast and options.groups:
        parser.error("--fast is a choice of its own: name groups or say --fast")
    named = [group for group in GROUPS if not options.groups or group.name in options.groups]
    chosen = [FAST] if options.fast else named
    if options.needs:
        needs = {need for group in chosen for need in group.needs}
        print(*(word for word, need in (("servers", SERVERS), ("vsphere", VSPHERE)) if need in needs))
        return 0
    try:
        return run(chosen)
    except EnvironmentFailure as failure:
        print(f"./dev: {failure}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
