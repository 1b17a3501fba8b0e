"""Blobs over HTTP: digests, caps, who reads what, and damage."""

import pytest
from tests.integration.gateway.world import INPUT, OPERATOR, RUNNER, Run, World, order, sha256


async def test_a_blob_is_created_once_and_found_again(world: World) -> None:
    path = f"/v1/blobs/{sha256(b'content')}"
    first = await world.call("PUT", path, content=b"content")
    again = await world.call("PUT", path, content=b"content")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() == {"digest": sha256(b"content"), "size": 7}
    got = await world.call("GET", path)
    assert (got.content, got.headers["content-length"]) == (b"content", "7")
    head = await world.call("HEAD", path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "7")


async def test_a_digest_mismatch_shows_both_digests_and_stores_nothing(world: World) -> None:
    """Bad input 14."""
    answer = await world.call("PUT", f"/v1/blobs/{sha256(b'one')}", content=b"two")
    error = answer.json()["error"]
    assert (answer.status_code, error["reason"]) == (422, "DigestMismatch")
    assert (error["expected"], error["actual"]) == (sha256(b"one"), sha256(b"two"))
    assert not await world.backends.content.exists(sha256(b"one"))
    assert not await world.backends.content.exists(sha256(b"two"))


@pytest.mark.parametrize("digest", ["sha256:abc", "..%2f..%2fetc%2fpasswd", "SHA256:" + "0" * 64, "sha256:" + "A" * 64])
async def test_what_is_no_digest_is_refused(world: World, digest: str) -> None:
    answer = await world.call("GET", f"/v1/blobs/{digest}")
    assert answer.status_code in (404, 422)
    assert answer.json()["error"]["reason"] in ("InvalidDigest", "NotFound")


async def test_a_missing_blob_is_404(world: World) -> None:
    answer = await world.call("GET", f"/v1/blobs/{sha256(b'nowhere')}")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "BlobMissing")


async def test_a_run_reads_its_inputs_and_nothing_else(world: World) -> None:
    secret = await world.backends.content.store(b"of another task")
    run = await world.started()
    assert (await world.call("GET", f"/v1/blobs/{sha256(INPUT)}", run.token)).content == INPUT
    for method in ("GET", "HEAD"):
        assert (await world.call(method, f"/v1/blobs/{secret}", run.token)).status_code == 403
        missing = f"/v1/blobs/{sha256(b'nowhere')}"
        assert (await world.call(method, missing, run.token)).status_code == 403


async def test_a_run_reads_what_its_run_inputs_and_harness_name(world: World) -> None:
    program = await world.put_in("team", b"program")
    extra = await world.put_in("team", b"extra")
    made = order() | {"harness": {"digest": program}}
    await world.offer(work_order=made, permit=False)
    await world.permit("s-1", 1, inputs=[{"name": "x", "digest": extra}])
    run = Run(world, (await world.poll()).json())
    assert (await world.call("GET", f"/v1/blobs/{program}", run.token)).content == b"program"
    assert (await world.call("GET", f"/v1/blobs/{extra}", run.token)).content == b"extra"


async def test_a_run_is_not_given_a_foreign_blob_its_work_order_names(world: World) -> None:
    """Whoever wrote the digest into a Task or a Harness need not have had the content."""
    program = await world.put_in("other", b"program of another namespace")
    foreign = await world.put_in("other", b"input of another namespace")
    subject = await world.put_in("other", b"output of another namespace")
    made = order() | {"harness": {"digest": program}, "review": {"subjects": [{"name": "r", "digest": subject}]}}
    await world.offer(work_order=made, permit=False)
    await world.permit("s-1", 1, inputs=[{"name": "x", "digest": foreign}])
    run = Run(world, (await world.poll()).json())
    for digest in (program, foreign, subject):
        for method in ("GET", "HEAD"):
            answer = await world.call(method, f"/v1/blobs/{digest}", run.token)
            assert answer.status_code == 403
        refused = await world.call("GET", f"/v1/blobs/{digest}?namespace=other", run.token)
        assert "does not belong to namespace team" in refused.json()["error"]["message"]


async def test_a_run_puts_blobs_in_the_namespace_of_its_session_whatever_it_says(world: World) -> None:
    run = await world.started()
    digest = sha256(b"made")
    await world.call("PUT", f"/v1/blobs/{digest}?namespace=other", run.token, content=b"made")
    assert await world.backends.sessions.owns_blob("team", digest)
    assert not await world.backends.sessions.owns_blob("other", digest)


