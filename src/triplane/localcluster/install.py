"""Puts Triplane's kinds, admission policies, RBAC and accounts on an API server, and waits until they hold.

"Applied" is not "in force": a new kind answers 429 for a moment, and policies are compiled in the background.
So the last object applied is a policy that refuses one probe with the digest of all manifests in its message.
The API server's policy source reads its informers in order, hence when it refuses, everything applied before
it is in force too, also after an upgrade.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from triplane.api.crd import render_all
from triplane.api.text import API_VERSION, REQUESTER, SYSTEM_NAMESPACE
from triplane.errors import InvalidInput, TriplaneError, Unavailable
from triplane.localcluster.apiserver import ApiServer
from triplane.localcluster.build import Progress
from triplane.localcluster.kubeconfig import write_kubeconfig

MINIMUM_VERSION = (1, 36)
PEOPLE_NAMESPACE = "people"
PEOPLE = ("alice", "bob")
ACCOUNTS = {
    "operator": (SYSTEM_NAMESPACE, "triplane-operator"),
    "gateway": (SYSTEM_NAMESPACE, "triplane-gateway"),
    "admission": (SYSTEM_NAMESPACE, "triplane-admission"),
    **{person: (PEOPLE_NAMESPACE, person) for person in PEOPLE},
}
"""Kubeconfig name to (namespace, ServiceAccount)."""
_USER_ROLE = "triplane-user"
_MANIFESTS = Path(__file__).parent / "manifests"
_PROBE = "triplane-policy-probe"
_YEAR_SECONDS = 365 * 24 * 3600
_IN_FORCE_SECONDS = 60.0


async def install(
    server: ApiServer,
    secrets: Path,
    *,
    namespaces: Sequence[str] = ("default",),
    progress: Progress = lambda _line: None,
) -> None:
    """Apply everything server-side and return when it is in force; repeating it changes nothing.

    ``namespaces`` are made where missing, and alice and bob may work in them. Writes ``kubeconfig-<name>``
    (0600) into ``secrets`` for each of ``ACCOUNTS``. Raises ``InvalidInput`` when the server is older than
    Kubernetes 1.36, ``Forbidden`` when its user may not do this.
    """
    await check_version(server)
    kinds = render_all()
    await asyncio.gather(*(server.apply(kind) for kind in kinds))
    await asyncio.gather(*(_wait_served(server, kind) for kind in kinds))
    progress(f"{len(kinds)} kinds served")
    manifests = load_manifests()
    for manifest in manifests:
        await server.apply(manifest)
    await _install_people(server, namespaces)
    await _wait_in_force(server, _digest(manifests))
    progress("admission policies in force")
    for name, (namespace, account) in ACCOUNTS.items():
        home = namespaces[0] if name in PEOPLE else SYSTEM_NAMESPACE
        await _write_account(server, secrets / f"kubeconfig-{name}", namespace, account, home)
    progress(f"kubeconfigs for {', '.join(ACCOUNTS)} in {secrets}")


async def check_version(server: ApiServer) -> None:
    """Raise ``InvalidInput`` for a server older than 1.36, whose admission cannot stamp requesters."""
    version = await server.get("/version")
    found = (int(version["major"]), int(re.sub(r"\D.*", "", version["minor"])))
    if found < MINIMUM_VERSION:
        raise InvalidInput(
            f"the API server {server.url} is Kubernetes {version['gitVersion']}; Triplane needs "
            f"{'.'.join(map(str, MINIMUM_VERSION))} or newer (MutatingAdmissionPolicy v1). Upgrade it, or use the "
            "local cluster (CLUSTER=local)"
        )


async def grant(server: ApiServer, namespace: str, people: Sequence[str] = PEOPLE) -> None:
    """Make the namespace if it is missing and return when these people may work in it."""
    await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await server.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": _USER_ROLE, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": _USER_ROLE},
            "subjects": [
                {"kind": "ServiceAccount", "name": person, "namespace": PEOPLE_NAMESPACE} for person in people
            ],
        }
    )

    async def allowed() -> str | None:
        for person in people:
            if not await _may_work(server, f"system:serviceaccount:{PEOPLE_NAMESPACE}:{person}", namespace):
                return f"{person} may not create Graphs"
        return None

    await _until(allowed, f"the role binding in {namespace} is not in force")


async def _may_work(server: ApiServer, user: str, namespace: str) -> bool:
    group = API_VERSION.split("/")[0]
    attributes = {"namespace": namespace, "verb": "create", "group": group, "resource": "graphs"}
    review = await server.post(
        "/apis/authorization.k8s.io/v1/subjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        },
    )
    return bool(review["status"]["allowed"])


def load_manifests() -> list[dict[str, Any]]:
    """The namespace, accounts, roles and policies beside this file, in the order of the file names."""
    return [
        document
        for path in sorted(_MANIFESTS.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]


def _digest(manifests: Sequence[dict[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(manifests, sort_keys=True).encode()).hexdigest()


async def _install_people(server: ApiServer, namespaces: Sequence[str]) -> None:
    await server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": PEOPLE_NAMESPACE}})
    for person in PEOPLE:
        metadata = {"name": person, "namespace": PEOPLE_NAMESPACE}
        await server.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    for namespace in namespaces:
        await grant(server, namespace)


# -- in force ----------------------------------------------------------------------------------------


async def _wait_served(server: ApiServer, kind: dict[str, Any]) -> None:
    """Until the kind is Established and LIST answers (at first it is 404, then 429)."""
    name, spec = kind["metadata"]["name"], kind["spec"]
    definition = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
    listing = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}?limit=1"

    async def served() -> str | None:
        status = (await server.get(definition)).get("status", {})
        conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
        refused = conditions.get("NamesAccepted", {})
        if refused.get("status") == "False":
            raise InvalidInput(f"the API server refuses the names of {name}: {refused.get('message')}")
        if conditions.get("Established", {}).get("status") != "True":
            return "not Established"
        code = (await server.request("GET", listing)).status_code
        return None if code == httpx.codes.OK else f"LIST answers {code}"

    await _until(served, f"the kind {name} is not served")


async def _wait_in_force(server: ApiServer, digest: str) -> None:
    await _apply_probe_policy(server, digest)
    who = await server.post(
        "/apis/authentication.k8s.io/v1/selfsubjectreviews",
        {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    username = who["status"]["userInfo"]["username"]

    # No probe gets as far as the webhook, which is registered since an earlier run and serves only after this one.
    async def refused() -> str | None:
        probe = await _dry_run(server, _PROBE, {REQUESTER: "somebody-else"})
        if digest not in probe.text:
            return f"the probe policy does not refuse: {probe.status_code} {probe.text[:400]}"
        if _in_force(digest, username) not in probe.json().get("message", ""):
            return f"the requester is not stamped: {probe.text[:400]}"
        forged = await _dry_run(server, "forged", {"triplane.dev/forged": "true"})
        if forged.status_code != httpx.codes.FORBIDDEN:
            return f"a forged control annotation is not refused: {forged.status_code}"
        return None

    await _until(refused, "the admission policies are not in force")


def _in_force(digest: str, requester: str) -> str:
    return f"manifests {digest} are in force for {requester}."


async def _dry_run(server: ApiServer, name: str, annotations: dict[str, str]) -> httpx.Response:
    graph = {
        "apiVersion": API_VERSION,
        "kind": "Graph",
        "metadata": {"name": name, "namespace": SYSTEM_NAMESPACE, "annotations": annotations},
        "spec": {},
    }
    path = f"/apis/{API_VERSION}/namespaces/{SYSTEM_NAMESPACE}/graphs?dryRun=All"
    return await server.request("POST", path, json=graph)


async def _apply_probe_policy(server: ApiServer, digest: str) -> None:
    group, version = API_VERSION.split("/")
    metadata = {"name": f"probe.{group}", "labels": {"app.kubernetes.io/name": "triplane"}}
    rule = {
        "apiGroups": [group],
        "apiVersions": [version],
        "operations": ["CREATE"],
        "resources": ["graphs"],
        "resourceNames": [_PROBE],
    }
    # Validation sees what mutation has made of the object: the stamp.
    stamp = f"object.metadata.annotations[{json.dumps(REQUESTER)}]"
    message = "'" + _in_force(digest, f"' + {stamp} + '") + "'"
    await server.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata,
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule]},
                "validations": [
                    {"expression": "false", "messageExpression": message, "message": _in_force(digest, "nobody")}
                ],
            },
        }
    )
    await server.apply(
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata,
            "spec": {"policyName": metadata["name"], "validationActions": ["Deny"]},
        }
    )


async def _until(missing: Callable[[], Awaitable[str | None]], failure: str) -> None:
    """Ask until nothing is missing; raises ``Unavailable`` after a minute, saying what was."""
    deadline = time.monotonic() + _IN_FORCE_SECONDS
    while (still := await missing()) is not None:
        if time.monotonic() >= deadline:
            raise Unavailable(f"{failure} after {_IN_FORCE_SECONDS:.0f} s: {still}; run the command again")
        await asyncio.sleep(0.2)


# -- accounts ----------------------------------------------------------------------------------------


async def _write_account(server: ApiServer, path: Path, namespace: str, account: str, working_namespace: str) -> None:
    """A kubeconfig with a token of the account; the token in the file is kept while it is good."""
    token = await _kept_token(server, path)
    if token is None:
        answer = await server.post(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": _YEAR_SECONDS},
            },
        )
        token = answer["status"]["token"]
    write_kubeconfig(
        path,
        server=server.url,
        authority=server.authority,
        user=account,
        token=token,
        namespace=working_namespace,
    )


async def _kept_token(server: ApiServer, path: Path) -> str | None:
    """The token in the file if the server still takes it and a quarter of its life is left."""
    if not path.exists():  # noqa: ASYNC240  # one stat
        return None
    token = str(yaml.safe_load(path.read_text())["users"][0]["user"]["token"])  # noqa: ASYNC240
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    if claims["exp"] - time.time() < (claims["exp"] - claims["iat"]) / 4:
        return None
    async with ApiServer(server.url, authority=server.authority, token=token) as own:
        review = await own.request(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            json={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
        )
    return token if review.is_success else None


async def _main(arguments: argparse.Namespace) -> None:
    async with await ApiServer.from_kubeconfig(arguments.kubeconfig) as server:
        await install(
            server,
            arguments.secrets,
            namespaces=arguments.namespace or ["default"],
            progress=lambda line: print(line, flush=True),
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Install Triplane on an API server.")
    parser.add_argument("--kubeconfig", type=Path, required=True, help="of a cluster administrator")
    parser.add_argument("--secrets", type=Path, required=True, help="where the kubeconfigs are written")
    parser.add_argument("--namespace", action="append", help="where people may work; may be repeated")
    try:
        asyncio.run(_main(parser.parse_args()))
    except TriplaneError as failure:
        sys.exit(str(failure))
