"""How the webhook knows the API server from anybody else who reaches its port: a bearer token of its own.

The API server reads it from a kubeconfig (Kubernetes, "Authenticate API servers"); not from the webhook's URL, which it
quotes in its answers. It is made once: the API server reads it only when it starts.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import yaml

from triplane.localcluster.files import private_directory, write_private
from triplane.settings import Settings


@dataclass(frozen=True, slots=True)
class Caller:
    """Where the files are."""

    folder: Path

    @classmethod
    def of(cls, settings: Settings) -> "Caller":
        """That of this home."""
        return cls(settings.cluster / "webhook-caller")

    @property
    def token(self) -> Path:
        """The token, for the webhook."""
        return self.folder / "token"

    @property
    def configuration(self) -> Path:
        """What the API server is started with (``--admission-control-config-file``)."""
        return self.folder / "admission.yaml"

    def ensure(self) -> None:
        """Make what is missing; everything else stays."""
        private_directory(self.folder)
        if not self.token.exists():
            write_private(self.token, secrets.token_hex(32))
        token = self.token.read_text().strip()
        kubeconfig = self.folder / "kubeconfig"
        # "*" is every webhook. There are no others: this API server is ours.
        users = [{"name": "*", "user": {"token": token}}]
        write_private(kubeconfig, yaml.safe_dump({"apiVersion": "v1", "kind": "Config", "users": users}))
        group = "apiserver.config.k8s.io/v1"
        webhooks = {"apiVersion": group, "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": str(kubeconfig)}
        plugins = [{"name": "ValidatingAdmissionWebhook", "configuration": webhooks}]
        document = {"apiVersion": group, "kind": "AdmissionConfiguration", "plugins": plugins}
        write_private(self.configuration, yaml.safe_dump(document, sort_keys=False))
