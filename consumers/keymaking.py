"""Making keys to sign with, in files that `stream.signing` reads."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from stream.signing import HMAC, LEAST_SECRET_BYTES


def make(file: Path, kind: Literal["ed25519", "hmac"]) -> list[Path]:
    """Write a new key; the files that were written, none if one of them is there already."""
    public = file.with_name(f"{file.name}.pub")
    if file.exists() or public.exists():
        return []
    if kind == "hmac":
        secret = base64.b64encode(secrets.token_bytes(LEAST_SECRET_BYTES))
        return [_write(file, HMAC + secret + b"\n", 0o600)]
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    shown = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return [_write(file, private, 0o600), _write(public, shown, 0o644)]


def _write(file: Path, data: bytes, mode: int) -> Path:
    """A new file, from its first moment on readable by whom it should be."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(handle, "wb") as opened:
        opened.write(data)
    return file
