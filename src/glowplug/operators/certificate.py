"""The certificate that a webhook shows to the API: self-made, of a Secret that all replicas share, or mounted.

A self-made one is its own authority: the API is told of it, and of nothing else, in the webhook's `caBundle`.
"""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from glowplug.errors import AlreadyExists, ConfigError, Conflict, NotFound

from .api import Api, Object

# Nobody has to renew it: a controller that runs that long is replaced before.
_LIFE = timedelta(days=3650)
_RENEW_BEFORE = timedelta(days=365)
# A clock that is a little behind must not refuse a fresh certificate.
_BACKDATE = timedelta(hours=1)
_ATTEMPTS = 5


@dataclass(frozen=True)
class Certificate:
    """A chain, its private key, and what the API should trust; all PEM."""

    chain: bytes
    key: bytes
    authority: bytes


def self_made(hosts: Iterable[str], now: datetime) -> Certificate:
    """A certificate for these names or addresses that signs itself."""
    names = [_name(host) for host in hosts]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "glowplug webhook")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Certificate(pem, secret, pem)


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def mounted(folder: Path) -> Certificate:
    """tls.crt, tls.key and, unless the certificate is its own authority, ca.crt. Raises ConfigError."""
    try:
        chain, key = (folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes()
        authority = folder / "ca.crt"
        return Certificate(chain, key, authority.read_bytes() if authority.exists() else chain)
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}", hint="mount a Secret of type kubernetes.io/tls there"
        ) from error


async def shared(api: Api, namespace: str, name: str, hosts: Iterable[str], now: datetime) -> Certificate:
    """The one in the Secret `name`, made by whoever came first; made anew where it ends soon. Raises ApiError."""
    secrets, hosts = f"/api/v1/namespaces/{namespace}/secrets", tuple(hosts)
    for _ in range(_ATTEMPTS):
        try:
            found: Object | None = await api.get(f"{secrets}/{name}")
        except NotFound:
            found = None
        if found is not None and (certificate := _read(found.get("data") or {}, now)) is not None:
            return certificate
        body = _secret(name, self_made(hosts, now))
        try:
            if found is None:
                await api.create(secrets, body)
            else:
                await api.replace(f"{secrets}/{name}", {**found, "data": body["data"]})
        except (AlreadyExists, Conflict):
            continue  # another replica was faster: its certificate is everybody's
    raise Conflict(f"the Secret {namespace}/{name} changes all the time")


def _secret(name: str, certificate: Certificate) -> Object:
    pems = {"tls.crt": certificate.chain, "tls.key": certificate.key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(pem).decode() for key, pem in pems.items()},
    }


def _read(data: Mapping[str, str], now: datetime) -> Certificate | None:
    """None for what is no certificate, or one that ends soon."""
    try:
        chain, key = base64.b64decode(data["tls.crt"]), base64.b64decode(data["tls.key"])
        end = x509.load_pem_x509_certificate(chain).not_valid_after_utc
    except (KeyError, ValueError):
        return None
    return Certificate(chain, key, chain) if end > now + _RENEW_BEFORE else None


def utc_now() -> datetime:
    return datetime.now(timezone.utc)
