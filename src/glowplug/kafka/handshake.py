"""Why a server cannot be talked to, found out by a handshake of our own: librdkafka says only that it failed.

An expired certificate, a wrong authority, a client's certificate that is refused and a port that speaks something else
are different mistakes, and look alike there. Everything here blocks: it is called in threads, after a failure.
"""

from __future__ import annotations

import socket
import ssl
import tempfile

from glowplug.spec.kafka_security import Cluster, Security

# A server that has nothing against the client's certificate says nothing at all.
_SILENCE_S = 0.5
_EXPIRED = 10


def handshake_problem(cluster: Cluster, timeout_s: float) -> str:
    """What is wrong with the first server that takes a connection; empty where a handshake shows nothing."""
    for server in cluster.servers:
        host, _, port = server.rpartition(":")
        host = host.strip("[]")
        try:
            connection = socket.create_connection((host, int(port)), timeout_s)
        except (OSError, ValueError):
            continue
        with connection:
            if not cluster.security.protocol.endswith("SSL"):
                return _plain(connection, server)
            return _secured(connection, host, server, cluster.security)
    return ""


def _plain(connection: socket.socket, server: str) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with context.wrap_socket(connection):
            return f"{server} speaks TLS, and the settings say plain text"
    except OSError:
        return ""


def _secured(connection: socket.socket, host: str, server: str, security: Security) -> str:
    try:
        with _context(security).wrap_socket(connection, server_hostname=host) as secured:
            secured.settimeout(_SILENCE_S)
            # As of TLS 1.3 what the server thinks of the client's certificate comes after the handshake.
            secured.recv(1)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            return f"the certificate of {server} has expired"
        return f"the certificate of {server} is not trusted with this CA: {error.verify_message}"
    except ssl.SSLError as error:
        return _refusal(error, server, bool(security.certificate))
    except OSError:
        return ""
    return ""


def _refusal(error: ssl.SSLError, server: str, has_certificate: bool) -> str:
    reason = error.reason or ""
    if "ALERT" in reason:
        if not has_certificate:
            return f"{server} asks for a certificate of the client, and none is set"
        said = reason.lower().replace("_", " ")
        return (
            f"{server} refuses the client's certificate, which has expired or is of an authority that it does not "
            f"know: {said}"
        )
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"):
        return f"{server} speaks no TLS, and the settings say TLS"
    return ""


def _context(security: Security) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=security.ca or None)
    if security.certificate:
        # Python reads keys from files only; this one is its owner's alone, and gone at once.
        with tempfile.NamedTemporaryFile("w", prefix="glowplug-") as file:
            file.write(f"{security.key}\n{security.certificate}\n")
            file.flush()
            context.load_cert_chain(file.name)
    return context
