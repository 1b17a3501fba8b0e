"""Documents in memory: within the limit, the ones in use stay."""

from triplane.controllers.documents import Documents


def test_what_was_used_longest_ago_goes_first() -> None:
    kept = Documents(limit=30)
    for digest in "abc":
        kept.put(digest, {"of": digest}, 10)
    assert kept.get("a") == {"of": "a"}
    kept.put("d", {"of": "d"}, 10)
    assert kept.get("b") is None
    assert kept.get("a") == {"of": "a"}
    assert (len(kept), kept.octets) == (3, 30)


def test_the_limit_is_of_octets_not_of_documents() -> None:
    kept = Documents(limit=1000)
    for number in range(10_000):
        kept.put(str(number), {}, 7)
        assert kept.octets <= 1000
    assert len(kept) == 142


def test_one_that_is_too_large_is_not_kept_and_throws_nothing_out() -> None:
    kept = Documents(limit=30)
    kept.put("a", [], 30)
    kept.put("huge", [], 31)
    assert kept.get("huge") is None
    assert kept.get("a") == []


def test_the_same_again_counts_once() -> None:
    kept = Documents(limit=30)
    kept.put("a", [], 20)
    kept.put("a", [], 20)
    assert kept.octets == 20
