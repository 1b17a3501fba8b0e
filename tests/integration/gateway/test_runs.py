"""The life of a run over HTTP: claims, start, records, finish; each write twice; dead and foreign tokens."""

import asyncio
import time

import orjson
import pytest
from tests.integration.gateway.world import (
    INPUT,
    OPERATOR,
    REFLECTION,
    REPORT,
    RUNNER,
    SCHEMA,
    World,
    order,
    output,
    sha256,
)

from triplane.domain.session import Outcome, RunState
from triplane.errors import Unavailable


async def test_a_run_goes_from_claim_to_result_and_each_step_is_logged_once(world: World) -> None:
    run = await world.started()
    recorded = await run.record(1, {"text": "hello"})
    assert recorded.json()["sequence"] == 1
    answer = await run.finish(report=REPORT)
    assert answer.json() == {"outcome": "succeeded", "reason": "Completed", "message": "done"}
    assert await world.logged() == [
        "run.claimed/s-1/1",
        "run.started/s-1/1",
        "run.recorded/s-1/1/1",
        "run.finished/s-1/1",
    ]
    view = await world.backends.sessions.get("s-1")
    assert view is not None
    result = view.runs[0].result
    assert result is not None
    assert result.outputs[0].size == len(REPORT)
    assert result.outputs[0].path == "report.md"
    assert result.usage.cost_minor_units == 3


async def test_the_claim_carries_the_work_order_of_this_run(world: World) -> None:
    await world.offer(permit=False)
    await world.permit("s-1", 1, findings=["the total is wrong"])
    claim = (await world.poll()).json()
    assert claim["workOrder"]["findings"] == ["the total is wrong"]
    assert claim["workOrder"]["run"] == 1
    assert claim["workOrder"]["session"] == {"uid": "s-1", "name": "session-s-1", "namespace": "team"}
    assert claim["workOrder"]["harness"]["program"] == "agent.py"
    assert claim["leaseSeconds"] == 15.0


async def test_every_call_of_a_run_can_be_repeated_and_gives_the_same_answer(world: World) -> None:
    run = await world.started()
    assert (await run.start()).json() == (await run.start()).json()
    first = await run.record(1, {"text": "hello"})
    again = await run.record(1, {"text": "hello"})
    assert first.status_code == again.status_code == 200
    assert first.json() == again.json()
    finished = await run.finish(report=REPORT)
    repeated = await run.post("finish", run.report(report=sha256(REPORT)))
    assert finished.status_code == repeated.status_code == 200
    assert finished.json() == repeated.json()
    assert len(await world.logged()) == 4


@pytest.mark.parametrize("step", ["start", "records", "finish"])
async def test_a_repeat_appends_what_a_crash_left_out(world: World, step: str) -> None:
    """The store's transition was made, then the gateway died: the log misses the entry until the call is repeated."""
    run = await world.started() if step != "start" else await world.claimed()
    sessions, log = world.backends.sessions, world.backends.log
    original, broken = log.append, True

    async def append(bodies):  # type: ignore[no-untyped-def]
        if broken:
            raise Unavailable("the log is away")
        return await original(bodies)

    log.append = append  # type: ignore[method-assign]
    await run.put(REFLECTION)
    await run.put(REPORT)

    async def call():  # type: ignore[no-untyped-def]
        if step == "start":
            return await run.start()
        if step == "records":
            return await run.record(1, {"text": "x"})
        return await run.post("finish", run.report(report=sha256(REPORT)))

    failed = await call()
    assert failed.status_code == 503
    assert failed.headers["retry-after"] == "1"
    assert failed.json()["error"]["reason"] == "Unavailable"
    view = await sessions.get("s-1")
    assert view is not None
    before = await world.logged()
    broken = False
    assert (await call()).status_code == 200
    assert len(await world.logged()) == len(before) + 1


async def test_a_claim_whose_entry_could_not_be_appended_is_handed_out_later(world: World) -> None:
    await world.offer()
    log = world.backends.log
    original = log.append

    async def append(_):  # type: ignore[no-untyped-def]
        raise Unavailable("the log is away")

    log.append = append  # type: ignore[method-assign]
    assert (await world.poll()).status_code == 503
    log.append = original  # type: ignore[method-assign]
    assert (await world.poll(instance="i-2")).status_code == 204
    answer = await world.poll()
    assert answer.json()["sessionUid"] == "s-1"
    assert await world.logged() == ["run.claimed/s-1/1"]


async def test_a_long_poll_is_answered_as_soon_as_a_permit_is_written(world: World) -> None:
    await world.offer(permit=False)
    polling = asyncio.create_task(world.poll(wait=20))
    await asyncio.sleep(0.3)
    assert not polling.done()
    begun = time.monotonic()
    await world.permit("s-1", 1)
    assert (await polling).json()["run"] == 1
    assert time.monotonic() - begun < 1.0


