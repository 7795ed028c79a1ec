"""How a Kafka cluster is reached: its servers, SASL and TLS, by references to Secrets.

The Secrets themselves are read by whoever has them. Messages name what is missing, and never a value.
Source: knative-extensions/eventing-kafka-broker control-plane/pkg/security.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from glowplug.spec.validation import Object, as_object, as_text

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
PROTOCOLS = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL", "SASL_SSL")
# The data of a Secret by its name, decoded; None where there is no such Secret.
Secrets = Callable[[str], "Mapping[str, bytes] | None"]


@dataclass(frozen=True)
class Security:
    """How the servers are talked to; certificates and keys are PEM."""

    protocol: str = PROTOCOLS[0]
    mechanism: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = field(default="", repr=False)
    certificate: str = field(default="", repr=False)
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Cluster:
    """A Kafka cluster: `servers` are `host:port`."""

    servers: tuple[str, ...]
    security: Security = Security()


@dataclass(frozen=True)
class SecretKey:
    """One entry of a Secret."""

    name: str
    key: str


@dataclass(frozen=True)
class Net:
    """What a KafkaSource's `net` says; None: not named."""

    has_sasl: bool = False
    user: SecretKey | None = None
    password: SecretKey | None = None
    mechanism: SecretKey | None = None
    has_tls: bool = False
    ca: SecretKey | None = None
    certificate: SecretKey | None = None
    key: SecretKey | None = None

    @property
    def secrets(self) -> frozenset[str]:
        """The names of the Secrets."""
        every = (self.user, self.password, self.mechanism, self.ca, self.certificate, self.key)
        return frozenset(each.name for each in every if each is not None)


# Plain text, nobody asked who it is.
NO_NET = Net()


class KafkaProblem(ValueError):
    """What a ConfigMap or a Secret says is not enough, or wrong."""


def parse_net(net: Object) -> Net:
    """A `net` block."""
    sasl, tls = as_object(net.get("sasl")), as_object(net.get("tls"))
    return Net(
        has_sasl=sasl.get("enable") is True,
        user=_secret_key(sasl.get("user")),
        password=_secret_key(sasl.get("password")),
        mechanism=_secret_key(sasl.get("type")),
        has_tls=tls.get("enable") is True,
        ca=_secret_key(tls.get("caCert")),
        certificate=_secret_key(tls.get("cert")),
        key=_secret_key(tls.get("key")),
    )


def security_of(net: Net, secrets: Secrets) -> Security:
    """What `net` names, read. Raises KafkaProblem where a Secret, its key or a value that is needed is missing."""

    def value(reference: SecretKey | None) -> str:
        if reference is None:
            return ""
        data = secrets(reference.name)
        if data is None:
            raise KafkaProblem(f'there is no Secret "{reference.name}"')
        found = _decoded(data, reference.key)
        if not found:
            raise KafkaProblem(f'Secret "{reference.name}" has nothing under the key {reference.key}')
        return found

    return checked(
        Security(
            protocol=PROTOCOLS[net.has_sasl + 2 * net.has_tls],
            mechanism=(value(net.mechanism) or MECHANISMS[0]) if net.has_sasl else "",
            user=value(net.user) if net.has_sasl else "",
            password=value(net.password) if net.has_sasl else "",
            ca=value(net.ca) if net.has_tls else "",
            certificate=value(net.certificate) if net.has_tls else "",
            key=value(net.key) if net.has_tls else "",
        ),
        "net",
    )


def security_of_secret(data: Mapping[str, bytes]) -> Security:
    """A Secret as Knative's Brokers have them: `protocol`, `sasl.mechanism`, `user`, `password`, `ca.crt`, `user.crt`,
    `user.key`, and `user.skip` where the protocol is SSL and clients have no certificate. Raises KafkaProblem.
    """
    protocol = _decoded(data, "protocol")
    if protocol not in PROTOCOLS:
        raise KafkaProblem(f"protocol = {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    has_sasl, has_tls = protocol.startswith("SASL_"), protocol.endswith("SSL")
    certificate, key = _decoded(data, "user.crt"), _decoded(data, "user.key")
    if protocol == "SSL" and not (certificate and key) and not _skips(data):
        raise KafkaProblem(
            f'{protocol}: user.crt and user.key are needed; without them say user.skip: "true"'
        )
    return checked(
        Security(
            protocol=protocol,
            mechanism=(_decoded(data, "sasl.mechanism") or MECHANISMS[0]) if has_sasl else "",
            user=_decoded(data, "user") if has_sasl else "",
            password=_decoded(data, "password") if has_sasl else "",
            ca=_decoded(data, "ca.crt") if has_tls else "",
            certificate=certificate if has_tls and not _skips(data) else "",
            key=key if has_tls and not _skips(data) else "",
        ),
        protocol,
    )


def checked(security: Security, where: str) -> Security:
    """The same, if it is whole; `where` is what a message begins with. Raises KafkaProblem."""
    if security.mechanism and security.mechanism not in MECHANISMS:
        known = ", ".join(MECHANISMS)
        raise KafkaProblem(f"{where}: the SASL mechanism is {security.mechanism!r}, expected one of {known}")
    if security.mechanism and not (security.user and security.password):
        raise KafkaProblem(f"{where}: SASL needs a user and a password")
    if bool(security.certificate) != bool(security.key):
        raise KafkaProblem(f"{where}: a certificate needs its key, and a key its certificate")
    return security


def _skips(data: Mapping[str, bytes]) -> bool:
    """Whether the client's certificate is not to be used."""
    text = _decoded(data, "user.skip").lower()
    if text not in ("", "true", "false", "1", "0", "t", "f"):
        raise KafkaProblem(f"user.skip = {text!r}, expected true or false")
    return text in ("true", "1", "t")


def _secret_key(value: object) -> SecretKey | None:
    reference = as_object(as_object(value).get("secretKeyRef"))
    name, key = as_text(reference.get("name")), as_text(reference.get("key"))
    return SecretKey(name, key) if name and key else None


def _decoded(data: Mapping[str, bytes], key: str) -> str:
    try:
        return data.get(key, b"").decode().strip()
    except UnicodeDecodeError:
        raise KafkaProblem(f"the key {key} is not UTF-8") from None
