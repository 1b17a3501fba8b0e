"""Bad input at the API server (docs/reference/bad-input.md): refused at once, with a message that says where."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.e2e.api import Api
from tests.e2e.objects import DIGEST, OTHER_DIGEST, operator_task, valid

from triplane.api.text import REQUESTER
from triplane.api.work import MAX_CONDITION, MAX_DEPENDENCIES, MAX_DEPENDENTS, MAX_DEPTH, MAX_STEPS

pytestmark = [pytest.mark.e2e, pytest.mark.attacks, pytest.mark.usefixtures("webhook")]

KIB = 1024


def causes(answer: httpx.Response) -> dict[str, str]:
    """Field path to message, of a 422."""
    assert answer.status_code == 422, answer.text
    details = answer.json()["details"].get("causes", [])
    return {cause.get("field", ""): cause["message"] for cause in details}


def output(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "report", "path": "report.md", "mediaType": "text/markdown", **fields}]


# -- rows 1 and 2: shape ---------------------------------------------------------------------------------


def test_an_unknown_field_is_a_strict_error_of_kubectl(
    namespace: str, kubectl: Callable[..., str], tmp_path: Path, alice: Api
) -> None:
    task = valid("Task", namespace, objektive="typo")
    manifest = tmp_path / "task.yaml"
    manifest.write_text(yaml.safe_dump(task))
    said = kubectl("apply", "-f", str(manifest), fails=True)
    assert "strict decoding error" in said
    assert 'unknown field "spec.objektive"' in said
    answer = alice.create(task, fieldValidation="Strict")
    assert answer.status_code == 400
    assert 'unknown field "spec.objektive"' in answer.json()["message"]
    assert alice.get(task).status_code == 404


@pytest.mark.parametrize(
    ("kind", "spec", "field", "message"),
    [
        pytest.param(
            "Task", {"objective": 7}, "spec.objective", "must be of type string", id="a number for a text"
        ),
        pytest.param(
            "Task", {"maxRetries": "one"}, "spec.maxRetries", "must be of type integer", id="a text for a number"
        ),
        pytest.param(
            "Task", {"inputs": {"name": "x"}}, "spec.inputs", "must be of type array", id="a map for a list"
        ),
        pytest.param(
            "Agent", {"lifecycle": "Asleep"}, "spec.lifecycle", 'supported values: "Active", "Suspended"',
            id="a word that is not in the enum",
        ),
        pytest.param("Review", {"verdict": "Maybe"}, "spec.verdict", '"Approve", "Reject"', id="a third verdict"),
        pytest.param("Task", {"graphRef": {}}, "spec.graphRef.name", "Required value", id="a missing name"),
        pytest.param("Harness", {"exec": None}, "spec.exec", "", id="null for a required object"),
        pytest.param("Harness", {"exec": {}}, "spec", "name a program, a digest, or both", id="an empty exec"),
        pytest.param(
            "Task", {"agentRef": None}, "spec", "name an agentRef, or requiredCapabilities",
            id="nobody to do the work",
        ),
        pytest.param(
            "Task", {"inputs": [{"name": "x"}]}, "spec", "each input has exactly one of digest, value, from",
            id="an input from nowhere",
        ),
        pytest.param(
            "Task",
            {"review": {"capability": "review", "agentRef": {"name": "carols"}}},
            "spec",
            "at most one of review.agentRef and review.capability",
            id="two ways to review",
        ),
        pytest.param(
            "Task",
            {"review": {"capability": "review", "people": ["carol"]}},
            "spec",
            "review.reviewers must be 2 or more",
            id="an agent and a person for one seat",
        ),
        pytest.param(
            "Task", {"outputs": output() + output()}, "spec.outputs[1]", "Duplicate value",
            id="one output name twice",
        ),
        pytest.param(
            "Task", {"outputs": output() + output(name="other")}, "spec", "two outputs have the same path",
            id="one output path twice",
        ),
        pytest.param("Review", {"verdict": "Reject"}, "spec", "at least one finding", id="a rejection without why"),
        pytest.param(
            "Harness",
            {"exec": {"program": "x", "env": [{"name": "LD_PRELOAD", "value": "/evil.so"}]}},
            "spec",
            "set by the session host",
            id="an environment variable of the host",
        ),
    ],
)  # fmt: skip
def test_a_spec_of_the_wrong_shape_names_the_field(
    kind: str, spec: dict[str, Any], field: str, message: str, namespace: str, alice: Api
) -> None:
    found = causes(alice.create(valid(kind, namespace, **spec)))
    assert field in found, found
    assert message in found[field]


def test_an_object_without_a_spec_is_refused(namespace: str, alice: Api) -> None:
    graph = valid("Graph", namespace)
    del graph["spec"]
    assert causes(alice.create(graph)) == {"spec": "Required value"}


# -- rows 3 and 4: size ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "field", "message"),
    [
        pytest.param(
            "Task",
            {"objective": "x" * 32769},
            "spec.objective",
            "may not be more than 32768",
            id="a long objective",
        ),
        pytest.param("Graph", {"title": "x" * 257}, "spec.title", "may not be more than 256", id="a long title"),
        pytest.param(
            "Task",
            {"inputs": [{"name": f"i{n}", "digest": DIGEST} for n in range(65)]},
            "spec.inputs",
            "must have at most 32 items",
            id="too many inputs",
        ),
        pytest.param(
            "Task",
            {"outputs": output(mediaType="application/json", schema={f"k{n}": 1 for n in range(65)})},
            "spec.outputs[0].schema",
            "must have at most 64",
            id="a sprawling schema",
        ),
        pytest.param(
            "Task",
            {"objective": "😀" * 32768, "definitionOfDone": "x"},
            "spec",
            "objective and definitionOfDone together exceed 128 KiB",
            id="octets rather than characters",
        ),
        pytest.param(
            "Harness",
            {"exec": {"program": "x", "env": [{"name": f"V{n}", "value": "é" * 4096} for n in range(32)]}},
            "spec",
            "args and env values together exceed 128 KiB",
            id="a large environment",
        ),
        pytest.param(
            "Review",
            {"verdict": "Reject", "findings": ["wrong"] * 21},
            "spec.findings",
            "must have at most 20 items",
            id="too many findings",
        ),
    ],
)
def test_over_a_cap_the_message_names_it(
    kind: str, spec: dict[str, Any], field: str, message: str, namespace: str, alice: Api
) -> None:
    found = causes(alice.create(valid(kind, namespace, **spec)))
    assert message in found[field]


def test_at_its_caps_a_spec_is_accepted(namespace: str, alice: Api) -> None:
    task = valid("Task", namespace, objective="x" * 32768, definitionOfDone="é" * 32768)
    assert alice.create(task).status_code == 201


def test_annotations_over_256_kib_are_refused_and_below_never_stick(namespace: str, alice: Api) -> None:
    graph = valid("Graph", namespace)
    graph["metadata"]["annotations"] = {"notes": "x" * (256 * KIB)}
    assert "may not be more than 262144 bytes" in causes(alice.create(graph))["metadata.annotations"]
    graph["metadata"]["annotations"] = {f"example.org/n{n}": "x" * 50 for n in range(3500)}
    assert alice.create(graph).status_code == 201
    assert alice.merge(graph, {"spec": {"title": "still editable"}}).status_code == 200
    assert alice.delete(graph).status_code == 200


# -- rows 5 and 7: edges ---------------------------------------------------------------------------------


def step(name: str, *depends_on: str, **fields: Any) -> dict[str, Any]:
    made = {"name": name, "objective": f"Do {name}", "agentRef": {"name": "worker"}, **fields}
    return {**made, "dependsOn": list(depends_on)} if depends_on else made


def taken_from(task: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": "data", "from": {"task": task, "output": "report", **fields}}]


def denial(answer: httpx.Response) -> str:
    """Everything a refusal by the webhook says."""
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid"), answer.text
    message = str(answer.json()["message"])
    assert 'admission webhook "governance.admission.triplane.dev" denied the request: ' in message
    return message


@pytest.mark.parametrize("kind", ["Workflow", "Node"])
@pytest.mark.parametrize(
    ("steps", "cycle"),
    [
        pytest.param([step("a", "b"), step("b", "a")], "a → b → a", id="of two by dependsOn"),
        pytest.param(
            [step("a", "c"), step("b", "a"), step("c", "b"), step("d", "c")], "a → c → b → a",
            id="of three, and one behind",
        ),
        pytest.param(
            [step("b", inputs=[{"name": "i", "from": {"step": "a", "output": "o"}}]), step("a", "b")], "a → b → a",
            id="closed by an edge",
        ),
        pytest.param([step("a", "a")], "a → a", id="of one"),
    ],
)  # fmt: skip
def test_a_cycle_of_steps_is_denied_and_spelled_out(
    kind: str, steps: list[dict[str, Any]], cycle: str, namespace: str, alice: Api
) -> None:
    assert cycle in denial(alice.create(valid(kind, namespace, steps=steps)))


def test_a_task_that_closes_a_cycle_is_denied_and_the_cycle_spelled_out(namespace: str, alice: Api) -> None:
    alice.create(valid("Task", namespace, "a", dependsOn=["c"])).raise_for_status()
    alice.create(valid("Task", namespace, "b", inputs=taken_from("a"))).raise_for_status()
    assert "c → b → a → c" in denial(alice.create(valid("Task", namespace, "c", dependsOn=["b"])))
    assert alice.create(valid("Task", namespace, "c", dependsOn=["d"])).status_code == 201


def test_a_cycle_through_a_node_and_tasks_beside_it_is_denied(namespace: str, alice: Api) -> None:
    alice.create(valid("Task", namespace, "outside", dependsOn=["sample-second"])).raise_for_status()
    steps = [step("first", inputs=taken_from("outside")), step("second", "first")]
    said = denial(alice.create(valid("Node", namespace, steps=steps)))
    assert "sample-first → outside → sample-second → sample-first" in said


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"dependsOn": ["sample"]}, "sample → sample", id="dependsOn itself"),
        pytest.param({"inputs": taken_from("sample")}, "sample → sample", id="an input from itself"),
        pytest.param(
            {"inputs": [{"name": "data", "sources": [{"task": "a", "output": "o"}, {"task": "a", "output": "o"}]}]},
            "the same edge from a output o stands 2 times", id="an edge twice",
        ),
        pytest.param({"inputs": taken_from("a", step="b")}, "names a `task` alone", id="an edge with two ends"),
    ],
)  # fmt: skip
def test_a_self_edge_or_a_duplicate_edge_is_denied_by_name(
    spec: dict[str, Any], said: str, namespace: str, alice: Api
) -> None:
    assert said in denial(alice.create(valid("Task", namespace, **spec)))


def test_a_dependency_listed_twice_is_denied_by_the_schema(namespace: str, alice: Api) -> None:
    found = causes(alice.create(valid("Task", namespace, dependsOn=["a", "a"])))
    assert "Duplicate value" in found["spec.dependsOn[1]"]


# -- row 6: cycles by racing edits -----------------------------------------------------------------------


def test_of_two_creates_that_race_to_close_a_cycle_never_both_are_refused(namespace: str, alice: Api) -> None:
    """Both may get in: neither is stored while the other is checked. Then the operator shows them as Stalled."""
    admitted = []
    for n in range(10):
        names = (f"a{n}", f"b{n}")
        both = [
            valid("Task", namespace, one, dependsOn=[other]) for one, other in (names, names[::-1])
        ]  # fmt: skip
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(alice.create, both))
        codes = sorted(answer.status_code for answer in answers)
        assert codes in ([201, 201], [201, 422])
        for answer in answers:
            assert answer.status_code == 201 or " → ".join(names[:1]) in denial(answer)
        admitted.append(codes.count(201))
    assert admitted


# -- row 8: fan-out, depth, bombs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        pytest.param(
            [step("hub"), *(step(f"s{n}", "hub") for n in range(MAX_DEPENDENTS + 1))],
            f"{MAX_DEPENDENTS + 1} steps depend on step hub; at most {MAX_DEPENDENTS}", id="fan-out",
        ),
        pytest.param(
            [step("s0"), *(step(f"s{n}", f"s{n - 1}") for n in range(1, MAX_DEPTH + 1))],
            f"{MAX_DEPTH + 1} steps follow one another, from s0 to s{MAX_DEPTH}; at most {MAX_DEPTH}", id="depth",
        ),
        pytest.param(
            [
                *(step(f"s{n}") for n in range(MAX_DEPENDENCIES + 1)),
                step(
                    "sink", "s0",
                    inputs=[{"name": "i", "sources": [
                        {"step": f"s{n}", "output": "o"} for n in range(1, MAX_DEPENDENCIES + 1)
                    ]}],
                ),
            ],
            f"step sink depends on {MAX_DEPENDENCIES + 1} steps; at most {MAX_DEPENDENCIES}", id="fan-in",
        ),
    ],
)  # fmt: skip
def test_a_graph_over_a_limit_is_denied_and_the_limit_named(
    steps: list[dict[str, Any]], said: str, namespace: str, alice: Api
) -> None:
    for kind in ("Workflow", "Node"):
        assert said in denial(alice.create(valid(kind, namespace, steps=steps)))


def test_too_many_steps_are_denied_by_the_schema(namespace: str, alice: Api) -> None:
    steps = [step(f"s{n}") for n in range(MAX_STEPS + 1)]
    found = causes(alice.create(valid("Workflow", namespace, steps=steps)))
    assert f"must have at most {MAX_STEPS} items" in found["spec.steps"]


def test_a_chain_of_tasks_over_the_depth_is_denied(namespace: str, alice: Api) -> None:
    alice.create(valid("Task", namespace, "t0")).raise_for_status()
    for n in range(1, MAX_DEPTH):
        alice.create(valid("Task", namespace, f"t{n}", dependsOn=[f"t{n - 1}"])).raise_for_status()
    said = denial(alice.create(valid("Task", namespace, "last", dependsOn=[f"t{MAX_DEPTH - 1}"])))
    assert f"{MAX_DEPTH + 1} Tasks follow one another up to last; at most {MAX_DEPTH} may (depth)" in said


def test_a_task_with_too_many_dependencies_is_denied(namespace: str, alice: Api) -> None:
    edges = [{"task": f"t{n}", "output": "o"} for n in range(1, MAX_DEPENDENCIES + 1)]
    task = valid("Task", namespace, dependsOn=["t0"], inputs=[{"name": "i", "sources": edges}])
    said = denial(alice.create(task))
    assert f"{MAX_DEPENDENCIES + 1} Tasks" in said
    assert f"at most {MAX_DEPENDENCIES} are allowed (fan-in)" in said


def test_a_workflow_over_256_kib_is_denied_and_the_cap_named(namespace: str, alice: Api) -> None:
    steps = [step(f"s{n}", definitionOfDone="x" * 20_000) for n in range(14)]
    said = denial(alice.create(valid("Workflow", namespace, steps=steps)))
    assert "at most 262144" in said


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(9)
)
"""Nine lists of nine references each: 9^10 words."""


def test_a_yaml_bomb_is_denied_by_kubectl_and_by_the_api_server(
    namespace: str, kubectl: Callable[..., str], tmp_path: Path, alice: Api
) -> None:
    manifest = tmp_path / "bomb.yaml"
    head = yaml.safe_dump({**valid("Graph", namespace), "spec": {}}).replace("spec: {}\n", "")
    manifest.write_text(f"{head}{BOMB}spec: {{title: *j}}\n")
    assert "excessive aliasing" in kubectl("apply", "-f", str(manifest), fails=True)
    answer = alice.request(
        "POST",
        f"/apis/triplane.dev/v1alpha1/namespaces/{namespace}/graphs",
        content=manifest.read_bytes(),
        headers={"Content-Type": "application/yaml"},
    )
    assert answer.status_code == 400, answer.text
    assert "excessive aliasing" in answer.json()["message"]


# -- row 9: expressions that cost too much ---------------------------------------------------------------

NESTED = "steps.all(a, steps.all(b, steps.all(c, steps.all(d, a == b || c == d))))"


@pytest.mark.parametrize(
    ("when", "said"),
    [
        pytest.param(NESTED, "comprehensions", id="loops in loops"),
        pytest.param("(" * 500 + "true" + ")" * 500, "cannot be used", id="five hundred parentheses"),
        pytest.param("1 + 1", "not bool", id="a number"),
        pytest.param("steps[", "cannot be used", id="half an expression"),
        pytest.param("os.environ['HOME'] == ''", "undeclared reference", id="something that is not there"),
        pytest.param("parameters['p'].matches('(a+')", "missing )", id="a regular expression that is none"),
        pytest.param(
            "parameters['p'].matches('((((a{0,99}){0,99}){0,99}){0,99}){0,99}')", "cannot be used",
            id="a regular expression that explodes",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("where", ["a Task", "an edge", "a step", "an override"])
def test_a_condition_that_cannot_be_used_or_costs_too_much_is_denied(
    where: str, when: str, said: str, namespace: str, alice: Api
) -> None:
    flow = {"graphRef": {"name": "g"}, "workflowRef": {"name": "none"}, "overrides": [{"name": "s", "when": when}]}
    node = valid("Node", namespace)
    manifest = {
        "a Task": valid("Task", namespace, when=when),
        "an edge": valid("Task", namespace, inputs=taken_from("other", when=when)),
        "a step": valid("Workflow", namespace, steps=[step("s", when=when)]),
        "an override": {**node, "spec": flow},
    }[where]
    began = time.monotonic()
    assert said in denial(alice.create(manifest))
    assert time.monotonic() - began < 5


def test_a_condition_over_its_length_is_denied_by_the_schema(namespace: str, alice: Api) -> None:
    found = causes(alice.create(valid("Task", namespace, when="true" + " " * MAX_CONDITION)))
    assert f"may not be more than {MAX_CONDITION}" in found["spec.when"]


# -- row 10: characters nobody sees ----------------------------------------------------------------------

UNSEEN = [
    pytest.param("\x00", id="NUL"),
    pytest.param("\x1b[31m", id="an ANSI escape"),
    pytest.param("\x85", id="a C1 control"),
    pytest.param("\u200b", id="a zero-width space"),
    pytest.param("\u200d", id="a zero-width joiner"),
    pytest.param("\u202e", id="a bidirectional override"),
    pytest.param("\u2066", id="a bidirectional isolate"),
    pytest.param("\u2028", id="a line separator"),
    pytest.param("\ufeff", id="a byte order mark"),
    pytest.param("\U000e0041", id="an invisible tag"),
]


@pytest.mark.parametrize("unseen", UNSEEN)
def test_unseen_characters_in_prose_are_refused(unseen: str, namespace: str, alice: Api) -> None:
    text = f"Count the{unseen} files"
    assert "spec.objective" in causes(alice.create(valid("Task", namespace, objective=text)))
    assert "spec.title" in causes(alice.create(valid("Graph", namespace, title=text)))
    harness = valid("Harness", namespace, exec={"program": "x", "args": [text]})
    assert "spec.exec.args[0]" in causes(alice.create(harness))


@pytest.mark.parametrize("unseen", UNSEEN)
def test_unseen_characters_in_what_is_put_into_prose_are_refused(unseen: str, namespace: str, alice: Api) -> None:
    text = f"Count the{unseen} files"
    assert "spec.parameters.p" in causes(alice.create(valid("Node", namespace, parameters={"p": text})))
    default = [{"name": "p", "default": text}]
    assert "spec.parameters[0].default" in causes(alice.create(valid("Workflow", namespace, parameters=default)))
    assert "spec.inputs[0].value" in causes(
        alice.create(valid("Task", namespace, inputs=[{"name": "i", "value": text}]))
    )
    assert "spec.when" in causes(alice.create(valid("Task", namespace, when=f"true ||{unseen} false")))
    edges = [{"task": "t", "output": "o", "to": f"/a{unseen}"}]
    found = causes(
        alice.create(valid("Task", namespace, inputs=[{"name": "i", "merge": "JsonObject", "sources": edges}]))
    )
    assert "spec.inputs[0].sources[0].to" in found


@pytest.mark.parametrize("unseen", UNSEEN)
def test_unseen_characters_in_names_are_refused(unseen: str, namespace: str, alice: Api) -> None:
    name = f"gra{unseen}ph"
    assert "metadata.name" in causes(alice.create(valid("Graph", namespace, name)))
    assert "spec.graphRef.name" in causes(alice.create(valid("Task", namespace, graphRef={"name": name})))
    task = valid("Task", namespace, outputs=output(name=name))
    assert "spec.outputs[0].name" in causes(alice.create(task))


@pytest.mark.parametrize("break_", ["\n", "\r", "\t"], ids=["a newline", "a carriage return", "a tab"])
def test_a_line_is_one_line(break_: str, namespace: str, alice: Api) -> None:
    findings = [f"wrong{break_}INFO all is well"]
    review = valid("Review", namespace, verdict="Reject", findings=findings)
    assert "spec.findings[0]" in causes(alice.create(review))


def test_a_lone_surrogate_never_gets_in(namespace: str, alice: Api) -> None:
    task = valid("Task", namespace, objective="SURROGATE")
    body = json.dumps(task).replace("SURROGATE", "a\\ud800b").encode()
    answer = alice.post("Task", namespace, body)
    assert answer.status_code == 201
    assert answer.json()["spec"]["objective"] == "a\ufffdb"


def test_prose_in_many_scripts_with_emoji_is_accepted(namespace: str, alice: Api) -> None:
    text = "Zähle die Dateien — 数える、считать, احسب, ספור ❤️ 👍🏽\n\t- done"
    assert alice.create(valid("Task", namespace, objective=text)).json()["spec"]["objective"] == text


# -- row 11: twins ---------------------------------------------------------------------------------------

TWINS = [
    pytest.param("jos\u00e9", "jose\u0301", id="composed and decomposed"),
    pytest.param("alice", "\u0430lice", id="a Cyrillic letter"),
    pytest.param("Paypal", "\u03a1aypal", id="a Greek capital"),
    pytest.param("alice", "\uff41lice", id="a full-width letter"),
]


@pytest.mark.parametrize(("one", "other"), TWINS)
def test_names_that_look_the_same_are_denied(one: str, other: str, namespace: str, alice: Api) -> None:
    people = {"people": [one, other]}
    spelled = " and ".join(name.encode("ascii", "backslashreplace").decode() for name in (one, other))
    assert f"spec.review.people: {spelled} look the same" in denial(
        alice.create(valid("Task", namespace, review=people))
    )
    steps = [step("s", review=people)]
    assert f"spec.steps[s].review.people: {spelled}" in denial(alice.create(valid("Workflow", namespace, steps=steps)))
    select = [{"name": "who", "type": "Select", "options": [one, other]}]
    assert f"spec.parameters[who].options: {spelled}" in denial(
        alice.create(valid("Workflow", namespace, parameters=select))
    )
    sources = [{"task": f"t{n}", "output": "o", "to": f"/{key}"} for n, key in enumerate((one, other))]
    inputs = [{"name": "i", "merge": "JsonObject", "sources": sources}]
    assert "spec.inputs[i].sources.to" in denial(alice.create(valid("Task", namespace, inputs=inputs)))
    schema = {"type": "object", "properties": {one: {"type": "string"}, other: {"type": "string"}}}
    outputs = output(mediaType="application/json", schema=schema)
    assert "spec.outputs[report].schema" in denial(alice.create(valid("Task", namespace, outputs=outputs)))


def test_a_twin_put_in_later_is_denied(namespace: str, alice: Api) -> None:
    task = valid("Task", namespace, review={"people": ["alice", "bob"]})
    alice.create(task).raise_for_status()
    denial(alice.merge(task, {"spec": {"review": {"people": ["alice", "\u0430lice"]}}}))
    assert alice.merge(task, {"spec": {"review": {"people": ["alice", "jos\u00e9"]}}}).status_code == 200


@pytest.mark.parametrize("twin", ["caf\u00e9", "cafe\u0301", "\u0441afe"])
def test_names_of_objects_steps_inputs_outputs_and_parameters_have_no_twins(
    twin: str, namespace: str, alice: Api
) -> None:
    """Their patterns are ASCII, so there is nothing to collide with."""
    for manifest, field in (
        (valid("Graph", namespace, twin), "metadata.name"),
        (valid("Workflow", namespace, steps=[step(twin)]), "spec.steps[0].name"),
        (valid("Task", namespace, inputs=[{"name": twin, "value": "x"}]), "spec.inputs[0].name"),
        (valid("Task", namespace, outputs=output(name=twin)), "spec.outputs[0].name"),
        (valid("Workflow", namespace, parameters=[{"name": twin}]), "spec.parameters[0].name"),
        (valid("Node", namespace, parameters={twin: "x"}), "spec"),
        (valid("Agent", namespace, capabilities=[twin]), "spec.capabilities[0]"),
    ):
        assert field in causes(alice.create(manifest))


# -- row 12: paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../report.md",
        "a/../../report.md",
        "/etc/passwd",
        "./report.md",
        "a//b",
        "a/",
        ".hidden",
        "a/.hidden",
        "%2e%2e/report.md",
        "..%2freport.md",
        "a\\..\\b",
        "C:\\report.md",
        "~/report.md",
        "report.md\n",
        "report\u2215md",
        "",
    ],
)
def test_a_path_that_leaves_its_folder_is_refused(path: str, namespace: str, alice: Api) -> None:
    assert "spec.outputs[0].path" in causes(alice.create(valid("Task", namespace, outputs=output(path=path))))
    harness = valid("Harness", namespace, exec={"program": path})
    assert "spec.exec.program" in causes(alice.create(harness))
    harness = valid("Harness", namespace, exec={"program": "ok", "entrypoint": path})
    assert "spec.exec.entrypoint" in causes(alice.create(harness))


# -- row 15: numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("-1", "should be greater than or equal to 0", id="negative"),
        pytest.param("11", "should be less than or equal to 10", id="above the cap"),
        pytest.param("9223372036854775808", "should be less than or equal to 10", id="beyond 64 bits"),
        pytest.param("0.5", "must be of type int32", id="a fraction"),
    ],
)
def test_a_number_out_of_range_is_refused(value: str, message: str, namespace: str, alice: Api) -> None:
    task = json.dumps(valid("Task", namespace, maxRetries=424242)).replace("424242", value)
    answer = alice.post("Task", namespace, task.encode())
    assert message in causes(answer)["spec.maxRetries"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_what_is_no_json_number_is_refused(value: str, namespace: str, alice: Api) -> None:
    task = json.dumps(valid("Task", namespace, maxRetries=424242)).replace("424242", value)
    assert alice.post("Task", namespace, task.encode()).status_code == 400


def test_not_a_number_in_yaml_is_refused(
    namespace: str, kubectl: Callable[..., str], tmp_path: Path, alice: Api
) -> None:
    task = valid("Task", namespace, maxRetries=float("nan"))
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    assert "error" in kubectl("apply", "-f", str(tmp_path / "task.yaml"), fails=True).lower()
    assert alice.get(task).status_code == 404


# -- row 24: adoption by label ---------------------------------------------------------------------------


def test_a_label_does_not_move_what_the_operator_made(namespace: str, alice: Api, operator: Api) -> None:
    task = operator_task(namespace)
    operator.create(task).raise_for_status()
    answer = alice.merge(task, {"metadata": {"labels": {"triplane.dev/node": "mine"}}})
    assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
    assert alice.get(task).json()["metadata"]["labels"]["triplane.dev/node"] == "node"


def test_a_hand_written_task_with_our_labels_is_still_the_users(namespace: str, alice: Api) -> None:
    task = valid("Task", namespace)
    task["metadata"]["labels"] = {"triplane.dev/node": "node"}
    stored = alice.create(task).raise_for_status().json()
    assert "nodeRef" not in stored["spec"]
    assert stored["metadata"]["annotations"][REQUESTER] == alice.username()


# -- row 32: immutable fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "patch", "message"),
    [
        pytest.param("Task", {"graphRef": {"name": "other"}}, "graphRef is immutable", id="the Graph of a Task"),
        pytest.param("Node", {"graphRef": {"name": "other"}}, "graphRef is immutable", id="the Graph of a Node"),
        pytest.param(
            "Node",
            {"steps": [{"name": "other", "objective": "x", "agentRef": {"name": "a"}}]},
            "steps are immutable",
            id="the steps of a Node",
        ),
        pytest.param("Task", {"nodeRef": {"name": "n"}}, "nodeRef is immutable", id="a nodeRef put in later"),
        pytest.param("Task", {"onBehalfOf": "bob"}, "onBehalfOf is immutable", id="a principal put in later"),
        pytest.param("Review", {"verdict": "Reject", "findings": ["x"]}, "is immutable", id="a verdict"),
        pytest.param(
            "Review",
            {"subjects": [{"name": "report", "digest": OTHER_DIGEST}]},
            "is immutable",
            id="the digests of a verdict",
        ),
    ],
)
def test_an_immutable_field_cannot_be_edited(
    kind: str, patch: dict[str, Any], message: str, namespace: str, alice: Api, admin: Api
) -> None:
    obj = valid(kind, namespace)
    alice.create(obj).raise_for_status()
    for caller in (alice, admin):
        assert message in causes(caller.merge(obj, {"spec": patch}))["spec"]


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        pytest.param("AgentSession", {"round": 2}, id="a frozen session"),
        pytest.param("AgentSession", {"snapshotDigest": OTHER_DIGEST}, id="a frozen snapshot"),
        pytest.param("Artifact", {"digest": OTHER_DIGEST}, id="the digest of an Artifact"),
    ],
)
def test_what_the_operator_recorded_is_immutable(
    kind: str, patch: dict[str, Any], namespace: str, operator: Api, admin: Api
) -> None:
    obj = valid(kind, namespace)
    operator.create(obj).raise_for_status()
    assert "is immutable" in causes(admin.merge(obj, {"spec": patch}))["spec"]


# -- row 33: long names ----------------------------------------------------------------------------------


def test_the_longest_name_is_accepted_and_a_longer_one_refused(namespace: str, alice: Api) -> None:
    for kind in ("Graph", "Node", "Task", "Agent"):
        assert alice.create(valid(kind, namespace, "n" * 253)).status_code == 201
        found = causes(alice.create(valid(kind, namespace, "n" * 254)))
        assert "must be no more than 253" in found["metadata.name"]


# -- row 37: dry run -------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_result_and_has_no_effect(
    namespace: str, kubectl: Callable[..., str], tmp_path: Path, alice: Api
) -> None:
    task = valid("Task", namespace)
    answer = alice.create(task, dryRun="All")
    assert answer.status_code == 201
    assert answer.json()["metadata"]["annotations"][REQUESTER] == alice.username()
    assert answer.json()["status"]["phase"] == "Pending"
    assert alice.get(task).status_code == 404
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    assert "server dry run" in kubectl("apply", "--dry-run=server", "-f", str(tmp_path / "task.yaml"))
    assert alice.get(task).status_code == 404


def test_a_dry_run_of_a_forged_write_is_refused_like_the_write(namespace: str, admin: Api, alice: Api) -> None:
    graph = valid("Graph", namespace)
    alice.create(graph).raise_for_status()
    answer = admin.merge(graph, {"status": {"phase": "Succeeded"}}, status=True, dryRun="All")
    assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")


# -- row 23: owners ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Task", "Review", "Policy", "Tool", "Guideline"])
def test_an_owner_in_another_namespace_is_denied(
    kind: str, rules_namespace: str, make_namespace: Callable[[], str], alice: Api, admin: Api
) -> None:
    elsewhere = alice.create(valid("Graph", make_namespace())).raise_for_status().json()
    owner = {"apiVersion": elsewhere["apiVersion"], "kind": "Graph", "name": "sample"}
    forged = valid(kind, rules_namespace)
    forged["metadata"]["ownerReferences"] = [{**owner, "uid": elsewhere["metadata"]["uid"]}]
    for caller in (alice, admin):
        answer = caller.create(forged)
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        assert "owner references to Triplane kinds are set by the operator alone" in answer.json()["message"]


# -- row 25: more than there is ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axis", "granted", "wanted"),
    [
        pytest.param("egress", ["api.example.com"], ["api.example.com", "*.example.com"], id="a wider host"),
        pytest.param("secrets", ["db"], ["db", "other"], id="another Secret"),
        pytest.param("paths", ["data/**"], ["data/**:rw"], id="the same path to write"),
        pytest.param("tools", ["files/read"], ["files/*"], id="more of a tool"),
        pytest.param("budget", {"tokens": 100}, {"tokens": 101}, id="one token more"),
        pytest.param("delegationDepth", 2, 3, id="one level more"),
    ],
)
def test_a_child_wider_than_its_parent_is_denied_with_axis_and_limit(
    axis: str, granted: Any, wanted: Any, namespace: str, alice: Api
) -> None:
    graph = valid("Graph", namespace, "graph", authority={"mayDelegate": {axis: granted}})
    alice.create(graph).raise_for_status()
    task = valid("Task", namespace, authority={"mayDelegate": {axis: wanted}})
    answer = alice.create(task)
    assert causes(answer)
    said = answer.json()["message"]
    assert f"axis {'budget.tokens' if axis == 'budget' else axis}: " in said
    assert " is beyond " in said
    assert f"Graph graph; ask {alice.username()}" in said
    assert alice.get(task).status_code == 404
    if axis != "delegationDepth":  # each level has one less
        fits = valid("Task", namespace, "fits", authority={"mayDelegate": {axis: granted}})
        alice.create(fits).raise_for_status()
        assert causes(alice.merge(fits, {"spec": {"authority": {"mayDelegate": {axis: wanted}}}}))


# -- rows 27 and 28: what there is no way to say ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        pytest.param("Harness", "serviceAccountName", "admin", id="an account of ones own choice"),
        pytest.param("Harness", "hostPath", "/etc", id="a folder of the machine"),
        pytest.param("Harness", "privileged", True, id="a privileged container"),
        pytest.param("Agent", "serviceAccountName", "admin", id="an account for an Agent"),
        pytest.param("Task", "podTemplate", {"spec": {"hostNetwork": True}}, id="a pod"),
    ],
)
def test_pods_accounts_and_host_folders_cannot_be_asked_for(
    kind: str, field: str, value: Any, namespace: str, alice: Api
) -> None:
    answer = alice.create(valid(kind, namespace, **{field: value}), fieldValidation="Strict")
    assert answer.status_code == 400
    assert f'unknown field "spec.{field}"' in answer.json()["message"]
    # A client that does not ask for strictness: it is dropped, and nothing comes of it.
    made = alice.create(valid(kind, namespace, **{field: value}), fieldValidation="Ignore")
    assert field not in made.raise_for_status().json()["spec"]


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        pytest.param("Task", {"agentRef": {"name": "a", "namespace": "other"}}, "spec.agentRef.namespace", id="Agent"),
        pytest.param("Task", {"graphRef": {"name": "g", "namespace": "other"}}, "spec.graphRef.namespace", id="Graph"),
        pytest.param(
            "Agent", {"harnessRef": {"name": "h", "namespace": "other"}}, "spec.harnessRef.namespace", id="Harness"
        ),
        pytest.param(
            "Task",
            {"secrets": [{"name": "db", "key": "password", "env": "DB", "namespace": "other"}]},
            "spec.secrets[0].namespace",
            id="Secret",
        ),
    ],
)
def test_nothing_of_another_namespace_can_be_named(
    kind: str, spec: dict[str, Any], field: str, namespace: str, alice: Api
) -> None:
    answer = alice.create(valid(kind, namespace, **spec), fieldValidation="Strict")
    assert answer.status_code == 400
    assert f'unknown field "{field}"' in answer.json()["message"]


@pytest.mark.parametrize("name", ["other/db", "../other/db", "other:db"])
def test_a_namespace_put_into_a_name_is_refused(name: str, namespace: str, alice: Api) -> None:
    secret = {"name": name, "key": "password", "env": "DB"}
    assert "spec.secrets[0].name" in causes(alice.create(valid("Task", namespace, secrets=[secret])))
    assert "spec.agentRef.name" in causes(alice.create(valid("Task", namespace, agentRef={"name": name})))


# -- row 29: ones own work -------------------------------------------------------------------------------------


def test_a_verdict_on_ones_own_work_is_403(namespace: str, alice: Api, bob: Api) -> None:
    for kind in ("Harness", "Agent"):
        alice.create(valid(kind, namespace, "counter" if kind == "Agent" else "harness")).raise_for_status()
    people = [alice.username(), bob.username()]
    task = alice.create(valid("Task", namespace, review={"people": people})).raise_for_status().json()
    subject = {"name": "sample", "uid": task["metadata"]["uid"]}
    for gate in ("Outputs", "Launch"):
        verdict = valid("Review", namespace, f"mine-{gate.lower()}", taskRef=subject, gate=gate)
        answer = alice.create(verdict)
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        assert "controls Agent counter" in answer.json()["message"]
        assert alice.get(verdict).status_code == 404
    assert bob.create(valid("Review", namespace, "bobs", taskRef=subject)).status_code == 201


# -- row 37, of what the webhook and the Policies say -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Task", "Policy", "Guideline", "Tool", "Review"])
def test_a_dry_run_of_every_kind_is_judged_and_nothing_is_there_afterwards(
    kind: str, rules_namespace: str, alice: Api
) -> None:
    obj = valid(kind, rules_namespace)
    assert alice.create(obj, dryRun="All").status_code == 201
    assert alice.get(obj).status_code == 404
    alice.create(obj).raise_for_status()
    before = alice.get(obj).json()
    alice.merge(obj, {"metadata": {"labels": {"tried": "yes"}}}, dryRun="All").raise_for_status()
    assert alice.get(obj).json() == before


def test_a_policy_tried_in_a_dry_run_binds_nobody(rules_namespace: str, alice: Api) -> None:
    policy = valid("Policy", rules_namespace, validations=[{"expression": "false", "message": "never"}])
    alice.create(policy, dryRun="All").raise_for_status()
    time.sleep(0.5)
    assert alice.create(valid("Task", rules_namespace)).status_code == 201