async def test_without_work_a_poll_ends_with_204_after_its_time(world: World) -> None:
    begun = time.monotonic()
    assert (await world.poll(wait=0.4)).status_code == 204
    assert 0.3 < time.monotonic() - begun < 2.0


async def test_a_runner_that_hung_up_gets_no_claim(world: World) -> None:
    polling = asyncio.create_task(world.poll(wait=20))
    await asyncio.sleep(0.2)
    polling.cancel()
    await asyncio.sleep(0.2)
    await world.offer()
    await asyncio.sleep(0.3)
    view = await world.backends.sessions.get("s-1")
    assert view is not None
    assert view.runs[0].state is RunState.PERMITTED


async def test_a_new_runner_process_loses_the_runs_of_the_old_one(world: World) -> None:
    await world.started()
    hello = {"instance": "i-2"}
    for _ in range(2):
        answer = await world.call("POST", "/v1/runners/local/hello", RUNNER, json=hello)
        assert answer.json() == {"lost": [["s-1", 1]]}
    assert (await world.logged())[-1] == "run.lost/s-1/1"
    assert len(await world.logged()) == 3
    same = await world.call("POST", "/v1/runners/other/hello", RUNNER, json=hello)
    assert same.json() == {"lost": []}


async def test_a_renewal_tells_of_the_revocation(world: World) -> None:
    run = await world.started()
    assert (await run.post("renew", {"counter": 1})).json() == {"revoked": None}
    await world.backends.sessions.revoke("s-1", "TaskDeleted")
    assert (await run.post("renew", {"counter": 2})).json() == {"revoked": "TaskDeleted"}


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("revoke", id="a revoked run"),
        pytest.param("lose", id="a lost run"),
        pytest.param("finish", id="a finished run"),
    ],
)
async def test_a_run_token_dies_with_its_run(world: World, end: str) -> None:
    run = await world.started()
    if end == "revoke":
        await world.backends.sessions.revoke("s-1", "TaskDeleted")
    elif end == "lose":
        await world.backends.sessions.lose("s-1", 1, counter=0, reason="LeaseExpired")
    else:
        await run.finish(report=REPORT)
    before = await world.logged()
    refused = [
        await run.record(1, {"text": "too late"}),
        await run.start(),
        await world.call("PUT", f"/v1/blobs/{sha256(b'late')}", run.token, content=b"late"),
        await world.call("GET", f"/v1/blobs/{sha256(INPUT)}", run.token),
    ]
    if end != "finish":
        refused.append(await run.post("finish", run.report(report=sha256(REPORT))))
    assert [(answer.status_code, answer.json()["error"]["reason"]) for answer in refused] == [(409, "RunEnded")] * len(
        refused
    )
    assert not await world.backends.content.exists(sha256(b"late"))
    assert await world.logged() == before


async def test_a_run_may_not_act_as_another_run(world: World) -> None:
    run, other = await world.started(), await world.started("s-2")
    for path in (f"/v1/sessions/{other.uid}/runs/1/renew", f"/v1/sessions/{run.uid}/runs/2/renew"):
        answer = await world.call("POST", path, run.token, json={"counter": 1})
        assert (answer.status_code, answer.json()["error"]["reason"]) == (403, "Forbidden")


@pytest.mark.parametrize("path", ["/v1/claims", "/v1/runners/local/hello", "/v1/principals", "/v1/log/head"])
async def test_a_run_may_call_nothing_but_its_own_calls(world: World, path: str) -> None:
    run = await world.started()
    method = "GET" if path == "/v1/log/head" else "POST"
    answer = await world.call(method, path, run.token, **({} if method == "GET" else {"json": {}}))
    assert answer.status_code == 403


@pytest.mark.parametrize("forgery", ["payload", "signature", "key", "form"])
async def test_a_forged_run_token_is_refused(world: World, forgery: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from triplane.gateway.tokens import RunTokens

    run = await world.started()
    prefix, payload, signature = run.token.split(".")
    forged = {
        "payload": f"{prefix}.{payload[:-2]}{'AA' if payload[-2:] != 'AA' else 'BB'}.{signature}",
        "signature": f"{prefix}.{payload}.{signature[:-6]}AAAAAA",
        "key": RunTokens(tmp_path / "other").mint("s-1", 1, issued_at=0),
        "form": f"{prefix}.{payload}",
    }[forgery]
    answer = await world.call("POST", "/v1/sessions/s-1/runs/1/renew", forged, json={"counter": 1})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (401, "Unauthorized")


@pytest.mark.parametrize(
    ("token", "status"),
    [
        pytest.param(None, 401, id="no token"),
        pytest.param("nobody", 401, id="an unknown token"),
        pytest.param(OPERATOR, 403, id="the operator"),
    ],
)
async def test_only_runners_claim(world: World, token: str | None, status: int) -> None:
    await world.offer()
    body = {"runner": "local", "instance": "i", "waitSeconds": 0}
    assert (await world.call("POST", "/v1/claims", token, json=body)).status_code == status
    assert await world.logged() == []


async def test_the_same_record_number_with_another_body_is_a_conflict(world: World) -> None:
    """Bad input 18."""
    run = await world.started()
    await run.record(1, {"text": "one"})
    answer = await run.record(1, {"text": "two"})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "Conflict")


