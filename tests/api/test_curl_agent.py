"""An agent that is a shell script with curl: as safe as one that uses the package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from agentstate.sdk.store import Claim
from tests.api.conftest import Caller

SCRIPT = Path(__file__).with_name("agent.sh")
ROOT = SCRIPT.parents[2]
TIMEOUT_S = 60
pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the shell agent needs curl and jq, which are not here"
)


def start(api: Caller, ledger: Path, run: str) -> subprocess.Popen[str]:
    environment = {"PATH": "/usr/bin:/bin", "URL": api.url, "KEY": api.token, "RUN": run, "LEDGER": str(ledger)}
    return subprocess.Popen(
        ["bash", str(SCRIPT)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def ended(script: subprocess.Popen[str]) -> str:
    said, _ = script.communicate(timeout=TIMEOUT_S)
    return said


def test_it_begins_waits_for_a_person_executes_once_and_finishes(api: Caller, tmp_path: Path) -> None:
    run = api.store().admit("cleaner", {"path": "/old"}).run_id
    script = start(api, tmp_path / "ledger", run)
    question = wait_for_question(api, script)
    assert question["args"] == {"path": "/old"} and not (tmp_path / "ledger").exists()
    decided = api(
        "POST",
        f"/approvals/{question['approval_id']}/decision",
        {"decision": "edit", "args": {"path": "/older"}, "proposal_hash": question["proposal_hash"]},
        headers={"If-Match": f'"{question["version"]}"'},
    )
    assert decided.status_code == 200
    said = ended(script)
    assert script.returncode == 0, said
    [line] = (tmp_path / "ledger").read_text().splitlines()
    key, path = line.split()
    assert path == "/older" and len(key) == 64
    done = api.store().get(run)
    assert (done.status, done.output) == ("succeeded", "deleted /older")


def wait_for_question(api: Caller, script: subprocess.Popen[str]) -> dict[str, object]:
    while script.poll() is None:
        open_ones = api("GET", "/approvals").json()["approvals"]
        if open_ones:
            found: dict[str, object] = open_ones[0]
            return found
    raise AssertionError(ended(script))


def test_started_again_in_the_middle_of_the_call_it_does_not_call_again(
    claimed: tuple[Caller, Claim], tmp_path: Path
) -> None:
    """The first script was killed between its call and its report: nobody knows, so a person is asked."""
    api, _ = claimed
    run = api.store().admit("cleaner", {"path": "/old"}).run_id
    script = start(api, tmp_path / "ledger", run)
    question = wait_for_question(api, script)
    (tmp_path / "ledger.hang").touch()  # the script stops for ever right after its call
    api(
        "POST",
        f"/approvals/{question['approval_id']}/decision",
        {"decision": "approve", "proposal_hash": question["proposal_hash"]},
        headers={"If-Match": '"1"'},
    )
    while not (tmp_path / "ledger").exists() or not (tmp_path / "ledger").read_text():  # made, then written
        assert script.poll() is None, ended(script)
    script.kill()
    script.communicate()
    (tmp_path / "ledger.hang").unlink()
    again = start(api, tmp_path / "ledger", run)
    assert "in doubt" in ended(again) and again.returncode == 3
    assert len((tmp_path / "ledger").read_text().splitlines()) == 1
    assert api.store().get(run).status == "in_doubt"


def test_the_documentation_shows_this_very_script() -> None:
    assert SCRIPT.read_text() in (ROOT / "docs" / "API.md").read_text()
