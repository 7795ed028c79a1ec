"""The machine's own certificate authority, the server's certificate and the bearer token, in `<data-dir>/pki`.

They are made once and kept, so that a kubeconfig stays good over restarts; what is missing, unreadable or about to
end is made anew. kubectl sends no bearer token over plain HTTP, which is why the server speaks TLS by default.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_CA_LIFE = timedelta(days=3650)
_SERVER_LIFE = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)
# A clock that is a little behind must not refuse a fresh certificate.
_BACKDATE = timedelta(hours=1)


@dataclass(frozen=True)
class Pki:
    """Where the certificates lie, and the token that every request must bear."""

    ca_cert: Path
    server_cert: Path
    server_key: Path
    token: str


def ensure_pki(folder: Path, host: str, now: datetime) -> Pki:
    """Load what is in `folder`, make what is not. The folder is of mode 0700, every key in it of mode 0600."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    pki = Pki(folder / "ca.crt", folder / "server.crt", folder / "server.key", _token(folder / "token"))
    authority = _load(folder / "ca.crt", folder / "ca.key", now)
    if authority is None:
        authority = _make_authority(now)
        _save(folder / "ca.crt", folder / "ca.key", *authority)
    server = _load(pki.server_cert, pki.server_key, now)
    if server is None or server[0].issuer != authority[0].subject or not _is_signed(server[0], authority[0]):
        _save(pki.server_cert, pki.server_key, *_make_server(authority, host, now))
    return pki


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; nobody but its owner can read it, at no moment."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


def _token(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        text = path.read_text().strip()
        if len(text) >= 32:
            return text
    token = secrets.token_urlsafe(32)
    write_private(path, token.encode())
    return token


_Signed = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _load(cert_path: Path, key_path: Path, now: datetime) -> _Signed | None:
    try:
        cert = x509.load_pem_x509_certificate(cert_path.read_bytes())
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or cert.public_key() != key.public_key():
        return None
    return (cert, key) if cert.not_valid_after_utc - _RENEW_BEFORE > now else None


def _is_signed(cert: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        cert.verify_directly_issued_by(authority)
    except Exception:  # one of several of the library's: each means "not by this authority"
        return False
    return True


def _save(cert_path: Path, key_path: Path, cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(key_path, pem)
    write_private(cert_path, cert.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _make_authority(now: datetime) -> _Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    # A name of its own each time, so that a browser or a client never mixes two machines' authorities up.
    builder = _builder(f"glowplug CA {secrets.token_hex(4)}", None, key, now, _CA_LIFE)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(is_authority=True), critical=True).sign(key, hashes.SHA256()), key


def _make_server(authority: _Signed, host: str, now: datetime) -> _Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    ca, ca_key = authority
    builder = _builder("glowplug", ca.subject, key, now, _SERVER_LIFE)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    for extension, is_critical in (
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(is_authority=False), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (identifier, False),
        (x509.SubjectAlternativeName(_names(host)), False),
    ):
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(ca_key, hashes.SHA256()), key


def _names(host: str) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName("localhost")]
    addresses = {"127.0.0.1", "::1"}
    try:
        addresses.add(str(ipaddress.ip_address(host)))
    except ValueError:
        names.append(x509.DNSName(host))
    return [*names, *(x509.IPAddress(ipaddress.ip_address(one)) for one in sorted(addresses))]


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