async def test_other_facts_at_a_second_start_are_a_conflict(world: World) -> None:
    """Bad input 18."""
    run = await world.started()
    answer = await run.start(sandbox="other")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "IdReused")


async def test_another_result_of_a_finished_run_is_a_conflict(world: World) -> None:
    """Bad input 18."""
    run = await world.started()
    await run.finish(report=REPORT)
    other = run.report(report=sha256(REPORT)) | {"outcome": "failed", "reason": "HarnessFailed"}
    assert (await run.post("finish", other)).status_code == 409


@pytest.mark.parametrize("sequence", [2, 7])
async def test_a_gap_in_the_records_names_the_number_expected(world: World, sequence: int) -> None:
    """Bad input 19."""
    run = await world.started()
    answer = await run.record(sequence, {"text": "early"})
    error = answer.json()["error"]
    assert (answer.status_code, error["reason"], error["expected"]) == (409, "SequenceGap", 1)


async def test_a_repeated_observation_is_kept_once(world: World) -> None:
    """Bad input 17."""
    run = await world.started()
    seen = {"observationId": "o-1", "kind": "k", "text": "t"}
    await run.record(1, seen, seen, type="observation")
    second = await run.record(2, seen, {**seen, "observationId": "o-2"}, type="observation")
    segment = orjson.loads(await world.blob(second.json()["digest"]))
    assert [(item["id"], item["payload"]["observationId"]) for item in segment["records"]] == [("1.2.1", "o-2")]
    assert (await run.record(2, seen, {**seen, "observationId": "o-2"}, type="observation")).json() == second.json()


async def test_observations_are_known_again_after_a_restart(world: World) -> None:
    run = await world.started()
    seen = {"observationId": "o-1", "kind": "k", "text": "t"}
    await run.record(1, seen, type="observation")
    world.gateway.observations.clear()
    second = await run.record(2, seen, type="observation")
    assert orjson.loads(await world.blob(second.json()["digest"]))["records"] == []


async def test_secrets_and_control_characters_never_reach_the_store(world: World) -> None:
    """Bad inputs 34 and 35."""
    run = await world.started()
    text = "\x1b[31mred\x1b[0m\nINFO forged \u202e password=hunter2hunter2 " + run.token
    answer = await run.record(1, {"text": text})
    stored = (await world.blob(answer.json()["digest"])).decode()
    assert "hunter2" not in stored
    assert run.token not in stored
    assert "\x1b" not in stored
    assert "\\u001b" not in stored
    assert "\u202e" not in stored
    assert "[redacted:run-token]" in stored
    assert "\\\\e[31mred" in stored


@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        pytest.param(b"{", 400, "not JSON", id="not JSON"),
        pytest.param(b"[]", 400, "not a JSON object", id="not an object"),
        pytest.param(b'{"sequence":1}', 422, "records", id="a member missing"),
        pytest.param(b'{"sequence":"1","records":[]}', 422, "sequence", id="a wrong type"),
        pytest.param(b'{"sequence":0,"records":[]}', 422, "sequence", id="a number out of range"),
        pytest.param(b'{"sequence":1,"records":[],"x":1}', 422, "x", id="an unknown member"),
        pytest.param(
            b'{"sequence":1,"records":[{"type":"gossip","occurredAt":"2026-01-31T12:00:00Z","payload":{}}]}',
            422,
            "records[0].type",
            id="an unknown record type",
        ),
        pytest.param(
            b'{"sequence":1,"records":[{"type":"state","occurredAt":"yesterday","payload":{}}]}',
            422,
            "records[0].occurredAt",
            id="no time",
        ),
        pytest.param(b'{"sequence":1,"records":["\xed\xa0\x80"]}', 400, "not JSON", id="a lone surrogate"),
        pytest.param(b"x" * (8 * 1024 * 1024 + 1), 413, "octets", id="too large"),
    ],
)
async def test_a_malformed_segment_is_refused_with_the_place(
    world: World, content: bytes, status: int, says: str
) -> None:
    run = await world.started()
    answer = await world.call("POST", "/v1/sessions/s-1/runs/1/records", run.token, content=content)
    assert answer.status_code == status
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("outputs", "reason", "says"),
    [
        pytest.param({}, "OutputMissing", "output data was not left", id="an output is missing"),
        pytest.param({"data": b"{"}, "ContractNotMet", "not JSON", id="not JSON"),
        pytest.param({"data": b'{"total":"7"}'}, "ContractNotMet", "at /total", id="against the schema"),
        pytest.param(
            {"data": b'{"total":7,"note":"-----BEGIN PRIVATE KEY-----\\nMIIEvQ\\n-----END PRIVATE KEY-----"}'},
            "SecretInOutput",
            "private-key",
            id="a private key inside",
        ),
    ],
)
async def test_a_broken_contract_turns_success_into_failure(
    world: World, outputs: dict[str, bytes], reason: str, says: str
) -> None:
    run = await world.started(work_order=order(output("data", "data.json", "application/json", SCHEMA)))
    answer = (await run.finish(**outputs)).json()
    assert (answer["outcome"], answer["reason"]) == ("failed", reason)
    assert says in answer["message"]
    view = await world.backends.sessions.get("s-1")
    assert view is not None
    assert view.runs[0].result is not None
    assert view.runs[0].result.outcome is Outcome.FAILED


