"""A real broker that lets nobody in unproven: SASL_SSL with SCRAM and OAUTHBEARER, mTLS, ACLs.

Certificates are made here, for loopback and an hour. `root` may do everything; what the services
may is up to the test.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from stream.settings import Settings
from tests.broker import Broker, free_ports

ROOT = "root"

PROPERTIES = """
listeners=SASL_SSL://127.0.0.1:{{port}},MTLS://127.0.0.1:{mtls_port},CONTROLLER://127.0.0.1:{{controller_port}}
advertised.listeners=SASL_SSL://127.0.0.1:{{port}},MTLS://127.0.0.1:{mtls_port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL,MTLS:SSL
inter.broker.listener.name=SASL_SSL
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
sasl.enabled.mechanisms=SCRAM-SHA-512,SCRAM-SHA-256,OAUTHBEARER
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram} required {root};
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram} required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={oauth} required {claim};
listener.name.sasl_ssl.oauthbearer.connections.max.reauth.ms=3600000
listener.name.mtls.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.crt
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:root;User:ANONYMOUS;User:CN=root-by-certificate
"""
LOGIN = "org.apache.kafka.common.security"


class Authority:
    """Signs certificates; everything lies in one folder as PEM."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = rsa.generate_private_key(65537, 2048)
        self._name = _named("test authority")
        certificate = self._signed(self._name, self._key, authority=True)
        (folder / "ca.crt").write_bytes(certificate)

    def issue(self, name: str, password: str = "") -> None:
        """`<name>.crt`, `<name>.key` (encrypted with a password, if there is one), both in .pem."""
        key = rsa.generate_private_key(65537, 2048)
        locked = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)
        certificate = self._signed(_named(name), key)
        (self.folder / f"{name}.crt").write_bytes(certificate)
        (self.folder / f"{name}.key").write_bytes(private)
        (self.folder / f"{name}.pem").write_bytes(private + certificate)

    def _signed(self, name: x509.Name, key: rsa.RSAPrivateKey, *, authority: bool = False) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        places = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        built = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(places), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return built.public_bytes(Encoding.PEM)


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


class Secured:
    """The broker, and settings of whoever wants in.

    Attributes:
        mtls: address of the listener that asks for a certificate.
    """

    def __init__(self, folder: Path, users: dict[str, str]) -> None:
        """`users`: name -> SCRAM mechanism; the password of each is `<name>-hush`."""
        self.authority = Authority(folder / "tls")
        self._users = {ROOT: "SCRAM-SHA-512", **users}
        for name in ("broker", "root-by-certificate", "nobody"):
            self.authority.issue(name)
        (port,) = free_ports(1)
        self.mtls = f"127.0.0.1:{port}"
        self.broker = Broker(
            folder / "kafka",
            heap="512m",
            properties=PROPERTIES.format(
                folder=self.authority.folder,
                mtls_port=port,
                root=f'username="{ROOT}" password="{ROOT}-hush"',
                claim='unsecuredLoginStringClaim_sub="x"',
                scram=f"{LOGIN}.scram.ScramLoginModule",
                oauth=f"{LOGIN}.oauthbearer.OAuthBearerLoginModule",
            ),
            users=[
                f"{mechanism}=[name={name},password={name}-hush]"
                for name, mechanism in self._users.items()
            ],
            client={
                name: value
                for name, value in self.settings(ROOT, "127.0.0.1:1").client().items()
                if name != "bootstrap.servers"
            },
        )

    def settings(self, user: str, bootstrap: str = "", **more: Any) -> Settings:
        """How `user` comes in, by SCRAM."""
        return Settings(
            **{
                "bootstrap_servers": bootstrap or self.broker.bootstrap,
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": self._users[user],
                "sasl_username": user,
                "sasl_password": f"{user}-hush",
                "tls_ca_file": str(self.authority.folder / "ca.crt"),
                "session_timeout_seconds": 6,
                **more,
            }
        )

    def by_certificate(self, name: str, **more: Any) -> Settings:
        """How the holder of a certificate comes in."""
        folder = self.authority.folder
        return Settings(
            **{
                "bootstrap_servers": self.mtls,
                "security_protocol": "SSL",
                "tls_ca_file": str(folder / "ca.crt"),
                "tls_certificate_file": str(folder / f"{name}.crt"),
                "tls_key_file": str(folder / f"{name}.key"),
                **more,
            }
        )


@contextmanager
def token_endpoint(
    client_id: str, secret: str, subject: str, life_seconds: int = 300
) -> Iterator[str]:
    """An OAuth endpoint on loopback that gives unsigned tokens to one client; yields its URL.

    The broker closes a connection whose token has expired.
    """
    wanted = "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            known = self.headers["Authorization"] == wanted
            body = json.dumps(
                {
                    "access_token": _token(subject, life_seconds),
                    "expires_in": life_seconds,
                    "token_type": "Bearer",
                }
                if known
                else {"error": "invalid_client"}
            ).encode()
            self.send_response(200 if known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _token(subject: str, life_seconds: int) -> str:
    now = int(time.time())
    claims = {"sub": subject, "iat": now, "exp": now + life_seconds, "scope": "kafka"}
    parts = ({"alg": "none"}, claims)
    return ".".join(_base64(json.dumps(part).encode()) for part in parts) + "."


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
