"""Certificates of a certificate authority that no machine knows, made by OpenSSL."""

import subprocess
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext

ADDRESS = "127.0.0.1"


def issue(directory: Path) -> tuple[Path, SSLContext]:
    """The certificate of a new authority, and the side of a server at ADDRESS whose certificate it has signed."""
    authority, key = _create(directory, "authority", "/CN=Athanor test authority")
    address = ("-addext", f"subjectAltName=IP:{ADDRESS}", "-addext", "basicConstraints=critical,CA:FALSE")
    context = SSLContext(PROTOCOL_TLS_SERVER)
    signed = _create(directory, "server", f"/CN={ADDRESS}", *address, "-CA", str(authority), "-CAkey", str(key))
    context.load_cert_chain(*signed)
    return authority, context


def _create(directory: Path, name: str, subject: str, *options: str) -> tuple[Path, Path]:
    """A certificate and its key."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", subject, *options]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
