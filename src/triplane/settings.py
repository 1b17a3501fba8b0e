"""One frozen settings object, built once at an entry point and passed down.

Environment variables carry the prefix `TRIPLANE_`; unknown ones are refused so that a typing error is not a default.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

# Variables with the prefix that are not settings: the harness protocol's, and the failpoints of fault tests.
_NOT_SETTINGS = frozenset({"TRIPLANE_WORK_ORDER", "TRIPLANE_INPUTS", "TRIPLANE_OUTPUTS", "TRIPLANE_FAILPOINT"})


class Settings(BaseSettings):
    """Where things are and who we are. Paths are derived from `home`."""

    model_config = SettingsConfigDict(
        env_prefix="TRIPLANE_", frozen=True, extra="forbid", use_attribute_docstrings=True
    )

    home: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "triplane"
    )
    """Where state lives: `pg cas cluster run secrets`, mode 0700. Default: `~/.local/state/triplane`."""
    cache: Path = Field(
        default_factory=lambda: Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triplane"
    )
    """Where built binaries are kept by version. Default: `~/.cache/triplane`."""
    kubeconfig: Path | None = None
    """Kubeconfig of the process's own account; the CLI falls back to KUBECONFIG and ~/.kube/config."""
    namespace: str | None = None
    """Namespace the operator watches; all when absent."""
    database_host: str | None = None
    """Socket folder or host of Postgres; the embedded server's folder when absent."""
    database_port: int = 5432
    """Port of Postgres."""
    database_name: str = "triplane"
    """Name of the database."""
    database_password: SecretStr | None = None
    """Password of the process's login; the file `secrets/db_<login>` when absent."""
    graph: str = "postgres:"
    """Where the graph is kept: beside the log, or by the backend that an installed package brings for this scheme."""
    gateway_url: str | None = None
    """`http://127.0.0.1:<port>`; from `run/endpoints.json` when absent."""
    gateway_port: int = 0
    """Port the gateway binds on loopback; 0 chooses a free one."""
    admission_host: str = "127.0.0.1"
    """Address the admission webhook binds; TLS in any case."""
    admission_port: int = 0
    """Port the admission webhook binds; 0 keeps the one used before, or chooses a free one."""
    admission_certificate: Path | None = None
    """Certificate (PEM) the admission webhook serves with; taken up when it is renewed."""
    admission_key: Path | None = None
    """Its private key (PEM)."""
    admission_caller: Path | None = None
    """File with the bearer token by which the webhook knows the API server; without it any caller is answered."""
    admission_replicas: int = Field(default=1, ge=1, le=8)
    """Admission webhooks that `triplane up` runs; on one machine they share one port."""
    admission_replica: int = Field(default=1, ge=1, le=8)
    """Which of them this process is; its own address in `run/endpoints.json` is `admission-<number>`."""
    admission_authority_seconds: int = Field(default=365 * 24 * 3600, ge=10)
    """Life of the authority that signs the webhook's certificate (`triplane up`); a third before its end a new one
    takes over, and both are trusted meanwhile."""
    admission_certificate_seconds: int = Field(default=30 * 24 * 3600, ge=5)
    """Life of the webhook's certificate (`triplane up`); renewed a third before its end."""
    content: str | None = None
    """Where blobs are kept (gateway): `file:<absolute folder>` or `s3://<bucket>[/<prefix>]`; the folder `cas` when
    absent."""
    content_endpoint: str | None = None
    """`https://host[:port]` of the service with the bucket; Amazon's when absent."""
    content_region: str = "us-east-1"
    """Region of the bucket."""
    content_access_key: str | None = None
    """Name of the key to the bucket; without one the service's own ways are used (environment, instance, web
    identity)."""
    content_secret_key: SecretStr | None = None
    """The secret of that key; the file `secrets/content_secret_key` when absent."""
    content_http: bool = False
    """Let blobs travel to an `http://` endpoint: for a service on this machine, or behind something that encrypts."""
    blob_octets: int = Field(default=4 << 30, ge=1 << 20)
    """Octets of the largest blob (gateway); in a bucket at most 5 GiB."""
    run_octets: int = Field(default=16 << 30, ge=1 << 20)
    """Octets of blobs that one run may store (gateway); what its namespace has already is not counted."""
    collect_seconds: int = Field(default=24 * 3600, ge=0)
    """Seconds between two collections of blobs that nothing names (gateway); 0 switches them off."""
    collect_grace_seconds: int = Field(default=7 * 24 * 3600, ge=3600)
    """Blobs stored within so many seconds are not collected, whatever names them or not."""
    scrub_seconds: int = Field(default=7 * 24 * 3600, ge=0)
    """Seconds between the beginnings of two scrubs, which read every blob again (gateway); 0 switches them off."""
    scrub_octets_per_second: int = Field(default=8 << 20, ge=1 << 10)
    """Most that a scrub reads in a second, in the mean."""
    verify_entries_per_second: float = Field(default=1000, ge=0)
    """Entries of the log that the operator verifies again in a second, in the mean, from the first to the last and
    anew; never more than a tenth of its time. 0 switches it off."""
    verify_rest_seconds: float = Field(default=60, ge=1)
    """Seconds from the end of one such round to the beginning of the next."""
    token: SecretStr | None = None
    """Service token; the file `secrets/token_<name>` when absent."""
    programs: Path | None = None
    """Directory of approved harness programs (runner)."""
    shared: Path | None = None
    """Folder whose parts sessions may see where authority grants paths (runner); none when absent."""
    accounts: Path | None = None
    """YAML file that says which accounts belong to one person (operator): a list of `{accounts, person}`, where
    `accounts` may be a pattern such as `system:serviceaccount:team-a:*`. Without it every account counts as its own
    person, also where reviewers must be independent."""
    authority: Path | None = None
    """YAML file with the ceiling of all authority (`mayUse`, `mayDelegate`; operator and admission); the built-in one
    of docs/reference/authority.md when absent."""
    runner: str = "local"
    """Name of the runner; the log and the sessions' status show it."""
    runner_slots: int = Field(default=4, ge=1, le=64)
    """Sessions a runner hosts at once."""
    allow_unisolated: bool = False
    """Run sessions without a sandbox where none is possible; they say `Isolated=False`."""
    lease_seconds: float = Field(default=15.0, gt=0)
    """How long a run may go without renewing before it is lost, in seconds of the observer's monotonic clock."""
    max_concurrent_sessions: int | None = Field(default=None, ge=1)
    """Runs of all Agents together that may be at work at once (operator); only the runners' slots when absent."""
    accept_restore: bool = False
    """Let the operator go on from an API server that was restored from a backup (it halts otherwise)."""
    anchors: str | None = None
    """Where the operator keeps the latest signed checkpoint outside the database: URIs separated by spaces, `file:/…`,
    `configmap:<namespace>/<name>`, `git:/…?branch=…`, `https://…` (docs/how-to/anchor-and-witness.md). When absent the
    file `anchor/checkpoint` in the home and the ConfigMap `triplane-system/triplane-checkpoint`; empty for none."""
    witnesses: str = ""
    """Who cosigns checkpoints: `<verifier key>=<url>` of each witness, separated by spaces."""
    witness_quorum: int = Field(default=0, ge=0, le=32)
    """Cosignatures that readers will ask for; shown beside those that are there, and never waited for."""
    checkpoint_seconds: float = Field(default=5.0, ge=0.05, le=3600)
    """Seconds between two signed checkpoints at least; none is signed while the log stands still."""
    accept_rollback: str | None = None
    """Let the operator go on with a log that is behind a checkpoint of its own, or contradicts it: the checkpoint that
    is given up with all below it, `<origin>+<size>+<root in hex>` as the refusal says it. Everybody who has seen it
    will find out."""
    origin_host: str = "localhost"
    """Host part of the log's origin, fixed at the first migration."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown_variables(cls, values: Any) -> Any:
        """Raise for a `TRIPLANE_` variable nobody reads."""
        known = {f"TRIPLANE_{name}".upper() for name in cls.model_fields}
        unknown = sorted(
            name
            for name in os.environ
            if name.startswith("TRIPLANE_") and name not in known and name not in _NOT_SETTINGS
        )
        if unknown:
            raise ValueError(f"unknown environment variable {', '.join(unknown)}; see docs/reference/settings.md")
        return values

    @cached_property
    def pg(self) -> Path:
        return self.home / "pg"

    @cached_property
    def cas(self) -> Path:
        return self.home / "cas"

    @cached_property
    def cluster(self) -> Path:
        return self.home / "cluster"

    @cached_property
    def run(self) -> Path:
        return self.home / "run"

    @cached_property
    def notary(self) -> Path:
        return self.home / "notary"

    @cached_property
    def secrets(self) -> Path:
        return self.home / "secrets"
