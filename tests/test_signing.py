"""Whose word counts: signed events are believed where they were meant to be, forged ones never."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.gate import Gate
from consumers.keymaking import make
from consumers.places import Delivered, Place
from consumers.relay import Relay, pump_once
from models.registry import Registry
from stream.core.processor import Output, Record
from stream.envelope import Envelope, write
from stream.errors import ConfigurationError, Refused
from stream.events import Alert, Command, LifecycleChanged
from stream.lifecycle import Lifecycle
from stream.loading import Live
from stream.settings import Settings
from stream.signing import (
    NOBODY,
    SigningWriter,
    Trust,
    _content,
    read_key,
    signed,
    signer,
    trust,
)
from stream.suspects import MOST, QUIET_SECONDS, Suspects
from stream.transactions import Delta
from tests.commands import run
from tests.registries import CHURN

TOPIC = "driftline.commands.v1"
KINDS = ("ed25519", "hmac")
COMMAND = Command(
    command_id="c1", kind="rollback", model="churn", generation=4, reason="harm", issued_ms=1
)


def event(command: Command = COMMAND) -> bytes:
    kind = f"driftline.command.{command.kind}.v1"
    return write(kind, command, id=command.command_id, source="driftline/evaluate", time_ms=1)


def trusting(file: Path, kind: str, topic: str = TOPIC) -> Trust:
    """What whoever checks has: of Ed25519 the public key alone."""
    key = read_key(f"{file}.pub" if kind == "ed25519" else file)
    return Trust(topic, {key.id: key})


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(tmp_path: Path, kind: Any) -> Path:
    make(tmp_path / "evaluate.key", kind)
    return tmp_path / "evaluate.key"


def test_a_signed_event_is_believed_and_says_the_same(file: Path, kind: str) -> None:
    value = signed(read_key(file), TOPIC, b"churn", event())
    trusting(file, kind).check(Record(0, 0, b"churn", value))
    assert json.loads(value)["data"] == json.loads(event())["data"]


def test_the_same_event_has_the_same_signature(file: Path) -> None:
    """What is replayed is equal to the byte."""
    key = read_key(file)
    once = signed(key, TOPIC, b"churn", event())
    assert once == signed(read_key(file), TOPIC, b"churn", event())
    assert once == signed(key, TOPIC, b"churn", once)


def changed(value: bytes, **fields: Any) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(value) | fields)


FORGERIES: dict[str, Callable[[bytes], Record]] = {
    "unsigned": lambda value: Record(0, 0, b"churn", event()),
    "another model's key": lambda value: Record(0, 0, b"loans", value),
    "no key": lambda value: Record(0, 0, None, value),
    "tombstone": lambda value: Record(0, 0, b"churn", None),
    "rubbish": lambda value: Record(0, 0, b"churn", b"\xff{"),
    "nested": lambda value: Record(0, 0, b"churn", b'{"data":' + b"[" * 100_000),
    "type": lambda value: Record(
        0, 0, b"churn", changed(value, type="driftline.command.promote.v1")
    ),
    "id": lambda value: Record(0, 0, b"churn", changed(value, id="c2")),
    "source": lambda value: Record(0, 0, b"churn", changed(value, source="me")),
    "time": lambda value: Record(0, 0, b"churn", changed(value, time="2030-01-01T00:00:00Z")),
    "subject": lambda value: Record(0, 0, b"churn", changed(value, subject="x")),
    "data": lambda value: Record(0, 0, b"churn", value.replace(b'"harm"', b'"joke"')),
    "key id": lambda value: Record(0, 0, b"churn", changed(value, keyid="0" * 16)),
    "empty signature": lambda value: Record(0, 0, b"churn", changed(value, signature="")),
    "signature no base64": lambda value: Record(0, 0, b"churn", changed(value, signature="?")),
    "attributes in headers": lambda value: Record(
        0, 0, b"churn", value, (("ce_specversion", b"1.0"), ("ce_type", b"x"))
    ),
}


@pytest.mark.parametrize("how", FORGERIES)
def test_what_is_changed_moved_or_unsigned_is_refused(file: Path, kind: str, how: str) -> None:
    value = signed(read_key(file), TOPIC, b"churn", event())
    with pytest.raises(Refused) as refused:
        trusting(file, kind).check(FORGERIES[how](value))
    assert refused.value.reason == "bad-signature"


def test_a_signature_counts_on_one_topic_of_one_installation(file: Path, kind: str) -> None:
    """What was signed for a trial run means nothing in production."""
    value = signed(read_key(file), TOPIC, b"churn", event())
    for other in ("driftline.lifecycle.v1", "acme.commands.v1"):
        with pytest.raises(Refused, match="for this place"):
            trusting(file, kind, other).check(Record(0, 0, b"churn", value))


@given(at=st.integers(min_value=0), bit=st.integers(0, 7))
def test_no_bit_can_be_turned(at: int, bit: int) -> None:
    """Refused, or (a space, an escape) still the very same event."""
    key = SECRET
    value = bytearray(signed(key, TOPIC, b"churn", event()))
    before = msgspec.json.decode(bytes(value), type=Envelope)
    value[at % len(value)] ^= 1 << bit
    try:
        Trust(TOPIC, {key.id: key}).check(Record(0, 0, b"churn", bytes(value)))
    except Refused:
        return
    after = msgspec.json.decode(bytes(value), type=Envelope)
    assert _content(TOPIC, b"churn", after) == _content(TOPIC, b"churn", before)


def _secret() -> Any:
    from stream.signing import SharedKey

    return SharedKey(b"k" * 32)


SECRET = _secret()


def test_several_keys_may_be_trusted_while_one_follows_another(tmp_path: Path) -> None:
    """First trust the new key, then sign with it, then forget the old one."""
    files = [tmp_path / name for name in ("old", "new")]
    for one in files:
        make(one, "ed25519")
    settings = Settings(command_keys=tuple(f"{one}.pub" for one in files))
    values = [signed(read_key(one), TOPIC, b"churn", event()) for one in files]
    for value in values:
        trust(settings, "commands").check(Record(0, 0, b"churn", value))
    later = trust(Settings(command_keys=(f"{files[1]}.pub",)), "commands")
    later.check(Record(0, 0, b"churn", values[1]))
    with pytest.raises(Refused, match="not trusted"):
        later.check(Record(0, 0, b"churn", values[0]))


def test_a_public_key_is_no_secret_to_sign_with(tmp_path: Path) -> None:
    """Whoever has the public key cannot pass its bytes off as a shared secret."""
    make(tmp_path / "k", "ed25519")
    public = (tmp_path / "k.pub").read_bytes()
    (tmp_path / "forged").write_bytes(b"hmac-sha256:" + base64.b64encode(public))
    value = signed(read_key(tmp_path / "forged"), TOPIC, b"churn", event())
    key = read_key(tmp_path / "k.pub")
    for said in (value, changed(value, keyid=key.id)):
        with pytest.raises(Refused):
            Trust(TOPIC, {key.id: key}).check(Record(0, 0, b"churn", said))
    with pytest.raises(ConfigurationError, match="public"):
        key.sign(b"")


@pytest.mark.parametrize(
    "content", [b"", b"hush", b"hmac-sha256:aHVzaA==", b"hmac-sha256:??", b"-----BEGIN PRIVATE KEY"]
)
def test_what_is_no_key_is_named_and_not_shown(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(ConfigurationError, match="driftline keys new") as wrong:
        read_key(tmp_path / "bad")
    assert "hush" not in str(wrong.value)
    assert "aHVz" not in str(wrong.value)


def test_a_new_key_is_its_owners_and_never_overwritten(tmp_path: Path, kind: str) -> None:
    name = str(tmp_path / "k")
    assert run("keys", "new", name, "--kind", kind).exit_code == 0
    assert (tmp_path / "k").stat().st_mode & 0o077 == 0
    assert run("keys", "show", name).stdout.strip() == read_key(name).id
    assert json.loads(run("keys", "show", name, "--json").stdout) == {"id": read_key(name).id}
    before = (tmp_path / "k").read_bytes()
    assert run("keys", "new", name, "--kind", kind).exit_code == 1
    assert (tmp_path / "k").read_bytes() == before


def test_who_cannot_sign_what_others_believe_does_not_start(tmp_path: Path) -> None:
    """Evaluate would command, and the relay would announce, what everybody refuses."""
    make(tmp_path / "k", "ed25519")
    make(tmp_path / "other", "ed25519")
    pub, key, other = (str(tmp_path / name) for name in ("k.pub", "k", "other"))
    assert signer(Settings(), "commands") is None
    assert signer(Settings(signing_key_file=key, command_keys=(pub,)), "commands") is not None
    for settings, said in (
        (Settings(command_keys=(pub,)), "there is no signing_key_file"),
        (Settings(command_keys=(pub,), signing_key_file=other), "none of them"),
        (Settings(signing_key_file=pub), "public key"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            signer(settings, "commands")


# --- where it counts ------------------------------------------------------------------------------


def test_evaluate_signs_its_commands_and_nothing_else() -> None:
    sent: list[Output] = []

    class Writer:
        id = "driftline.evaluate.worker-us"

        def init(self) -> None: ...
        def commit(self, deltas: list[Delta], *_: object) -> None:
            sent.extend(output for delta in deltas for output in delta.outputs)

    outputs = [Output("commands", b"churn", event()), Output("drift", b"churn", b"{}")]
    delta = Delta(outputs, ("checkpoints", 0, {}), {})
    SigningWriter(Writer(), SECRET).commit([delta], {"commands": TOPIC}, "rest")
    Trust(TOPIC, {SECRET.id: SECRET}).check(Record(0, 0, b"churn", sent[0].value))
    assert sent[1] == outputs[1]


class Guard:
    """A gate, and what it wrote."""

    def __init__(self, checked: Trust) -> None:
        self.letters: list[Output] = []
        self.alerts: list[Alert] = []
        self.gate = Gate(checked, 100_000, self.letters.append, self.alerts.append)

    def let(self, value: bytes | None, offset: int = 0, key: bytes = b"churn") -> Command | None:
        return self.gate.command(Delivered(Place(0, offset), Record(offset, 7, key, value)))


def test_a_forged_command_is_refused_kept_counted_and_alerted() -> None:
    guard = Guard(Trust(TOPIC, {SECRET.id: SECRET}))
    true = signed(SECRET, TOPIC, b"churn", event())
    assert guard.let(true) == COMMAND
    for offset in range(3):
        assert guard.let(event(), offset) is None
    assert (guard.gate.refused, guard.gate.suspects.count) == (3, 3)
    assert [letter.entity for letter in guard.letters] == ["commands.dlq"] * 3
    assert guard.letters[0].value == event()
    assert dict(guard.letters[0].headers)["dl_reason"] == b"bad-signature"
    (alert,) = guard.alerts
    assert (alert.problem, alert.model, alert.severity) == ("forged-command", "churn", "critical")


def test_without_keys_unsigned_commands_pass_and_rubbish_is_a_dead_letter_without_alert() -> None:
    guard = Guard(NOBODY)
    assert guard.let(event()) == COMMAND
    assert guard.let(b"{") is None
    assert len(guard.letters) == 1
    assert guard.alerts == []


def test_an_alert_is_resolved_after_an_hour_of_quiet_and_names_are_not_endless() -> None:
    alerts: list[Alert] = []
    now = [1_000.0]
    suspects = Suspects("forged-command", alerts.append, lambda: now[0])
    for number in range(MOST + 5):
        suspects.report(Record(number, 1, b"m%d" % number, b""), Refused("bad-signature", "x"))
    suspects.settle()
    assert len(alerts) == MOST
    now[0] += QUIET_SECONDS + 1
    suspects.settle()
    assert [one.state for one in alerts[MOST:]] == ["resolved"] * MOST
    assert {one.alert_id for one in alerts[:MOST]} == {one.alert_id for one in alerts[MOST:]}
    suspects.report(Record(999, 2, b"\xff\n", b""), Refused("bad-signature", "x"))
    assert alerts[-1].model.isprintable()


def test_a_forged_lifecycle_record_changes_nothing_and_alerts() -> None:
    """Neither a newer generation nor a tombstone, if nobody trusted has signed it."""
    topic = "driftline.lifecycle.v1"
    alerts: list[Alert] = []
    lifecycle = Lifecycle(
        None,  # type: ignore[arg-type]
        lambda state, _before: Live(state),
        alerts.append,
        lambda error: pytest.fail(str(error)),
        Trust(topic, {SECRET.id: SECRET}),
    )

    def state(generation: int) -> bytes:
        made = LifecycleChanged(
            model="churn", generation=generation, spec=CHURN, spec_revision=1, changed_ms=1
        )
        return write("driftline.lifecycle.changed.v1", made, id="x", source="s", time_ms=1)

    lifecycle.take([Record(0, 1, b"churn", signed(SECRET, topic, b"churn", state(3)))])
    lifecycle.take([Record(1, 1, b"churn", state(9)), Record(2, 1, b"churn", None)])
    lifecycle.take([Record(3, 1, b"churn", signed(SECRET, topic, b"churn", state(2)))])
    assert lifecycle.fleet["churn"].lifecycle.generation == 3
    assert [alert.problem for alert in alerts] == ["forged-lifecycle"]
    assert lifecycle.suspects.count == 2


def test_a_command_line_that_cannot_sign_leaves_the_publishing_to_a_trainer(
    tmp_path: Path,
) -> None:
    make(tmp_path / "k", "ed25519")
    settings = Settings(
        registry_url=f"sqlite:///{tmp_path}/r.db", lifecycle_keys=(str(tmp_path / "k.pub"),)
    )
    with Registry(settings.registry_url) as registry:
        registry.upgrade()
        registry.add_model(CHURN, who="test")
        assert "A running trainer publishes it" in pump_once(registry, settings)
        assert len(registry.outbox_pending(10)) == 1
        with pytest.raises(ConfigurationError, match="lifecycle_keys"):
            Relay(registry, settings)
