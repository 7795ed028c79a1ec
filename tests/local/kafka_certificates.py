"""Certificates for a Kafka under test, made anew each time: an authority, and what it signs.

Everything is PEM; keys are PKCS #8, which Kafka needs.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: str
    key: str = field(repr=False)


class Authority:
    """Signs for servers on this computer and for clients."""

    def __init__(self, name: str = "tests") -> None:
        self._name = _named(f"authority of {name}")
        self._key = ec.generate_private_key(ec.SECP256R1())
        made = _builder(self._name, self._name, self._key.public_key(), _now() - _DAY, _now() + _DAY)
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = _pem(made.sign(self._key, hashes.SHA256()))

    def signed(self, name: str, *, is_expired: bool = False) -> Pair:
        """Good from yesterday to tomorrow, or until an hour ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        until = _now() + (-_DAY / 24 if is_expired else _DAY)
        here = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        made = _builder(_named(name), self._name, key.public_key(), _now() - _DAY, until)
        made = made.add_extension(x509.SubjectAlternativeName([here]), critical=False)
        form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return Pair(
            _pem(made.sign(self._key, hashes.SHA256())),
            key.private_bytes(serialization.Encoding.PEM, *form).decode(),
        )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    since: datetime.datetime,
    until: datetime.datetime,
) -> x509.CertificateBuilder:
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(since).not_valid_after(until)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
