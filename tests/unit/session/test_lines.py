"""Splitting output into lines, however it arrives."""

import asyncio

import pytest

from triplane.session.harness.exec import lines

LIMIT = 64 * 1024


async def split(*chunks: bytes) -> list[tuple[bytes, bool]]:
    stream = asyncio.StreamReader(limit=4 * LIMIT)
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    return [line async for line in lines(stream)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(b"a\nb\n", [(b"a", False), (b"b", False)], id="two lines"),
        pytest.param(b"a\n\n \nb", [(b"a", False), (b"b", False)], id="blank lines and no last end"),
        pytest.param(b"a\r\nb", [(b"a\r", False), (b"b", False)], id="carriage returns stay"),
        pytest.param(b"x" * LIMIT + b"\ny\n", [(b"x" * LIMIT, False), (b"y", False)], id="exactly 64 KiB"),
        pytest.param(b"x" * (LIMIT + 1) + b"\ny\n", [(b"x" * LIMIT, True), (b"y", False)], id="one octet more"),
        pytest.param(b"x" * (3 * LIMIT), [(b"x" * LIMIT, True)], id="a long line without end"),
        pytest.param(b"", [], id="nothing"),
    ],
)
async def test_lines(text: bytes, expected: list[tuple[bytes, bool]]) -> None:
    assert await split(text) == expected
    assert await split(*(text[at : at + 7919] for at in range(0, len(text), 7919))) == expected
