"""Attack: one person has two accounts: one's Agent works, the other's reviews (or answers as a person)."""

import pytest
from tests.unit.controllers.people import AGENTS, message, say, status, to_end, world

from triplane.domain.accounts import Accounts, Owned

pytestmark = pytest.mark.attacks

BOT = "system:serviceaccount:team:mallory-bot"
AGENTS_OF_BOTH = (("mallory", "writer", "write"), (BOT, "puppet", "review"))
TOLD = Accounts((Owned("system:serviceaccount:team:*", "mallory"),))


async def test_it_approves_where_nobody_said_whose_the_accounts_are() -> None:
    made = world(AGENTS_OF_BOTH, Accounts())
    await to_end(made)
    assert status(made)["state"] == "completed"


async def test_accounts_of_one_person_are_one_reviewer() -> None:
    made = world(AGENTS_OF_BOTH, TOLD)
    await to_end(made)
    assert status(made)["state"] == "blocked"
    assert "puppet is controlled by the same user as the producing Agent" in message(made, "Stalled")


async def test_a_person_s_second_account_is_not_heard_either() -> None:
    agents = (("mallory", "writer", "write"),)
    for accounts, state in ((Accounts(), "completed"), (TOLD, "reviewing")):
        made = world(agents, accounts, review={"people": [BOT, "carol"]})
        await to_end(made, BOT)
        assert status(made)["state"] == state
    assert f"is by {BOT}, who controls the producing Agent" in message(made)


async def test_two_accounts_of_one_person_are_no_quorum_of_two() -> None:
    accounts = Accounts((Owned("bob-*", "bob"),))
    for told, state in ((Accounts(), "completed"), (accounts, "reviewing")):
        made = world(AGENTS[:1], told, review={"reviewers": 2, "people": ["bob-1", "bob-2", "carol"]})
        await made.settle()
        await made.run_next()
        await made.settle()
        for user in ("bob-1", "bob-2"):
            say(made, user, name=user)
            await made.settle()
        assert status(made)["state"] == state
    assert "who has approved already" in message(made)