async def test_a_blob_that_was_not_stored_whole_belongs_to_nobody(world: World) -> None:
    run = await world.started()
    answer = await world.call("PUT", f"/v1/blobs/{sha256(b'one')}", run.token, content=b"two")
    assert answer.status_code == 422
    for content in (b"one", b"two"):
        assert not await world.backends.sessions.owns_blob("team", sha256(content))


@pytest.mark.parametrize("token", [pytest.param(RUNNER, id="the runner"), pytest.param(None, id="nobody")])
async def test_others_neither_read_nor_write(world: World, token: str | None) -> None:
    await world.backends.content.store(INPUT)
    assert (await world.call("GET", f"/v1/blobs/{sha256(INPUT)}", token)).status_code in (401, 403)
    assert (await world.call("POST", "/v1/blobs", token, content=b"x")).status_code in (401, 403)
    assert not await world.backends.content.exists(sha256(b"x"))


async def test_damage_is_never_delivered_and_is_logged(world: World) -> None:
    digest = await world.backends.content.store(b"content")
    world.backends.content._blobs[digest] = b"contend"  # type: ignore[attr-defined]
    answer = await world.call("GET", f"/v1/blobs/{digest}")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (500, "Corrupt")
    uid = digest.removeprefix("sha256:")
    assert await world.logged(uid) == [f"blob.quarantined/{uid}/1"]
    again = await world.call("GET", f"/v1/blobs/{digest}")
    assert (again.status_code, again.json()["error"]["reason"]) == (409, "BlobQuarantined")
    assert "log entry 2" in again.json()["error"]["message"]
    await world.backends.content.store(b"content")
    world.backends.content._blobs[digest] = b"contend"  # type: ignore[attr-defined]
    await world.call("GET", f"/v1/blobs/{digest}")
    assert (await world.logged(uid))[1:] == [f"blob.quarantined/{uid}/2"]


async def test_a_large_damaged_blob_breaks_off_before_its_end(world: World) -> None:
    import httpx

    content = bytes(range(256)) * 40_000
    digest = await world.backends.content.store(content)
    world.backends.content._blobs[digest] = content[:-1] + b"!"  # type: ignore[attr-defined]
    with pytest.raises(httpx.HTTPError):
        await world.call("GET", f"/v1/blobs/{digest}")


async def test_an_erased_blob_is_logged_and_gone(world: World) -> None:
    digest = await world.backends.content.store(b"content")
    assert (await world.call("DELETE", f"/v1/blobs/{digest}", OPERATOR)).status_code == 200
    assert not await world.backends.content.exists(digest)
    uid = digest.removeprefix("sha256:")
    assert await world.logged(uid) == [f"blob.erased/{uid}/1"]
    assert (await world.call("DELETE", f"/v1/blobs/{digest}", OPERATOR)).status_code == 410
    answer = await world.call("GET", f"/v1/blobs/{digest}")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (410, "BlobErased")
    assert (await world.call("HEAD", f"/v1/blobs/{digest}")).status_code == 410


async def test_a_blob_that_somebody_removed_behind_our_back_is_lost(world: World) -> None:
    digest = await world.put_in("team", b"content")
    await world.backends.content.delete(digest)
    answer = await world.call("GET", f"/v1/blobs/{digest}")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "BlobLost")
    assert "restore it from a backup" in answer.json()["error"]["message"]


async def test_what_was_erased_and_put_again_and_vanished_is_lost_not_erased(world: World) -> None:
    digest = await world.put_in("team", b"content")
    await world.call("DELETE", f"/v1/blobs/{digest}", OPERATOR)
    await world.put_in("team", b"content")
    await world.backends.content.delete(digest)
    answer = await world.call("GET", f"/v1/blobs/{digest}")
    assert (answer.status_code, answer.json()["error"]["reason"]) == (409, "BlobLost")


async def test_an_erased_blob_that_another_namespace_puts_again_is_not_the_first_ones_any_more(world: World) -> None:
    digest = await world.put_in("team", b"content")
    await world.call("DELETE", f"/v1/blobs/{digest}", OPERATOR)
    await world.call("PUT", f"/v1/blobs/{digest}?namespace=other", content=b"content")
    assert await world.backends.sessions.owns_blob("other", digest)
    assert not await world.backends.sessions.owns_blob("team", digest)