async def test_an_output_that_meets_its_schema_is_accepted(world: World) -> None:
    run = await world.started(work_order=order(output("data", "data.json", "application/json", SCHEMA)))
    assert (await run.finish(data=b'{"total":7}')).json()["outcome"] == "succeeded"


async def test_an_output_reported_but_not_uploaded_is_missing(world: World) -> None:
    run = await world.started()
    await run.put(REFLECTION)
    answer = (await run.post("finish", run.report(report=sha256(b"never sent")))).json()
    assert (answer["outcome"], answer["reason"]) == ("failed", "OutputMissing")


@pytest.mark.parametrize("outcome", ["succeeded", "failed"])
async def test_what_another_namespace_holds_is_no_output_and_no_reflection(world: World, outcome: str) -> None:
    run = await world.started()
    report = run.report(report=await world.put_in("other", REPORT)) | {"outcome": outcome}
    report["reflection"] = await world.put_in("other", REFLECTION)
    answer = (await run.post("finish", report)).json()
    assert answer["outcome"] == "failed"
    if outcome == "succeeded":
        assert answer["reason"] == "OutputMissing"
        assert "not uploaded" in answer["message"]
    view = await world.backends.sessions.get("s-1")
    assert view is not None
    result = view.runs[0].result
    assert result is not None
    assert (result.outputs, result.reflection) == ((), None)


async def test_a_schema_that_never_ends_fails_the_run_and_not_the_gateway(world: World) -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    run = await world.started(work_order=order(output("data", "data.json", "application/json", schema)))
    finishing = asyncio.create_task(run.finish(data=b'"' + b"a" * 64 + b'!"'))
    await asyncio.sleep(0.7)
    begun = time.monotonic()
    assert (await world.call("GET", "/healthz", None)).status_code == 200
    assert time.monotonic() - begun < 1.0
    answer = (await finishing).json()
    assert (answer["outcome"], answer["reason"]) == ("failed", "ContractNotMet")
    assert "more than 3 s" in answer["message"]


@pytest.mark.parametrize(
    "reflection",
    [
        pytest.param(None, id="none"),
        pytest.param(b"not JSON", id="not JSON"),
        pytest.param(b'{"wentWell":[],"wentBadly":[]}', id="an empty one"),
    ],
)
async def test_without_a_reflection_no_run_succeeds(world: World, reflection: bytes | None) -> None:
    run = await world.started()
    report = run.report(report=await run.put(REPORT))
    report["reflection"] = await run.put(reflection) if reflection is not None else None
    answer = (await run.post("finish", report)).json()
    assert (answer["outcome"], answer["reason"]) == ("failed", "NoReflection")


async def test_an_output_nobody_declared_is_refused(world: World) -> None:
    run = await world.started()
    answer = await run.post("finish", run.report(other=sha256(b"x")))
    assert (answer.status_code, answer.json()["error"]["reason"]) == (422, "InvalidInput")


async def test_a_run_the_host_refused_finishes_without_having_started(world: World) -> None:
    run = await world.claimed()
    report = run.report() | {"outcome": "refused", "reason": "ProgramMissing", "reflection": None, "exitCode": None}
    assert (await run.post("finish", report)).json()["outcome"] == "refused"
    assert await world.logged() == ["run.claimed/s-1/1", "run.finished/s-1/1"]


async def test_facts_are_kept_as_a_blob_of_the_started_entry(world: World) -> None:
    run = await world.claimed()
    await run.start(materials=[{"role": "program", "digest": "sha256:" + "7" * 64}], seconds=0.5)
    entry = (await world.backends.log.get("run.started/s-1/1")).entry  # type: ignore[union-attr]
    assert entry["data"] == {"run": 1, "isolated": True}
    facts = orjson.loads(await world.blob(entry["blobs"][0]))
    assert facts["materials"][0]["role"] == "program"
