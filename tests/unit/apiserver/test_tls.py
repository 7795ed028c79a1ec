"""Certificates, token and kubeconfig: made once, private, renewed in time."""

from __future__ import annotations

import base64
import ssl
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from glowplug.apiserver.kubeconfig import write_kubeconfig
from glowplug.apiserver.tls import Pki, ensure_pki

NOW = datetime.now(timezone.utc)


def contents(pki: Pki) -> tuple[bytes, bytes, str]:
    return pki.ca_cert.read_bytes(), pki.server_cert.read_bytes(), pki.token


def test_pki_is_kept(tmp_path: Path) -> None:
    first = contents(ensure_pki(tmp_path / "pki", "127.0.0.1", NOW))
    assert contents(ensure_pki(tmp_path / "pki", "127.0.0.1", NOW + timedelta(days=200))) == first


def test_everything_in_it_is_private(tmp_path: Path) -> None:
    ensure_pki(tmp_path / "pki", "127.0.0.1", NOW)
    assert (tmp_path / "pki").stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "pki").iterdir()} == dict.fromkeys(
        ("ca.crt", "ca.key", "server.crt", "server.key", "token"), 0o600
    )


def test_certificate_is_for_this_machine(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path, "models.example", NOW)
    cert = x509.load_pem_x509_certificate(pki.server_cert.read_bytes())
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "models.example"}
    assert {str(one) for one in names.get_values_for_type(x509.IPAddress)} == {"127.0.0.1", "::1"}
    context = ssl.create_default_context(cafile=str(pki.ca_cert))
    assert len(context.get_ca_certs()) == 1


def test_server_certificate_is_renewed_and_the_authority_stays(tmp_path: Path) -> None:
    ca, server, token = contents(ensure_pki(tmp_path, "127.0.0.1", NOW))
    later = contents(ensure_pki(tmp_path, "127.0.0.1", NOW + timedelta(days=350)))
    assert (later[0], later[2]) == (ca, token)
    assert later[1] != server


@pytest.mark.parametrize("name", ["ca.key", "ca.crt", "server.key", "server.crt"])
def test_broken_file_is_made_anew(tmp_path: Path, name: str) -> None:
    ensure_pki(tmp_path, "127.0.0.1", NOW)
    (tmp_path / name).write_text("broken")
    pki = ensure_pki(tmp_path, "127.0.0.1", NOW)
    cert = x509.load_pem_x509_certificate(pki.server_cert.read_bytes())
    cert.verify_directly_issued_by(x509.load_pem_x509_certificate(pki.ca_cert.read_bytes()))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(pki.server_cert, pki.server_key)


def test_kubeconfig_is_private_and_complete(tmp_path: Path) -> None:
    pki = ensure_pki(tmp_path / "pki", "127.0.0.1", NOW)
    path = tmp_path / "kubeconfig"
    path.write_text("old")
    path.chmod(0o644)
    write_kubeconfig(path, server="https://127.0.0.1:8081", token=pki.token, ca_cert=pki.ca_cert)
    assert path.stat().st_mode & 0o777 == 0o600
    config = yaml.safe_load(path.read_text())
    assert config["current-context"] == "glowplug"
    assert config["contexts"][0]["context"]["namespace"] == "default"
    assert (
        base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"])
        == pki.ca_cert.read_bytes()
    )
    assert config["users"][0]["user"]["token"] == pki.token
    assert list(tmp_path.glob(".*")) == []
