"""Examples 03 to 10 on a whole installation, with their own programs; 01 and 02 are what ``triplane demo`` runs."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.manifests import EXAMPLES, Owned, example, example_file
from tests.e2e.stack import Stack, condition, has

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installed() -> Iterator[Stack]:
    """An installation whose runner approves the programs of the examples."""
    home = Path(tempfile.mkdtemp(prefix="tri-ex-"))
    stack = Stack.start(home, programs=EXAMPLES / "programs")
    try:
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def people_in(installed: Stack, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own."""
    name = request.node.name.replace("_", "-")[:50].strip("-")
    installed.people(name)
    return name


def apply(stack: Stack, owned: list[Owned]) -> None:
    for user in ("alice", "bob"):
        stack.apply(*(obj for owner, obj in owned if owner == user), as_=user)


def output(stack: Stack, namespace: str, task: str, name: str) -> str:
    return stack.triplane("artifact", "get", "-n", namespace, "--task", task, name)


def steps_of(node: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {step["name"]: step for step in node["status"]["steps"]}


def test_03_fans_out_skips_by_condition_and_merges_in_four_ways(installed: Stack, people_in: str) -> None:
    name = "03-fan-out-and-merge"
    digest = installed.triplane("blob", "put", "-n", people_in, str(EXAMPLES / name / "pages")).split()[0]
    apply(installed, list(example(name, people_in, digest=digest)))
    strict, tolerant = (
        installed.wait("Node", people_in, node, has("Succeeded", "True"), seconds=120)
        for node in ("strict", "tolerant")
    )
    assert {step["state"] for step in strict["status"]["steps"]} == {"completed"}
    states = {name: step["state"] for name, step in steps_of(tolerant).items()}
    assert states.pop("escalate") == "skipped"
    assert set(states.values()) == {"completed"}
    assert strict["status"]["progress"] == tolerant["status"]["progress"] == "6/6"
    skipped = installed.get("Task", people_in, "tolerant-escalate")
    assert skipped is not None
    assert condition(skipped, "Succeeded")["reason"] == "ConditionFalse"

    summary = json.loads(output(installed, people_in, "strict-report", "summary"))
    assert list(summary["facts"]) == ["inventory", "links", "outline", "words"]
    assert summary["counts"] == [4, 2, summary["facts"]["words"]["words"]]
    alarmed, calm = (output(installed, people_in, f"{node}-report", "report") for node in ("strict", "tolerant"))
    assert alarmed.startswith("# 2 broken links must be mended\n")
    assert calm.startswith("# 4 pages, ")
    assert "## Mend first" in alarmed
    assert "## Mend first" not in calm
    assert "## Outline" in calm

    report = installed.get("Task", people_in, "strict-report")
    assert report is not None
    digest = next(item["digest"] for item in report["status"]["outputs"] if item["name"] == "summary")
    told = installed.triplane("lineage", "-n", people_in, digest, "--up")
    for field in ("/broken", "/pages", "/words"):
        assert field in told
    assert "strict-links" in told


def test_04_retries_backs_off_and_fails_in_two_ways(installed: Stack, people_in: str) -> None:
    apply(installed, list(example("04-retries-and-failure", people_in)))
    backing_off = installed.wait(
        "Task", people_in, "patient-fetch", lambda task: (task.get("status") or {}).get("retries", 0) >= 1
    )
    assert condition(backing_off, "Succeeded")["status"] == "Unknown"

    patient = installed.wait("Node", people_in, "patient", has("Succeeded", "False"), seconds=120)
    steps = steps_of(patient)
    assert {name: step["state"] for name, step in steps.items()} == {
        "fetch": "completed",
        "again": "completed",
        "both": "completed",
        "ask": "timed_out",
        "answer": "invalidated",
    }
    assert steps["fetch"]["retries"] == 2
    assert "ask" in condition(patient, "Succeeded")["message"]
    ask = installed.get("Task", people_in, "patient-ask")
    assert ask is not None
    assert condition(ask, "Succeeded")["reason"] == "IdleTimeout"
    assert output(installed, people_in, "patient-both", "sum").strip() == "41"  # 23 + 18

    hasty = installed.wait("Node", people_in, "hasty", has("Succeeded", "False"), seconds=60)
    assert {name: step["state"] for name, step in steps_of(hasty).items()} == {
        "doomed": "failed",
        "long": "cancelled",
        "later": "cancelled",
    }
    long = installed.get("Task", people_in, "hasty-long")
    assert long is not None
    assert condition(long, "Succeeded")["reason"] == "FailFast"


def test_05_fifty_steps_count_the_primes(installed: Stack, people_in: str) -> None:
    apply(installed, list(example("05-fifty-steps", people_in)))
    node = installed.wait("Node", people_in, "census", has("Succeeded", "True"), seconds=240)
    assert node["status"]["progress"] == "50/50"
    assert len(installed.list("Task", people_in)) == 50
    total = json.loads(output(installed, people_in, "census-total", "census"))
    check = json.loads(output(installed, people_in, "census-check", "census"))
    assert total == check
    assert (total["primes"], total["last"], total["twins"]) == (9592, 99991, 1224)


def test_06_whatever_is_missing_is_waited_for_and_named(installed: Stack, people_in: str) -> None:
    owned = list(example("06-gitops-order", people_in))
    said = {}
    for user, obj in owned:
        installed.apply(obj, as_=user)
        key = f"{obj['kind']} {obj['metadata']['name']}"
        expected = {
            "Node ledger": ("node/ledger", "Graph gitops does not exist"),
            "Task audit": ("task/audit", "Graph gitops does not exist"),
            "Workflow ledger": ("node/ledger", "Graph gitops does not exist"),
            "Graph gitops": ("task/audit", "Agent adder (agentRef) does not exist"),
            "Agent adder": ("task/ledger-open", "Harness adder"),
        }.get(key)
        if expected is not None:
            thing, text = expected
            said[key] = until_why_says(installed, people_in, thing, text)
    installed.wait("Node", people_in, "ledger", has("Succeeded", "True"), seconds=60)
    installed.wait("Task", people_in, "audit", has("Succeeded", "True"), seconds=60)
    assert output(installed, people_in, "audit", "sum").strip() == "200"


def test_07_policies_deny_warn_and_audit(installed: Stack, people_in: str) -> None:
    owned = list(example("07-policy", people_in))
    installed.apply(*(obj for owner, obj in owned if owner == "admin"), as_="admin")
    apply(installed, owned)
    sums = installed.wait(
        "Node",
        people_in,
        "sums",
        lambda node: (
            {name: step["state"] for name, step in steps_of(node).items()}
            == {"modest": "completed", "curt": "completed", "greedy": "blocked"}
            if node.get("status", {}).get("steps")
            else False
        ),
        seconds=120,
    )
    assert condition(sums, "Succeeded")["status"] == "Unknown"
    greedy = installed.get("Task", people_in, "sums-greedy")
    assert greedy is not None
    stalled = condition(greedy, "Stalled")
    assert stalled["reason"] == "PolicyDenied"
    assert "few-retries" in stalled["message"]
    assert "the platform team" in stalled["message"]

    refused = example_file("07-policy", "refused.yaml", people_in)
    with pytest.raises(AssertionError, match="wants 9 retries, at most 2 are allowed; ask the platform team"):
        installed.apply(refused, as_="alice")
    assert installed.get("Task", people_in, "insistent") is None
    tried = json.dumps({**refused, "metadata": {"name": "tried", "namespace": people_in}})
    answer = installed.kubectl("apply", "--dry-run=server", "-f", "-", as_="alice", stdin=tried, check=False)
    assert "tried wants 9 retries" in answer

    counts = {
        name: installed.wait(
            "Policy", people_in, name, lambda policy, least=least: policy["status"].get("violationCount", 0) >= least
        )["status"]["violations"]
        for name, least in (("few-retries", 2), ("says-when-done", 1), ("who-adds", 2))
    }
    assert {each["enforcement"] for each in counts["few-retries"]} == {"Deny"}
    assert {each["stage"] for each in counts["few-retries"]} == {"Admission", "Launch"}
    assert [each["name"] for each in counts["says-when-done"]] == ["sums-curt"]
    assert "run 1 of sums-modest by adder" in {each["message"] for each in counts["who-adds"]}

    logged = json.loads(installed.triplane("log", "query", "-n", people_in, "--type", "policy.violated", "-o", "json"))
    assert "tried" not in {item["entry"]["data"]["objectName"] for item in logged}, "a dry run leaves no trace"

    policy = next(obj for owner, obj in owned if obj["metadata"]["name"] == "few-retries")
    installed.apply({**policy, "spec": {**policy["spec"], "params": {"most": 5}}}, as_="admin")
    installed.wait("Node", people_in, "sums", has("Succeeded", "True"), seconds=60)


def test_08_narrowed_authority_stops_the_work_and_what_is_left_goes_on(installed: Stack, people_in: str) -> None:
    apply(installed, list(example("08-narrowing-authority", people_in)))

    def at_work(task: dict[str, Any]) -> bool:
        return bool((task.get("status") or {}).get("state") == "running")

    def narrow(**use: list[str]) -> None:
        patch = json.dumps({"spec": {"authority": {"mayUse": use}}})
        installed.kubectl("-n", people_in, "patch", "graph", "expedition", "--type", "merge", "-p", patch, as_="alice")

    first = installed.wait("Task", people_in, "survey", at_work, seconds=60)["status"]["session"]
    limit = "egress: data.example.net is beyond *.example.org, the limit of mayDelegate of Graph expedition; ask "
    with pytest.raises(AssertionError, match=re.escape(limit)):
        installed.apply(example_file("08-narrowing-authority", "refused.yaml", people_in), as_="alice")

    narrow(egress=["data.example.org"])
    installed.wait(
        "Task", people_in, "survey", lambda task: at_work(task) and task["status"]["session"] != first, seconds=60
    )
    narrow(models=[])
    stalled = installed.wait("Task", people_in, "survey", has("Stalled", "True", "AuthorityExceeded"), seconds=60)
    lacks = "models small-1 is beyond nothing (mayUse of Graph expedition); system:serviceaccount:people:alice can "
    assert lacks in condition(stalled, "Stalled")["message"]
    assert lacks in installed.triplane("why", "-n", people_in, "task/survey")
    narrow(models=["small-*"])
    installed.wait("Task", people_in, "survey", has("Succeeded", "True"), seconds=120)
    assert output(installed, people_in, "survey", "sum").strip() == "14"

    runs = json.loads(installed.triplane("as-run", "-n", people_in, "survey", "-o", "json"))
    worked = [run for run in runs if run["role"] == "Producer"]
    less, all_of_it = ["data.example.org"], ["*.example.org"]
    assert [run["authority"]["egress"] for run in worked] == [less, less, all_of_it]
    assert [(run["outcome"], run["reason"]) for run in worked] == [
        ("succeeded", "Completed"), ("revoked", "AuthorityNarrowed"), ("revoked", "AuthorityNarrowed")
    ]  # fmt: skip
    assert {run["model"] for run in worked} == {"small-1"}
    assert all(run["problems"] == [] for run in runs)
    people = installed.triplane("as-run", "-n", people_in, "--since", "2020-01-01", "--agent", "surveyor")
    assert "small-1 (declared)" in people


def test_10_a_spent_budget_stops_the_work_until_it_is_raised(installed: Stack, people_in: str) -> None:
    apply(installed, list(example("10-budgets", people_in)))
    spent = {"thinking": "budget.tokens", "dawdling": "budget.wallClockSeconds"}
    for name, axis in spent.items():
        stalled = installed.wait("Task", people_in, name, has("Stalled", "True", "BudgetExceeded"), seconds=120)
        assert axis in condition(stalled, "Stalled")["message"]
        assert condition(stalled, "Succeeded")["status"] == "Unknown", "stopped, not failed"
    assert "can raise spec.authority.mayUse.budget.tokens" in until_why_says(
        installed, people_in, "task/thinking", "BudgetExceeded"
    )
    runs = installed.triplane("log", "query", "-n", people_in, "--type", "run.finished", "-o", "json")
    ended = [item["entry"]["data"] for item in json.loads(runs)]
    assert {entry["reason"] for entry in ended} == {"BudgetExceeded"}
    assert max(entry["inputTokens"] for entry in ended) == 1300, "killed at the first report beyond 1200"

    def raised_to(tokens: int) -> str:
        patch = {"spec": {"authority": {"mayUse": {"budget": {"tokens": tokens}}}}}
        arguments = ("-n", people_in, "patch", "task", "thinking", "--type", "merge", "-p", json.dumps(patch))
        return installed.kubectl(*arguments, as_="alice")

    with pytest.raises(AssertionError, match=r"budget\.tokens"):
        raised_to(9000)  # the Graph has 6000
    raised_to(5000)
    installed.wait("Task", people_in, "thinking", has("Succeeded", "True"), seconds=60)
    assert output(installed, people_in, "thinking", "sum").strip() == "210"
    assert condition(installed.get("Task", people_in, "dawdling") or {}, "Stalled")["status"] == "True"


def until_why_says(stack: Stack, namespace: str, thing: str, text: str) -> str:
    """What ``triplane why`` prints once it says ``text``."""
    kind, name = thing.split("/")

    def explained(_: dict[str, Any]) -> bool:
        nonlocal told
        told = stack.triplane("why", "-n", namespace, thing)
        return text in told

    told = ""
    stack.wait(kind.capitalize(), namespace, name, explained, seconds=30)
    return told


def test_11_calls_are_made_refused_and_asked_about(installed: Stack, people_in: str) -> None:
    owned = list(example("11-tools", people_in))
    installed.apply(*(obj for owner, obj in owned if owner == "admin"), as_="admin")
    installed.apply(*(obj for owner, obj in owned if owner == "alice"), as_="alice")
    asked = installed.wait(
        "Task", people_in, "rent", lambda task: (task.get("status") or {}).get("approval") is not None, seconds=60
    )
    assert asked["status"]["approval"]["gate"] == "Tool"
    bob, alice = (str(installed.settings.secrets / f"kubeconfig-{who}") for who in ("bob", "alice"))
    installed.triplane("review", "approve", "rent", "-y", "-n", people_in, "--kubeconfig", bob)
    installed.wait("Task", people_in, "rent", has("Reviewed", "Unknown", "WaitingForPerson"))
    report = json.loads(output(installed, people_in, "rent", "report"))
    assert (report["before"], report["after"]) == (900, 1500)
    assert "ToolDenied" in report["refused"]
    installed.triplane("review", "approve", "rent", "-y", "-n", people_in, "--kubeconfig", alice)
    installed.wait("Task", people_in, "rent", has("Succeeded", "True"))

    calls = json.loads(installed.triplane("tool", "calls", "task/rent", "-n", people_in, "--content", "-o", "json"))
    assert [(call["tool"], call["status"], call["approval"]) for call in calls] == [
        ("clock/now", "succeeded", "not_required"),
        ("ledger/balance", "succeeded", "not_required"),
        ("ledger/close_account", "refused", "not_asked"),
        ("ledger/transfer", "succeeded", "approved"),
        ("ledger/balance", "succeeded", "not_required"),
    ]
    assert calls[3]["arguments"] == {"amount": 600, "source": "cash", "target": "rent"}
    assert calls[3]["approver"]
    assert "closed" not in json.dumps(calls[2]["result"])
    assert "ledger/transfer" in installed.triplane("tool", "calls", "task/rent", "-n", people_in)
    tool = installed.get("Tool", people_in, "ledger")
    assert tool is not None
    assert condition(tool, "Ready")["status"] == "True"
