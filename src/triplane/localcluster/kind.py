"""``CLUSTER=kind``: for those with Docker. After this it is a cluster like any other (``CLUSTER=current``)."""

import asyncio
from pathlib import Path

from triplane.errors import Unavailable
from triplane.localcluster.build import KUBERNETES_VERSION, Progress
from triplane.localcluster.files import private_directory

NAME = "triplane"
_HOWTO = "docs/how-to/use-another-cluster.md"


async def ensure_kind_cluster(kubeconfig: Path, progress: Progress) -> Path:
    """Make the cluster ``triplane`` where it is missing and write its administrator's kubeconfig (0600).

    Raises ``Unavailable`` with kind's own words. `triplane down` leaves the cluster; `kind delete cluster --name
    triplane` removes it.
    """
    private_directory(kubeconfig.parent)
    if NAME not in (await _kind("get", "clusters")).split():
        image = f"kindest/node:{KUBERNETES_VERSION}"
        progress(f"kind: making the cluster {NAME} from {image}")
        await _kind("create", "cluster", "--name", NAME, "--image", image, "--wait", "120s")
    await _kind("export", "kubeconfig", "--name", NAME, "--kubeconfig", str(kubeconfig))
    await asyncio.to_thread(kubeconfig.chmod, 0o600)
    return kubeconfig


async def _kind(*arguments: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "kind",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"CLUSTER=kind needs the program kind and Docker; see {_HOWTO}") from error
    try:
        output, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode != 0:
        command = " ".join(arguments[:2])
        raise Unavailable(f"`kind {command}` failed: {said.decode(errors='replace').strip()}; see {_HOWTO}")
    return output.decode()
