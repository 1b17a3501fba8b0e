"""Backends that packages bring: chosen by a setting's scheme, and a broken one is one clear sentence."""

from pathlib import Path

import pytest
from tests.conftest import Database
from tests.integration.plugins.packages import EXAMPLE, install

from triplane.adapters.filesystem.contentstore import FilesystemContentStore
from triplane.backends import ContentPlace, Group, content_store, installed
from triplane.errors import InvalidInput
from triplane.settings import Settings
from triplane.wiring import open_content, open_rebuild, open_verifier

GROUP = "triplane.content_stores"
MEMORY = """
from contextlib import asynccontextmanager
from triplane.adapters.memory.contentstore import MemoryContentStore

@asynccontextmanager
async def content(place):
    yield MemoryContentStore(on_quarantine=place.on_quarantine)
"""


def settings(tmp_path: Path, content: str | None = None) -> Settings:
    return Settings(home=tmp_path / "home", content=content)


def use(monkeypatch: pytest.MonkeyPatch, site: Path) -> None:
    monkeypatch.syspath_prepend(str(site))


def test_the_shipped_backends_are_registered_as_any_other() -> None:
    assert set(installed(Group.CONTENT)) >= {"file", "s3"}
    assert set(installed(Group.GRAPH)) >= {"postgres"}


async def test_without_a_setting_the_folder_of_the_home_is_used(tmp_path: Path) -> None:
    async with open_content(settings(tmp_path)) as store:
        assert isinstance(store, FilesystemContentStore)
        await store.store(b"x")
    assert (tmp_path / "home" / "cas" / "blobs").is_dir()


async def test_a_folder_with_blanks_and_percent_signs_is_that_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a b %41"
    async with open_content(Settings(home=folder)) as store:
        await store.store(b"x")
    assert (folder / "cas" / "blobs").is_dir()


async def test_the_example_of_the_documentation_is_chosen_by_its_scheme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(
        monkeypatch,
        install(tmp_path / "site", "sqlite_blobs", EXAMPLE.read_text(), {GROUP: {"sqlite": "sqlite_blobs:content"}}),
    )
    async with open_content(settings(tmp_path, f"sqlite:{tmp_path}/blobs.db")) as store:
        digest = await store.store(b"kept by somebody else")
    async with open_content(settings(tmp_path, f"sqlite:{tmp_path}/blobs.db")) as store:
        assert [chunk async for chunk in store.resolve(digest)] == [b"kept by somebody else"]


@pytest.mark.parametrize(
    ("name", "source", "value", "message"),
    [
        pytest.param(
            "broken_import", "import nothing_of_this_name", "broken_import:content",
            r"'mine' of package broken-import cannot be loaded from broken_import:content: ModuleNotFoundError",
            id="a module that cannot be imported",
        ),
        pytest.param(
            "no_factory", "", "no_factory:content", r"cannot be loaded from no_factory:content: AttributeError",
            id="a factory that is not there",
        ),
        pytest.param(
            "bad_call", "def content():\n    pass\n", "bad_call:content", r"cannot be made by bad_call.*: TypeError",
            id="a factory that takes nothing",
        ),
        pytest.param(
            "no_context", "def content(place):\n    return 7\n", "no_context:content",
            r"no_context:content gave int, not an async context manager",
            id="a factory that gives no context",
        ),
        pytest.param(
            "too_little",
            "from contextlib import asynccontextmanager\n@asynccontextmanager\nasync def content(place):\n"
            "    yield object()\n",
            "too_little:content",
            r"opened a object, which lacks collect, delete, exists, held, hold, lease, .* of KeptContent",
            id="a store without the operations",
        ),
    ],
)  # fmt: skip
async def test_a_broken_package_is_named_with_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, value: str, message: str
) -> None:
    use(monkeypatch, install(tmp_path / "site", name, source, {GROUP: {"mine": value}}))
    with pytest.raises(InvalidInput, match=message):
        async with open_content(settings(tmp_path, "mine:x")):
            pass


async def test_an_unknown_scheme_is_refused_with_those_there_are_and_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as refused:
        async with open_content(settings(tmp_path, "ftp://user:hunter2@host/x")):
            pass
    assert "no installed package brings the scheme 'ftp'" in str(refused.value)
    assert "file, s3" in str(refused.value)
    assert "hunter2" not in str(refused.value)


async def test_two_packages_with_one_scheme_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, install(tmp_path / "site", "usurper", MEMORY, {GROUP: {"file": "usurper:content"}}))
    with pytest.raises(InvalidInput, match=r"two packages bring the scheme 'file'.*usurper"):
        async with open_content(settings(tmp_path)):
            pass


@pytest.mark.parametrize("group", ["triplane.event_logs", "triplane.session_stores"])
async def test_what_cannot_be_swapped_is_refused_and_not_silently_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    use(monkeypatch, install(tmp_path / "site", "hopeful", MEMORY, {group: {"mine": "hopeful:content"}}))
    with pytest.raises(InvalidInput, match=f"package hopeful brings 'mine' in the group {group}, which cannot be"):
        async with open_content(settings(tmp_path)):
            pass


async def test_an_error_of_the_store_itself_is_handed_on(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="names no folder"):
        async with content_store(ContentPlace("file:relative", settings(tmp_path))):
            pass


GRAPH = """
from contextlib import asynccontextmanager
from triplane.adapters.memory.graphstore import MemoryGraphStore

@asynccontextmanager
async def graph(place):
    store = MemoryGraphStore()
    store.opened_for = place.login
    yield store
"""


async def test_a_graph_of_another_package_is_what_every_process_works_on(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"triplane.graph_stores": {"mine": "theirs_graph:graph"}}
    use(monkeypatch, install(tmp_path / "site", "theirs_graph", GRAPH, points))
    chosen = database.settings(graph="mine:")
    for opened, login in ((open_verifier(chosen), "verifier"), (open_rebuild(chosen, write=True), "operator")):
        backends = await opened
        assert getattr(backends.graph, "opened_for") == login  # noqa: B009
        await backends.close()
