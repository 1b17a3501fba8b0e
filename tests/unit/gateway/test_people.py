"""How long answers about people are believed."""

from collections.abc import Mapping
from typing import Any

import pytest

from triplane.errors import Forbidden, InvalidInput
from triplane.gateway.people import Access, People

READ = Access("get", "graphs", "team")


class Account:
    """Counts what is asked, and answers as it is told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.known = True
        self.allowed: dict[str, Any] = {"allowed": True}

    async def post(self, _: str, resource: str, __: Mapping[str, Any]) -> dict[str, Any]:
        self.asked.append(resource)
        if resource == "tokenreviews":
            return {"authenticated": self.known, "user": {"username": "alice", "uid": "u"}}
        return self.allowed

    async def close(self) -> None: ...


class Hand:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def people(account: Account, hand: Hand) -> People:
    return People(account, seconds=60, monotonic=hand)  # type: ignore[arg-type]


async def test_a_withdrawn_token_and_right_bind_after_a_minute() -> None:
    account, hand = Account(), Hand()
    subject = people(account, hand)
    person = await subject.review("token")
    assert person is not None
    await subject.require(person, READ)
    account.known, account.allowed = False, {"allowed": False}
    hand.seconds = 59.9
    assert await subject.review("token") == person
    await subject.require(person, READ)
    assert account.asked == ["tokenreviews", "subjectaccessreviews"]
    hand.seconds = 60.1
    assert await subject.review("token") is None
    with pytest.raises(Forbidden, match=r"get graphs\.triplane\.dev in namespace team"):
        await subject.require(person, READ)


async def test_a_refusal_is_asked_again_soon() -> None:
    account, hand = Account(), Hand()
    subject = people(account, hand)
    person = await subject.review("token")
    assert person is not None
    account.allowed = {"allowed": False}
    with pytest.raises(Forbidden):
        await subject.require(person, READ)
    account.allowed = {"allowed": True}
    hand.seconds = 5.1
    await subject.require(person, READ)


async def test_a_denial_outweighs_a_grant() -> None:
    account = Account()
    subject = people(account, Hand())
    account.allowed = {"allowed": True, "denied": True}
    person = await subject.review("token")
    assert person is not None
    with pytest.raises(Forbidden):
        await subject.require(person, READ)


async def test_rights_are_kept_apart_by_token_verb_resource_and_namespace() -> None:
    account = Account()
    subject = people(account, Hand())
    for token in ("one", "two"):
        person = await subject.review(token)
        assert person is not None
        for access in (READ, Access("get", "graphs"), Access("list", "graphs", "team"), Access("get", "tasks", "team")):
            await subject.require(person, access)
            await subject.require(person, access)
    assert account.asked.count("subjectaccessreviews") == 8


async def test_without_an_account_nobody_is_known() -> None:
    subject = People(None, seconds=60, monotonic=Hand())
    assert await subject.review("token") is None


def test_answers_are_never_kept_longer_than_a_minute() -> None:
    with pytest.raises(InvalidInput):
        People(None, seconds=61, monotonic=Hand())
