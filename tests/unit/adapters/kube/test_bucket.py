"""The token bucket: a burst at once, then one by one at the rate, in order."""

import pytest

from triplane.adapters.kube.bucket import TokenBucket


def test_a_burst_passes_at_once_and_the_next_wait_longer_and_longer() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    assert [bucket.take(0.0) for _ in range(5)] == [0, 0, 0, pytest.approx(0.1), pytest.approx(0.2)]


def test_over_time_no_more_than_the_rate_passes() -> None:
    bucket, passed = TokenBucket(rate=10, burst=3), []
    for step in range(1000):
        now = step / 100
        passed.append(now + bucket.take(now))
    assert sum(when <= 10 for when in passed) <= 10 * 10 + 3


def test_tokens_come_back_up_to_the_burst_and_no_further() -> None:
    bucket = TokenBucket(rate=10, burst=3)
    for _ in range(3):
        bucket.take(0.0)
    assert [bucket.take(1000.0) for _ in range(4)] == [0, 0, 0, pytest.approx(0.1)]
