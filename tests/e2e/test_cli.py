"""The command line against a whole installation: `triplane demo` makes it, the tests ask it, `down` ends it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from triplane.adapters.postgres.connection import ensure_passwords
from triplane.adapters.postgres.embedded import EmbeddedPostgres
from triplane.settings import Settings

HANGING_SECONDS = 240

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@dataclass(frozen=True)
class Installation:
    """A home in which `triplane demo` has run, and what it printed."""

    home: Path
    demo: subprocess.CompletedProcess[str]

    def triplane(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return triplane(self.home, *arguments)

    def ok(self, *arguments: str) -> str:
        done = self.triplane(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


def environment(home: Path, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRIPLANE_")}
    for name in ("CI", "KEEP", "CLUSTER", "KUBECONFIG"):
        kept.pop(name, None)
    return {**kept, "TRIPLANE_HOME": str(home), **more}


def triplane(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; one that hangs is made to say where."""
    process = subprocess.Popen(
        [sys.executable, "-m", "triplane.cli.main", *arguments],
        env=environment(home, PYTHONFAULTHANDLER="1", **more),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=HANGING_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        output, errors = process.communicate()
        pytest.fail(f"triplane {' '.join(arguments)} hangs:\n{output}\n{errors}")
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def processes_of(home: Path) -> list[str]:
    """Command lines of live processes that know the home, ourselves aside."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            command, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        if str(home).encode() in command + variables:
            found.append(command.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    home = Path(tempfile.mkdtemp(prefix="tri-cli-"))
    try:
        done = triplane(home, "demo")
        assert done.returncode == 0, done.stdout + done.stderr
        yield Installation(home, done)
        stopped = triplane(home, "down")
        assert stopped.returncode == 0, stopped.stderr
        assert processes_of(home) == []
    finally:
        triplane(home, "down")
        shutil.rmtree(home, ignore_errors=True)


def test_the_demo_shows_tree_lineage_proof_and_what_to_do_next(installation: Installation) -> None:
    shown = installation.demo.stdout
    assert "Task licence-audit-audit  Succeeded" in shown
    assert re.search(r"Review careless-audit-audit-review-1-\w+  Reject  by=recompute round=1", shown)
    assert re.search(r"├─ made by\n.*AgentSession demo/licence-audit-audit-work-", shown)
    assert re.search(r"chain verified: \d+ entries, root [0-9a-f]{64}[ ,]", shown)
    assert re.search(r"checkpoint signed: \d+ entries, root [0-9a-f]{64}\n", shown)
    assert "triplane down" in shown


def test_the_demo_again_changes_nothing_and_really_runs_a_fresh_graph(installation: Installation) -> None:
    began = time.monotonic()
    again = installation.triplane("demo")
    assert again.returncode == 0, again.stderr
    assert "manifests applied again: no resourceVersion changed" in again.stderr
    (graph,) = re.findall(r"a fresh Graph: (\S+)", again.stderr)
    assert f"Task {graph}-audit  Succeeded" in again.stdout
    assert time.monotonic() - began < 60


def test_status_is_a_tree_also_for_programs(installation: Installation) -> None:
    (graph,) = json.loads(installation.ok("status", "-n", "demo", "licence-audit", "-o", "json"))
    task = graph["children"][0]["children"][0]
    assert (task["kind"], task["state"], task["reviewed"]) == ("Task", "Succeeded", "True")
    sessions = [child for child in task["children"] if child["kind"] == "AgentSession"]
    assert {session["agent"] for session in sessions} == {"auditor", "recompute"}
    assert len(sessions[0]["children"]) == 3


def test_why_says_that_nobody_must_act(installation: Installation) -> None:
    said = installation.ok("why", "-n", "demo", "task/licence-audit-audit").splitlines()
    assert said[0] == "Task demo/licence-audit-audit is done"
    assert said[-1] == "Nobody must act: it is done"


def test_logs_tell_the_rework_in_order(installation: Installation) -> None:
    told = installation.ok("logs", "-n", "demo", "task/careless-audit-audit", "-f")
    steps = [
        told.index(words) for words in ("draft ready", "Reject: 3 findings", "looked again:", "Approve: 0 findings")
    ]
    assert steps == sorted(steps)


def test_logs_of_one_session_as_records(installation: Installation) -> None:
    (graph,) = json.loads(installation.ok("status", "-n", "demo", "careless-audit", "-o", "json"))
    session = graph["children"][0]["children"][0]["children"][0]["name"]
    lines = installation.ok("logs", "-n", "demo", f"session/{session}", "-o", "json").splitlines()
    records = [json.loads(line) for line in lines]
    assert {record["id"].split(".")[0] for record in records} == {"1", "2"}


def test_an_artifact_is_fetched_whole_and_a_rejected_one_with_a_warning(
    installation: Installation, tmp_path: Path
) -> None:
    target = tmp_path / "audit.json"
    installation.ok("artifact", "get", "-n", "demo", "--task", "licence-audit-audit", "audit", "-o", str(target))
    assert json.loads(target.read_text())["version"] == 1
    listed = json.loads(installation.ok("artifact", "list", "-n", "demo", "-o", "json"))
    rejected = next(item for item in listed if item["reviewed"] == "False")
    done = installation.triplane("artifact", "get", "-n", "demo", rejected["name"])
    assert done.returncode == 0
    assert "is not accepted" in done.stderr


def test_lineage_outlives_the_artifact_and_all_it_belongs_to(installation: Installation) -> None:
    listed = json.loads(installation.ok("artifact", "list", "-n", "demo", "-o", "json"))
    found = next(item for item in listed if item["task"] == "licence-audit-audit" and item["output"] == "chart")
    admin = installation.home / "secrets" / "kubeconfig-admin"
    before = json.loads(installation.ok("lineage", "-n", "demo", found["name"], "-o", "json"))
    subprocess.run(
        ["kubectl", "--kubeconfig", str(admin), "-n", "demo", "delete", "graph,node.triplane.dev", "licence-audit"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip

    def gone() -> bool:
        return installation.triplane("why", "-n", "demo", f"artifact/{found['name']}").returncode == 1

    until(gone)
    (after,) = json.loads(installation.ok("lineage", "-n", "demo", found["name"], "-o", "json"))
    assert (after["digest"], after["run"]["run"], after["reviews"][0]["verdict"]) == (found["digest"], 1, "Approve")
    assert [item["name"] for item in after["inputs"]] == [item["name"] for item in before[0]["inputs"]]


def test_the_graph_around_an_artifact_is_drawn_after_its_end(installation: Installation) -> None:
    kept = json.loads(installation.ok("graph", "query", "-n", "demo", "-k", "artifact", "-o", "json"))
    found = next(item for item in kept if item["gone"] and item["spec"]["name"] == "chart")
    drawn = installation.ok("lineage", "-n", "demo", found["uid"], "--up")
    for said in ("reviewed by (Approve)", "produced by (run 1", "part of: Graph demo/licence-audit (deleted)"):
        assert said in drawn
    document = json.loads(installation.ok("lineage", "-n", "demo", found["spec"]["digest"], "--both", "-o", "json"))
    kinds = {node["kind"] for node in document["nodes"]}
    assert {"Blob", "Artifact", "AgentSession", "Task", "Node", "Graph", "Agent", "Review"} <= kinds
    assert installation.ok("lineage", "-n", "demo", found["uid"], "-o", "dot").startswith("digraph lineage {")
    picture = ET.fromstring(installation.ok("lineage", "-n", "demo", "graph/licence-audit", "--down", "-o", "svg"))
    assert picture.tag.endswith("svg")
    assert "chart" in "".join(picture.itertext())
    streamed = installation.ok("lineage", "-n", "demo", found["uid"], "--up", "-o", "jsonl").splitlines()
    assert json.loads(streamed[-1]) == {"end": {"nodes": len(streamed) - len(_edges(streamed)) - 2, "truncated": False}}


def _edges(lines: list[str]) -> list[str]:
    return [line for line in lines if "edge" in json.loads(line)]


def test_what_is_gone_is_there_as_of_an_earlier_entry(installation: Installation) -> None:
    kept = json.loads(installation.ok("graph", "query", "-n", "demo", "-k", "artifact", "-o", "json"))
    found = next(item for item in kept if item["gone"])
    asked = ("graph", "query", "-n", "demo", "-k", "artifact", "-o", "json", "--as-of")
    then = json.loads(installation.ok(*asked, str(found["seq"])))
    assert next(item for item in then if item["uid"] == found["uid"])["gone"] is False
    assert found["uid"] not in {item["uid"] for item in json.loads(installation.ok(*asked, str(found["seq"] - 1)))}
    assert "deleted" not in installation.ok(
        "lineage", "-n", "demo", found["uid"], "--up", "--depth", "1", "--as-of", str(found["seq"])
    )
    assert json.loads(installation.ok(*asked, "2001-01-01")) == []


def test_one_command_tells_which_session_an_agent_last_used_in_a_graph(installation: Installation) -> None:
    kept = json.loads(
        installation.ok("graph", "query", "-n", "demo", "-k", "tas", "-l", "triplane.dev/graph", "-o", "json")
    )
    agent = next(
        item["spec"]["agentRef"]["name"] for item in kept if item["spec"]["role"] == "Producer" and item["gone"]
    )
    asked = ("sessions", "-n", "demo", "--agent", agent, "--graph", "licence-audit", "--last")
    last = json.loads(installation.ok(*asked, "-o", "json"))
    assert (last["agent"]["name"], last["graph"]["name"], last["outcome"]) == (agent, "licence-audit", "succeeded")
    assert last["name"] in installation.ok(*asked)
    assert installation.triplane("sessions", "-n", "demo", "--agent", "nobody", "--last").returncode == 1
    assert agent in installation.ok("sessions", "-n", "demo", "--graph", "licence-audit")


def test_kept_resources_are_found_by_label_and_the_graph_is_what_the_log_says(installation: Installation) -> None:
    selector = "triplane.dev/graph in (licence-audit),app.kubernetes.io/managed-by=triplane"
    assert "deleted" in installation.ok("graph", "query", "-n", "demo", "-k", "task", "-l", selector)
    assert "deleted" not in installation.ok("graph", "query", "-n", "demo", "-k", "task", "-l", selector, "--live")
    assert "the live graph is what the log says" in installation.ok("graph", "rebuild", "--check")
    settings = Settings(home=installation.home)
    superuser = EmbeddedPostgres(settings.pg, ensure_passwords(settings.secrets)["superuser"])
    for _ in range(5):  # an operator that is just catching up may put back what was taken away
        with psycopg.connect(make_conninfo(superuser.dsn, dbname="triplane"), autocommit=True) as database:
            database.execute("DELETE FROM graph.edges WHERE kind = 'reviews'")
            database.execute("UPDATE graph.resources SET requester = 'p-forged' WHERE kind = 'Graph'")
        differing = installation.triplane("graph", "rebuild", "--check")
        assert differing.returncode == 1
        if "reviews" in differing.stdout:
            break
    else:
        pytest.fail(f"the edges that were taken away are not missed: {differing.stdout}")
    assert "requester is 'p-forged'" in differing.stdout
    assert "rebuilt: " in installation.ok("graph", "rebuild")
    assert json.loads(installation.ok("graph", "rebuild", "--check", "-o", "json"))["differences"] == []


def test_a_blob_goes_in_and_out_unchanged(installation: Installation, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\x00\xff" * 1000)
    digest = installation.ok("blob", "put", "-n", "demo", str(tmp_path / "file")).strip()
    installation.ok("blob", "get", "-n", "demo", digest, "-o", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    absent = installation.triplane("blob", "get", "-n", "demo", "sha256:" + "0" * 64, "-o", str(tmp_path / "none"))
    assert absent.returncode == 1
    assert not (tmp_path / "none").exists()


def test_the_log_answers_queries(installation: Installation) -> None:
    found = json.loads(installation.ok("log", "query", "--type", "task.rejected", "-n", "demo", "-o", "json"))
    assert [item["entry"]["subject"]["name"] for item in found] == ["careless-audit-audit"]


def test_verify_names_the_first_bad_entry(installation: Installation) -> None:
    """A database administrator alters one stored entry; verification tells where, and 1 is the exit code."""
    settings = Settings(home=installation.home)
    superuser = EmbeddedPostgres(settings.pg, ensure_passwords(settings.secrets)["superuser"])
    flip = "UPDATE log.entries SET octets = set_byte(octets, 20, get_byte(octets, 20) # 1) WHERE seq = 7"
    with psycopg.connect(make_conninfo(superuser.dsn, dbname="triplane"), autocommit=True) as database:
        database.execute("ALTER TABLE log.entries DISABLE TRIGGER append_only")
        try:
            database.execute(flip)
            done = installation.triplane("log", "verify")
            assert (done.returncode, "BROKEN at entry 7" in done.stdout) == (1, True), done
        finally:
            database.execute(flip)
            database.execute("ALTER TABLE log.entries ENABLE ALWAYS TRIGGER append_only")
    assert installation.triplane("log", "verify").returncode == 0


def test_a_person_without_rights_is_told_so(installation: Installation) -> None:
    alice = str(installation.home / "secrets" / "kubeconfig-alice")
    done = installation.triplane("status", "-n", "kube-system", "--kubeconfig", alice)
    assert done.returncode == 2
    assert "forbidden" in done.stderr


def test_ctrl_c_before_the_summary_leaves_no_process_behind(short_home: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "triplane.cli.main", "demo"],
        env=environment(short_home), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "licence-audit: Running" in line:
            break
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert processes_of(short_home) == []


def test_keep_0_stops_everything_at_the_end(short_home: Path) -> None:
    done = triplane(short_home, "demo", KEEP="0")
    assert done.returncode == 0, done.stderr
    assert "chain verified" in done.stdout
    assert processes_of(short_home) == []


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.5)
