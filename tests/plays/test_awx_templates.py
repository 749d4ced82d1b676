# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What load.yml gives to a controller: it runs, with modules that write down what they are asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .awx import EXAMPLES, ROOT, example

PLAYBOOKS = ROOT / "playbooks"
# The options of the collection awx.awx 24 that we may use, all but the lists and dictionaries being plain values.
OPTIONS = {
    "credential_type": "name description kind inputs:dict injectors:dict",
    "execution_environment": "name image description organization credential pull",
    "instance_group": "name credential is_container_group:bool max_concurrent_jobs:int max_forks:int pod_spec_override",
    "job_template": (
        "name description organization job_type inventory project playbook credentials:list execution_environment "
        "instance_groups:list forks:int limit verbosity:int extra_vars:dict timeout:int ask_limit_on_launch:bool "
        "ask_variables_on_launch:bool survey_enabled:bool survey_spec:dict become_enabled:bool "
        "allow_simultaneous:bool job_slice_count:int"
    ),
    "project": "name description organization scm_type scm_url scm_branch credential scm_update_on_launch:bool",
    "schedule": "name description organization unified_job_template rrule extra_data:dict enabled:bool",
    "workflow_job_template": (
        "name description organization inventory limit survey_enabled:bool survey_spec:dict ask_limit_on_launch:bool"
    ),
    "workflow_job_template_node": (
        "identifier workflow_job_template organization unified_job_template lookup_organization extra_data:dict "
        "success_nodes:list always_nodes:list failure_nodes:list"
    ),
}
_RECORDER = """
import json, os
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        spec = json.loads(os.environ["AWX_OPTIONS"])[self._task.action.rpartition(".")[2]]
        spec = {name: {"type": kind} for name, kind in spec.items()}
        result, given = self.validate_argument_spec(spec)
        said = {name: given[name] for name in self._task.args}
        with open(os.environ["AWX_CALLS"], "a") as calls:
            calls.write(json.dumps([self._task.action.rpartition(".")[2], said]) + chr(10))
        return {"changed": True}
"""

Calls = dict[str, list[dict[str, Any]]]


