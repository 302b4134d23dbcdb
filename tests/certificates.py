"""Certificates of an authority that nobody knows, for servers of the tests."""

import ipaddress
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat


class Authority:
    """A private authority: `file` is its own certificate, `folder` has it as OpenSSL looks it up."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "authority.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A private authority")])
        folder.mkdir()
        ca = x509.BasicConstraints(ca=True, path_length=None)
        certificate = self._signed(self._name, self._key.public_key(), ca)
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))
        asked = ["openssl", "x509", "-hash", "-noout", "-in", str(self.file)]
        hashed = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
        (folder / f"{hashed}.0").symlink_to(self.file)

    def context(self, name: str, expired: bool = False) -> ssl.SSLContext:
        """What a server of that name or address speaks TLS with."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            names = x509.DNSName(name)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        alternatives = x509.SubjectAlternativeName([names])
        certificate = self._signed(subject, key.public_key(), alternatives, expired)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path = self.folder / "server"
        path.write_bytes(certificate.public_bytes(Encoding.PEM) + private)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _signed(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        expired: bool = False,
    ) -> x509.Certificate:
        end = datetime.now(UTC) + timedelta(days=-1 if expired else 30)
        builder = x509.CertificateBuilder(self._name, subject, key, x509.random_serial_number())
        builder = builder.not_valid_before(end - timedelta(days=60)).not_valid_after(end)
        return builder.add_extension(extension, critical=False).sign(self._key, hashes.SHA256())
