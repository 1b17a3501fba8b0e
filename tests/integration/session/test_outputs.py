"""Outputs that are not plain files of the run itself are refused, with the place and what it is."""

import pytest
from tests.integration.session.world import REPORT, World, sha256


@pytest.mark.parametrize(
    ("source", "words"),
    [
        pytest.param("os.symlink('/etc/passwd', 'report.md')", "a symbolic link", id="a link to a system file"),
        pytest.param("os.symlink('../order.json', 'report.md')", "a symbolic link", id="a link out of the folder"),
        pytest.param("leave('real.md'); os.symlink('real.md', 'report.md')", "a symbolic link", id="a link beside it"),
        pytest.param("os.symlink('nowhere', 'report.md')", "a symbolic link", id="a dangling link"),
        pytest.param("os.mkfifo('report.md')", "a named pipe", id="a pipe, which nobody opens"),
        pytest.param("import socket; socket.socket(socket.AF_UNIX).bind('report.md')", "a socket", id="a socket"),
        pytest.param("os.mkdir('report.md')", "a folder", id="a folder"),
        pytest.param("leave('other.md'); os.link('other.md', 'report.md')", "hard links", id="a second name"),
        pytest.param(
            "os.truncate(os.open('report.md', os.O_CREAT | os.O_RDWR), 256*1024*1024 + 1)",
            "octets",
            id="one octet over 256 MiB",
        ),
        pytest.param("leave(); os.chmod('report.md', 0)", None, id="without permissions, read by root only"),
    ],
)
async def test_refused(world: World, source: str, words: str | None) -> None:
    done = await world.carry_out(f"os.chdir('/work/outputs'); {source}; reflect()")

    if words is None:
        assert done.ending in {("succeeded", "Completed"), ("failed", "OutputRefused")}
        return
    assert done.ending == ("failed", "OutputRefused"), done.message
    assert words in done.message
    assert "report" in done.message
    assert done.run.result is not None
    assert done.run.result.outputs == ()


async def test_a_path_through_a_linked_folder_is_refused(world: World) -> None:
    done = await world.carry_out(
        "os.chdir('/work/outputs'); os.mkdir('real'); leave('real/report.md'); os.symlink('real', 'sub'); reflect()",
        outputs=[REPORT | {"path": "/work/outputs/sub/report.md"}],
    )

    assert done.ending == ("failed", "OutputRefused"), done.message
    assert "sub is a symbolic link" in done.message


async def test_an_input_cannot_be_linked_into_the_outputs(world: World) -> None:
    digest = await world.blob(b"secret\n")
    done = await world.carry_out(
        """
        try: os.link("/work/inputs/text", "/work/outputs/report.md")
        except OSError as error: print(error.strerror)
        leave(); reflect()
        """,
        inputs=[{"name": "text", "path": "/work/inputs/text", "digest": digest, "type": "File"}],
    )

    assert done.said("stdout") == ["Invalid cross-device link"]
    assert done.ending == ("succeeded", "Completed")


async def test_files_nobody_declared_are_left_behind(world: World) -> None:
    done = await world.carry_out("leave('extra.txt', 'undeclared'); leave(); reflect()")

    assert done.run.result is not None
    assert [output.name for output in done.run.result.outputs] == ["report"]
    assert not await world.backends.content.exists(sha256(b"undeclared"))


async def test_a_large_output_arrives_whole(world: World) -> None:
    done = await world.carry_out(
        "open('/work/outputs/report.md', 'w').write('0123456789abcde\\n' * (5 * 65536)); reflect()"
    )

    content = b"0123456789abcde\n" * (5 * 65536)
    assert done.ending == ("succeeded", "Completed"), done.message
    assert done.run.result is not None
    assert done.run.result.outputs[0].digest == sha256(content)
    assert await world.read(sha256(content)) == content