def load(folder: Path, **variables: Any) -> Calls:
    """What each module was asked for."""
    collection = folder / "collections/ansible_collections/awx/awx"
    (collection / "plugins/action").mkdir(parents=True)
    (collection / "plugins/modules").mkdir()
    for name in OPTIONS:
        (collection / f"plugins/action/{name}.py").write_text(_RECORDER)
        (collection / f"plugins/modules/{name}.py").touch()
    types = {
        module: {name: kind or "str" for name, _unused, kind in (word.partition(":") for word in words.split())}
        for module, words in OPTIONS.items()
    }
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(folder / "collections"),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "AWX_OPTIONS": json.dumps(types),
        "AWX_CALLS": str(folder / "calls"),
    }
    command = ["ansible-playbook", str(EXAMPLES / "load.yml"), "-e", json.dumps(variables)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    calls: Calls = {name: [] for name in OPTIONS}
    for line in (folder / "calls").read_text().splitlines():
        module, said = json.loads(line)
        calls[module].append(said)
    return calls


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Calls:
    return load(tmp_path_factory.mktemp("load"), awx_cluster_credential="cluster", awx_load_schedules=True)


def surveys() -> dict[str, dict[str, Any]]:
    return {survey["name"]: survey for survey in example("survey.yml").values()}


def questions(survey: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {question["variable"]: question for question in survey["spec"]}


def variables_of(playbook: str) -> str:
    """The text in which a playbook's variables stand; that of the collection for the one which is imported."""
    text = (ROOT / playbook).read_text()
    if "import_playbook: vmferry.migrate.export_fleet" in text:
        text += "".join(file.read_text() for file in PLAYBOOKS.rglob("*.yml"))
    return text


def test_everything_that_is_named_is_made_before(calls: Calls) -> None:
    templates = {template["name"] for template in calls["job_template"]}
    (workflow,) = calls["workflow_job_template"]
    made = {"project": "project", "execution_environment": "execution_environment"}
    for template in calls["job_template"]:
        for option, module in made.items():
            assert template[option] in {one["name"] for one in calls[module]}
        assert template["instance_groups"] == [group["name"] for group in calls["instance_group"]]
        assert (ROOT / template["playbook"]).is_file()
    seen: set[str] = set()
    for node in calls["workflow_job_template_node"]:
        assert node["workflow_job_template"] == workflow["name"]
        assert node["unified_job_template"] in templates
        assert {*node.get("success_nodes", []), *node.get("failure_nodes", [])} <= seen
        seen.add(node["identifier"])
    for schedule in calls["schedule"]:
        assert schedule["unified_job_template"] in {*templates, workflow["name"]}


def test_templates_of_credentials_arrive_as_they_were_written(calls: Calls) -> None:
    assert calls["credential_type"] == [
        {"kind": "cloud", **kind} for kind in example("credential_types.yml")["vmferry_credential_types"]
    ]


def test_jobs_run_on_the_instances_there_are_without_a_cluster(tmp_path: Path) -> None:
    calls = load(tmp_path)
    assert calls["instance_group"] == []
    assert not any("instance_groups" in template for template in calls["job_template"])
    assert not any(schedule["enabled"] for schedule in calls["schedule"])


def test_exports_run_in_slices_and_side_by_side(calls: Calls) -> None:
    (export,) = [template for template in calls["job_template"] if template["name"] == "Export VMs"]
    assert export["job_slice_count"] > 1
    assert export["forks"] > 5, "a host that is watched takes a fork"
    assert export["allow_simultaneous"]


def test_nobody_may_pass_variables_that_no_survey_asks_for(calls: Calls) -> None:
    for template in calls["job_template"]:
        assert "ask_variables_on_launch" not in template
        assert template["survey_enabled"]


def test_only_plays_on_other_hosts_become_root(calls: Calls) -> None:
    """In an execution environment nobody can."""
    for template in calls["job_template"]:
        on_localhost = "hosts: localhost" in (ROOT / template["playbook"]).read_text()
        assert template["become_enabled"] is not on_localhost


def test_report_follows_the_slices_whether_they_failed_or_not(calls: Calls) -> None:
    nodes = {node["identifier"]: node for node in calls["workflow_job_template_node"]}
    export = nodes["export"]
    after = {"no": export["success_nodes"], "yes": export["failure_nodes"]}
    for failed, (follower,) in after.items():
        assert nodes[follower]["unified_job_template"] == "Report exports"
        assert nodes[follower]["extra_data"]["report_exports_failed"] == failed


def test_every_answer_of_a_survey_is_a_variable_of_the_play(calls: Calls) -> None:
    for template in calls["job_template"]:
        text = variables_of(template["playbook"])
        for variable in questions(template["survey_spec"]):
            assert re.search(rf"\b{variable}\b", text), f"{template['name']}: {variable}"


@pytest.mark.parametrize("name", surveys())
def test_awx_accepts_the_survey(name: str) -> None:
    survey = surveys()[name]
    assert isinstance(survey["description"], str)
    assert len(questions(survey)) == len(survey["spec"]) > 0
    kinds = {"text": str, "integer": int, "multiplechoice": str}
    for question in survey["spec"]:
        assert isinstance(question["question_name"], str)
        assert isinstance(question["question_description"], str)
        assert isinstance(question["required"], bool)
        default = question.get("default", "")
        assert default == "" or isinstance(default, kinds[question["type"]])
        assert all(isinstance(question.get(limit, 0), int) for limit in ("min", "max"))
        if question["type"] == "multiplechoice":
            assert question["default"] in question["choices"]
            assert all(isinstance(choice, str) for choice in question["choices"])


def test_schedules_and_nodes_answer_what_must_be_answered(calls: Calls) -> None:
    asked = {one["name"]: one["survey_spec"] for one in (*calls["job_template"], *calls["workflow_job_template"])}
    for schedule in calls["schedule"]:
        known = questions(asked[schedule["unified_job_template"]])
        assert set(schedule["extra_data"]) <= set(known)
        assert {name for name, question in known.items() if question["required"]} <= set(schedule["extra_data"])
    of_workflow = questions(calls["workflow_job_template"][0]["survey_spec"])
    for node in calls["workflow_job_template_node"]:
        known, answers = questions(asked[node["unified_job_template"]]), node.get("extra_data", {})
        assert set(answers) <= set(known)
        assert {name for name, question in known.items() if question["required"]} <= {*answers, *of_workflow}


def test_schedules_repeat_and_export_anew_each_time(calls: Calls) -> None:
    for schedule in calls["schedule"]:
        assert re.fullmatch(r"DTSTART;TZID=[\w/]+:\d{8}T\d{6} RRULE:FREQ=[A-Z]+;INTERVAL=\d+\S*", schedule["rrule"])
        assert "export_fleet_name" not in schedule["extra_data"], "it would be there from the second run on"


def test_records_of_transfers_in_pods_outlive_the_pod(calls: Calls) -> None:
    (group,) = calls["instance_group"]
    pod = yaml.safe_load(group["pod_spec_override"])["spec"]
    (worker,) = pod["containers"]
    assert worker["args"] == ["ansible-runner", "worker", "--private-data-dir=/runner"]
    (state,) = [variable["value"] for variable in worker["env"] if variable["name"] == "VMFERRY_STATE_DIR"]
    (mount,) = worker["volumeMounts"]
    assert mount["mountPath"] == state
    (volume,) = pod["volumes"]
    assert volume["name"] == mount["name"]
    assert volume["persistentVolumeClaim"]["claimName"]
    assert pod["securityContext"]["fsGroup"], "the user of the execution environment is not root"
