"""``triplane policy``: Policies tried on manifests, offline, with exit codes a pipeline can go by."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cli.test_commands import triplane

POLICY: dict[str, Any] = {
    "apiVersion": "triplane.dev/v1alpha1",
    "kind": "Policy",
    "metadata": {"name": "short", "namespace": "team"},
    "spec": {
        "contact": "ops@example.org",
        "match": {"kinds": ["Task"]},
        "stages": ["Admission", "Launch"],
        "validations": [{"expression": "size(object.spec.objective) < 10", "message": "say it in nine characters"}],
    },
}
NODE: dict[str, Any] = {
    "apiVersion": "triplane.dev/v1alpha1",
    "kind": "Node",
    "metadata": {"name": "work", "namespace": "team"},
    "spec": {
        "graphRef": {"name": "g"},
        "steps": [
            {"name": "a", "objective": "Brief", "agentRef": {"name": "x"}},
            {"name": "b", "objective": "Rather long", "agentRef": {"name": "x"}, "dependsOn": ["a"]},
        ],
    },
}


def files(folder: Path, *documents: Any) -> list[str]:
    path = folder / "all.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return ["-f", str(path)]


def edited(**spec: Any) -> dict[str, Any]:
    return {**POLICY, "spec": {**POLICY["spec"], **spec}}


def test_the_tasks_of_steps_are_asked_about_at_launch(tmp_path: Path) -> None:
    done = triplane("policy", "test", *files(tmp_path, POLICY, NODE), home=tmp_path)
    assert done.returncode == 1, done
    (line,) = done.stdout.splitlines()
    assert line.startswith("Deny  Task team/work-b at Launch: Policy team/short validations[0]: say it in nine")
    assert "(ask ops@example.org)" in line


def test_as_json_for_programs(tmp_path: Path) -> None:
    done = triplane("policy", "test", *files(tmp_path, POLICY, NODE), "-o", "json", home=tmp_path)
    (found,) = json.loads(done.stdout)
    assert (found["enforcement"], found["object"], found["stage"]) == ("Deny", "Task team/work-b", "Launch")


@pytest.mark.parametrize(
    ("documents", "more", "code", "said"),
    [
        pytest.param([edited(enforcement="Warn"), NODE], [], 0, "1 Warn", id="a warning is no failure"),
        pytest.param([POLICY, NODE], ["--stage", "Admission"], 0, "0 Deny", id="at admission there are no Tasks yet"),
        pytest.param([POLICY], [], 0, "1 Policies, 0 requests", id="nothing to ask about"),
        pytest.param(
            [edited(validations=[{"expression": "nothing == 1"}])], [], 2, "1:1: undeclared reference",
            id="a Policy that does not compile",
        ),
        pytest.param([NODE], [], 2, "no Policy among these files", id="no Policy"),
        pytest.param([edited(colour="red")], [], 2, "Policy short: spec.colour", id="a field that is not there"),
        pytest.param(
            [POLICY, {**NODE, "spec": {**NODE["spec"], "steps": [{**NODE["spec"]["steps"][0], "dependsOn": ["z"]}]}}],
            [], 2, "Node work cannot be run", id="a Node that cannot be planned",
        ),
    ],
)  # fmt: skip
def test_exit_codes(tmp_path: Path, documents: list[Any], more: list[str], code: int, said: str) -> None:
    done = triplane("policy", "test", *files(tmp_path, *documents), *more, home=tmp_path)
    assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done
    assert "Traceback" not in done.stderr


def test_a_policy_sees_what_it_would_see_at_launch(tmp_path: Path) -> None:
    rule = (
        "object.spec.maxReworks == 1 && node.metadata.name == 'work' && parent == node && graph == null && "
        "session.role == 'Producer' && authority.egress.size() == 0 && request.operation == 'LAUNCH'"
    )
    done = triplane(
        "policy", "test", *files(tmp_path, edited(validations=[{"expression": rule}], stages=["Launch"]), NODE),
        home=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done


@pytest.mark.parametrize(("rule", "code"), [("true", 0), ("1 + 1", 2)])
def test_check_compiles_alone(tmp_path: Path, rule: str, code: int) -> None:
    named = files(tmp_path, edited(validations=[{"expression": rule}]))[1]
    assert triplane("policy", "check", named, home=tmp_path).returncode == code
