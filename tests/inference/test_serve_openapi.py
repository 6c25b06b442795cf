"""What the server does is what its OpenAPI document says: requests that schemathesis makes of it, good and bad ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from server_process import ServerProcess

EXPECTED = """
[checks]
positive_data_acceptance.expected-statuses = ["2xx", 404, 413]
negative_data_rejection.expected-statuses = [400, 403, 404, 413, 422]

[[operations]]
include-path = "/v1/chat/completions"
checks.positive_data_acceptance.expected-statuses = ["2xx", 404, 413, 422]
"""
"""How a good and a bad request may be answered: both may name another model, or be larger than the server takes; a
conversation may hold no message of the user, which the document says in words alone"""


def ask_by_the_document(server: ServerProcess, folder: Path, examples: int) -> int:
    """Makes requests of all routes, so many of each in the fuzzing phase, and holds the answers against the document;
    returns how many there were."""
    before = server.metric("prip_requests_total")
    (folder / "schemathesis.toml").write_text(EXPECTED, encoding="utf-8")
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", "schemathesis.toml", "run"]
    command += [f"http://127.0.0.1:{server.port}/openapi.json", "--checks", "all", "--no-color", "--workers", "1"]
    # One worker: in several threads, Python 3.11 may fail to parse the lambdas that hypothesis reads.
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", "1"]
    command += ["--suppress-health-check", "all", "--continue-on-failure", "--generation-database", "none"]
    command += ["--request-timeout", "60", "--max-response-time", "60"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
    faults = re.findall(r'^prip_requests_total\{.*status="5.*', server.ask("/metrics")[1], re.MULTILINE)
    assert faults == []
    assert server.ask("/v1/refine", {"prompt": "a cat"})[0] == 200
    return int(server.metric("prip_requests_total") - before)


def test_some_hundred_requests_keep_to_the_document(shared_server: ServerProcess, tmp_path: Path) -> None:
    assert ask_by_the_document(shared_server, tmp_path, examples=20) > 200


@pytest.mark.slow
def test_many_requests_keep_to_the_document(shared_server: ServerProcess, tmp_path: Path) -> None:
    examples = int(os.environ.get("PRIP_FUZZ_EXAMPLES", "300"))
    assert ask_by_the_document(shared_server, tmp_path, examples) > 2.9 * examples
