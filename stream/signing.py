"""Whose word a command or a lifecycle record is, and that nobody changed or moved it.

The rights on the broker say who may write a topic; a signature says who wrote this record, also
where a right was given too freely. Signed are the full topic name, the record's key and the event's
attributes and data bytes, each with its length before it, so that a signature fits no other event,
topic, model or installation. What is old stays old: commands act once per id and only on the
generation they were made on, and lifecycle only moves to newer generations.

A key is a file: Ed25519 as PEM (private to sign, public to check), or `hmac-sha256:` and at least
32 bytes in base64, where whoever checks can also sign. A key's id is a hash of it, so rotation is a
second file in a list. Both kinds sign the same bytes the same way each time: replay stays exact.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from stream.core.processor import Output, Record
from stream.envelope import Envelope, to_ms
from stream.errors import ConfigurationError, Refused
from stream.settings import Settings

if TYPE_CHECKING:
    from stream.transactions import Delta

log = structlog.get_logger(__name__)

Signed = Literal["commands", "lifecycle"]
DOMAIN: Final = b"driftline signed event 1"
HMAC: Final = b"hmac-sha256:"
LEAST_SECRET_BYTES: Final = 32
MOST_KEY_BYTES: Final = 10_000
_DECODER: Final = msgspec.json.Decoder(Envelope)
_ENCODER: Final = msgspec.json.Encoder()


class Key(Protocol):
    @property
    def id(self) -> str: ...
    def sign(self, content: bytes) -> bytes: ...
    def verify(self, content: bytes, signature: bytes) -> bool: ...


class SharedKey:
    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.id = _id(b"hmac", hmac.digest(secret, b"key id", "sha256"))

    def sign(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, content, "sha256")

    def verify(self, content: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(content), signature)


class PublicKey:
    def __init__(self, public: Ed25519PublicKey) -> None:
        self._public = public
        self.id = _id(b"ed25519", public.public_bytes(Encoding.Raw, PublicFormat.Raw))

    def sign(self, content: bytes) -> bytes:
        raise ConfigurationError(f"key {self.id} is a public one: it can check, not sign")

    def verify(self, content: bytes, signature: bytes) -> bool:
        try:
            self._public.verify(signature, content)
        except InvalidSignature:
            return False
        return True


class PrivateKey(PublicKey):
    def __init__(self, private: Ed25519PrivateKey) -> None:
        super().__init__(private.public_key())
        self._private = private

    def sign(self, content: bytes) -> bytes:
        return self._private.sign(content)


def read_key(file: str | Path) -> Key:
    """
    Raises:
        ConfigurationError: the file holds no key of either kind.
    """
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(MOST_KEY_BYTES)
        if data.startswith(HMAC):
            secret = base64.b64decode(data.removeprefix(HMAC).strip(), validate=True)
            if len(secret) < LEAST_SECRET_BYTES:
                raise ValueError(f"the secret is shorter than {LEAST_SECRET_BYTES} bytes")
            return SharedKey(secret)
        return _ed25519(data)
    except OSError as error:
        raise ConfigurationError(f"key {file}: {error.strerror}") from error
    except (ValueError, TypeError, binascii.Error):  # their words might hold the key
        raise ConfigurationError(
            f"key {file}: neither Ed25519 as unencrypted PEM nor hmac-sha256: and 32 bytes or more "
            "in base64; `driftline keys new` makes one"
        ) from None


def _ed25519(data: bytes) -> Key:
    if b"PRIVATE KEY" in data:
        private = load_pem_private_key(data, password=None)
        if isinstance(private, Ed25519PrivateKey):
            return PrivateKey(private)
    public = load_pem_public_key(data)
    if not isinstance(public, Ed25519PublicKey):
        raise TypeError("not Ed25519")
    return PublicKey(public)


def _id(kind: bytes, public: bytes) -> str:
    return hashlib.sha256(kind + b":" + public).hexdigest()[:16]


def signed(key: Key, topic: str, record_key: bytes, value: bytes) -> bytes:
    """A structured CloudEvent with its signature in it. The same bytes for the same event."""
    event = msgspec.structs.replace(_DECODER.decode(value), signature=None, keyid=key.id)
    signature = base64.b64encode(key.sign(_content(topic, record_key, event))).decode()
    return _ENCODER.encode(msgspec.structs.replace(event, signature=signature))


def _content(topic: str, record_key: bytes, event: Envelope) -> bytes:
    time = "" if event.time is None else str(to_ms(event.time))
    attributes = (event.specversion, event.id, event.source, event.type, time, event.subject or "")
    more = (event.datacontenttype or "", event.traceparent or "", event.keyid or "")
    parts = [topic.encode(), record_key, *(a.encode() for a in (*attributes, *more)), event.data]
    return DOMAIN + b"".join(struct.pack(">Q", len(bytes(p))) + bytes(p) for p in parts)


class Trust(NamedTuple):
    """The keys whose signatures count on one topic; none: nothing is checked."""

    topic: str = ""
    keys: Mapping[str, Key] = {}

    def check(self, record: Record) -> None:
        """
        Raises:
            Refused: bad-signature, if there are keys and none of them signed this record.
        """
        if not self.keys:
            return
        if record.value is None:
            raise Refused("bad-signature", "a tombstone, which nobody can have signed")
        if any(name.startswith("ce_") for name, _ in record.headers):
            raise Refused("bad-signature", "attributes in headers, which no signature covers")
        try:
            event = _DECODER.decode(record.value)
            signature = base64.b64decode(event.signature or "", validate=True)
        except (ValueError, RecursionError):  # msgspec's and binascii's errors are ValueErrors
            raise Refused("bad-signature", "not a signed event") from None
        key = self.keys.get(event.keyid or "")
        if key is None or not signature:
            said = f"key {event.keyid[:40]!r}, which is not trusted" if event.keyid else "no key"
            raise Refused("bad-signature", f"signed by {said}")
        if not key.verify(_content(self.topic, record.key or b"", event), signature):
            raise Refused("bad-signature", f"key {key.id} did not sign this event for this place")


NOBODY: Final = Trust()


def trust(settings: Settings, entity: Signed) -> Trust:
    """Whose word counts on a topic. Says aloud if it is anybody's.

    Raises:
        ConfigurationError: a file holds no key.
    """
    keys = {key.id: key for key in map(read_key, _files(settings, entity))}
    if not keys and not settings.on_loopback:
        log.warning(
            f"{entity} are not checked for signatures",
            advice=f"`driftline keys new` makes keys; name them in {_SETTING[entity]}",
        )
    return Trust(settings.names.topic(entity), keys)


def signer(settings: Settings, entity: Signed) -> Key | None:
    """What this process signs a topic's records with; None: they go unsigned.

    Raises:
        ConfigurationError: what this process writes would be refused by those who read it.
    """
    trusted = trust(settings, entity).keys if _files(settings, entity) else {}
    key = read_key(settings.signing_key_file) if settings.signing_key_file else None
    if isinstance(key, PublicKey) and not isinstance(key, PrivateKey):
        raise ConfigurationError(f"signing_key_file {settings.signing_key_file}: a public key")
    if trusted and (key is None or key.id not in trusted):
        mine = "there is no signing_key_file" if key is None else f"{key.id} is none of them"
        raise ConfigurationError(
            f"{_SETTING[entity]} names the keys that {entity} must be signed with, but {mine}"
        )
    return key


_SETTING: Final[dict[Signed, str]] = {"commands": "command_keys", "lifecycle": "lifecycle_keys"}


def _files(settings: Settings, entity: Signed) -> tuple[str, ...]:
    files: tuple[str, ...] = getattr(settings, _SETTING[entity])
    return files


class SigningWriter:
    """A stage's writer that signs what goes to `commands`, at the last moment before it is sent.

    The core knows no keys; replaying it gives the same outputs, and these the same signatures.
    """

    def __init__(self, writer: Any, key: Key) -> None:
        self._writer = writer
        self._key = key
        self.id, self.init = writer.id, writer.init

    def commit(
        self, deltas: Iterable[Delta], topics: Mapping[str, str], group_metadata: object
    ) -> None:
        """As `stream.transactions.Transactor.commit`."""
        sealed = [
            delta._replace(outputs=[self._sealed(one, topics) for one in delta.outputs])
            for delta in deltas
        ]
        self._writer.commit(sealed, topics, group_metadata)

    def _sealed(self, output: Output, topics: Mapping[str, str]) -> Output:
        if output.entity != "commands" or output.value is None:
            return output
        topic = topics[output.entity]
        sealed = signed(self._key, topic, output.key or b"", output.value)
        return msgspec.structs.replace(output, value=sealed)
