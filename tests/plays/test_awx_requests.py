# Copyright (c) 2026 the vmferry.migrate authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The requests of docs/awx.md, sent as they stand there to a controller that only listens."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from .awx import ROOT, command_lines, example

TOKEN, JOB, WORKFLOW = "token-of-an-operator", "42", "41"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "docs/awx.md").read_text(), re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    authorization: str
    body: str
    commands: frozenset[str]  # of all processes, while the sender waits for the answer


@contextmanager
def controller() -> Iterator[tuple[str, list[Request]]]:
    received: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            authorization = self.headers.get("Authorization", "")
            received.append(Request(self.command, self.path, authorization, body, frozenset(command_lines())))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        do_POST = do_GET

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", received
        server.shutdown()


def send(block: str) -> Request:
    with controller() as (url, received):
        environment = {**os.environ, "AWX_URL": url, "AWX_TOKEN": TOKEN, "JOB": JOB, "WORKFLOW": WORKFLOW}
        done = subprocess.run(["sh", "-c", block], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}"
    (only,) = received
    return only


def test_there_is_a_request_to_launch_to_watch_and_to_cancel() -> None:
    paths = [urlsplit(send(block).path).path.rstrip("/").rpartition("/")[2] for block in BLOCKS]
    assert paths == ["launch", "workflow_nodes", "job_events", "cancel"]


@pytest.mark.parametrize("block", BLOCKS)
def test_token_reaches_the_controller_and_no_command_line(block: str) -> None:
    request = send(block)
    assert request.authorization == f"Bearer {TOKEN}"
    assert any("curl --config -" in line for line in request.commands)
    assert not [line for line in request.commands if TOKEN in line]


def test_launch_names_the_workflow_and_answers_its_survey() -> None:
    request = send(BLOCKS[0])
    workflow = example("workflow.yml")["vmferry_workflow"]
    name, _plus, organization = unquote(request.path.split("/")[4]).partition("++")
    assert (request.method, name, organization) == ("POST", workflow["name"], "Default")
    survey = {question["variable"]: question for question in example("survey.yml")["vmferry_survey_export"]["spec"]}
    answers = set(json.loads(request.body)["extra_vars"])
    assert {variable for variable, question in survey.items() if question["required"]} <= answers <= set(survey)


def test_watching_asks_for_the_events_that_are_progress_lines_and_cancelling_is_a_post() -> None:
    nodes, watch, cancel = (send(block) for block in BLOCKS[1:])
    assert (nodes.method, nodes.path) == ("GET", f"/api/v2/workflow_jobs/{WORKFLOW}/workflow_nodes/")
    assert (watch.method, urlsplit(watch.path).path) == ("GET", f"/api/v2/jobs/{JOB}/job_events/")
    assert "event=verbose" in urlsplit(watch.path).query
    assert (cancel.method, cancel.path) == ("POST", f"/api/v2/workflow_jobs/{WORKFLOW}/cancel/")
