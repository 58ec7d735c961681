"""One set of settings lets both clients in; the unsafe and half said is refused; nothing leaks."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
from confluent_kafka.admin import AdminClient

from consumers.demo.embedded import EmbeddedBroker
from consumers.fitting import Job
from models.registry import Registry as OpenRegistry
from models.registry import RegistryMisuse, RegistryUnavailable
from stream.app import _security
from stream.errors import ConfigurationError
from stream.settings import Settings, load
from stream.supervising import environment
from stream.tokens import NoToken, Tokens
from stream.topics import STAGES
from tests.broker import free_ports
from tests.commands import run
from tests.patience import PATIENCE_SECONDS
from tests.registries import CHURN
from tests.secured import Authority, token_endpoint

HUSH = "hush-h@sh/"
SCRAM = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "ann",
    "sasl_password": HUSH,
}
OAUTH = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_oauth_url": "https://id.example/token",
    "sasl_oauth_client_id": "driftline",
    "sasl_oauth_client_secret": HUSH,
}
AWAY = {"bootstrap_servers": "kafka-1:9092,kafka-2:9092"}


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.issue("ann")
    authority.issue("bob", HUSH)
    return authority.folder


def wrong(**flags: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        load(**flags)
    assert HUSH not in str(error.value)
    assert HUSH not in repr(error.value.__cause__)
    assert HUSH not in str(error.value.__cause__)
    return str(error.value)


def test_a_plain_broker_needs_no_settings() -> None:
    settings = load(**AWAY)
    assert settings.client()["security.protocol"] == "PLAINTEXT"
    assert _security(settings) == {"security_protocol": "PLAINTEXT"}


def test_scram_reaches_both_clients(tls: Path) -> None:
    settings = load(**SCRAM, tls_ca_file=str(tls / "ca.crt"))
    ours = settings.client()
    assert ours["sasl.mechanism"] == "SCRAM-SHA-512"
    assert (ours["sasl.username"], ours["sasl.password"]) == ("ann", HUSH)
    assert ours["ssl.ca.location"] == str(tls / "ca.crt")
    theirs = _security(settings)
    assert (theirs["sasl_plain_username"], theirs["sasl_plain_password"]) == ("ann", HUSH)
    assert (theirs["security_protocol"], theirs["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
    assert theirs["ssl_context"].check_hostname
    assert theirs["ssl_context"].verify_mode == ssl.CERT_REQUIRED


def test_a_client_certificate_reaches_both_clients(tls: Path) -> None:
    named = {"tls_ca_file": "ca.crt", "tls_certificate_file": "bob.crt", "tls_key_file": "bob.key"}
    files = {name: str(tls / file) for name, file in named.items()}
    settings = load(security_protocol="ssl", **files, tls_key_password=HUSH)
    AdminClient(settings.client(log_level=0))  # librdkafka reads the files at once
    assert settings.client()["ssl.key.password"] == HUSH
    assert "sasl_mechanism" not in _security(settings)


def test_oauth_reaches_both_clients() -> None:
    settings = load(**OAUTH, sasl_oauth_scope="kafka")
    ours = settings.client()
    assert ours["sasl.oauthbearer.method"] == "oidc"
    assert ours["sasl.oauthbearer.client.secret"] == HUSH
    AdminClient({**ours, "log_level": 0})
    assert "sasl_oauth_token_provider" in _security(settings)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"security_protocol": "SASL_SSL"}, "needs a sasl_mechanism"),
        ({"security_protocol": "TLS"}, "security_protocol"),
        (SCRAM | {"sasl_password": None}, "needs sasl_password"),
        (SCRAM | {"security_protocol": "PLAINTEXT"}, "no effect without security_protocol SASL"),
        (SCRAM | {"sasl_oauth_scope": "x"}, "leave it out"),
        (SCRAM | {"sasl_mechanism": "GSSAPI"}, "sasl_mechanism"),
        (OAUTH | {"sasl_username": "ann"}, "leave it out"),
        (OAUTH | {"sasl_oauth_client_secret": None}, "needs sasl_oauth_client_secret"),
        (OAUTH | {"sasl_oauth_url": "http://id.example/token"}, "must begin with https"),
        (
            SCRAM | AWAY | {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"},
            "set security_protocol SASL_SSL",
        ),
        (OAUTH | AWAY | {"security_protocol": "SASL_PLAINTEXT"}, "set security_protocol SASL_SSL"),
        ({"tls_ca_file": "ca.crt"}, "no effect without security_protocol SSL"),
        ({"security_protocol": "SSL", "tls_ca_file": "nowhere"}, "No such file"),
        ({"security_protocol": "SSL", "tls_key_file": "k"}, "go together"),
        ({"security_protocol": "SSL", "tls_key_password": HUSH}, "without tls_key_file"),
        ({"kafka": {"sasl.password": HUSH}}, "security_protocol, sasl_* and tls_*"),
        ({"kafka": {"ssl.ca.location": "x"}}, "security_protocol, sasl_* and tls_*"),
        ({"kafka": {"bootstrap.servers": "x"}}, "bootstrap_servers"),
        ({"registry_url": {"password": HUSH}}, "registry_url"),
        ({"sasl_password": {"no": HUSH}}, "sasl_password"),
        ({"no_such_setting": HUSH}, "no_such_setting"),
    ],
)
def test_what_is_unsafe_or_half_said_is_refused(flags: dict[str, Any], said: str) -> None:
    """The message says what to do, and never a secret."""
    assert said in wrong(**flags)


def test_key_and_certificate_must_fit(tls: Path) -> None:
    files = {"tls_certificate_file": str(tls / "ann.crt"), "tls_key_file": str(tls / "bob.key")}
    assert "bob.key" in wrong(security_protocol="SSL", **files, tls_key_password=HUSH)
    assert "bob.key" in wrong(security_protocol="SSL", **files)  # locked, and nobody is asked


@pytest.mark.parametrize("place", ["localhost:9092", "127.0.0.1:1,[::1]:2"])
def test_plain_is_fine_on_this_machine(place: str) -> None:
    flags = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "plain"}
    assert load(**SCRAM | flags, bootstrap_servers=place).on_loopback
    load(**SCRAM | AWAY | {"security_protocol": "SASL_PLAINTEXT"})  # SCRAM hides its password


# --- nothing leaks --------------------------------------------------------------------------------

URLS = [
    f"postgresql://ann:{HUSH.replace('/', '%2F')}@db/driftline",
    "postgresql://db/driftline?user=ann&password=hush-h%40sh%2F",
]


def leaks(text: str) -> bool:
    return "hush" in text


@pytest.mark.parametrize("url", URLS)
def test_no_secret_shows_in_repr_logs_or_config_show(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    more = {"kafka": {"some.client.secret": HUSH}, "registry_url": url}
    settings = load(**SCRAM, **more)
    assert not leaks(repr(settings) + str(settings))
    assert not leaks(repr(Job.of(CHURN, settings, [])))
    for renderer in (structlog.processors.JSONRenderer(), structlog.dev.ConsoleRenderer()):
        assert not leaks(str(renderer(None, "info", {"event": "started", "settings": settings})))
    for name, value in environment(settings, 0).items():
        monkeypatch.setenv(name, value)
    for arguments in ([], ["--json"]):
        shown = run("config", "show", *arguments)
        assert shown.exit_code == 0
        assert "sasl_password" in shown.stdout
        assert not leaks(shown.output)


@pytest.mark.parametrize("url", [*URLS, "postgres ann:hush@x", "mysql://ann:hush@db/x"])
def test_no_secret_shows_in_the_errors_of_a_registry(url: str) -> None:
    with pytest.raises((RegistryMisuse, RegistryUnavailable)) as error, OpenRegistry(url) as opened:
        opened.ping()
    assert not leaks(str(error.value))


def test_children_get_their_secrets_through_the_environment_and_the_pipe_alone() -> None:
    """What a child is started with has them whole; what `ps` shows of it has none."""
    settings = load(**SCRAM, registry_url=URLS[0], command_keys=("a.pub", "b.pub"))
    told = {name: value for name, value in environment(settings, 0).items() if leaks(value)}
    assert set(told) == {"DRIFTLINE_SASL_PASSWORD", "DRIFTLINE_REGISTRY_URL"}
    program = (
        "from stream.settings import load; s = load();"
        f"print(s.sasl_password.get_secret_value() == {HUSH!r}, s.command_keys)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(settings, 0),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "True ('a.pub', 'b.pub')"
    assert Settings(**Job.of(CHURN, settings, []).settings) == settings


def test_tokens_are_kept_while_they_last_and_errors_hold_no_secret() -> None:
    with token_endpoint("driftline", HUSH, "ann") as url:
        tokens = Tokens(url, "driftline", HUSH, None, ca_file=None)
        assert tokens.token() == tokens.token()
        with pytest.raises(NoToken, match="are client id and secret right") as error:
            Tokens(url, "driftline", HUSH + "?", "kafka", ca_file=None).token()
        assert not leaks(str(error.value))
    assert tokens.token()  # the endpoint is gone, the token is not
    with pytest.raises(NoToken, match="refused"):
        Tokens(url, "driftline", HUSH, None, ca_file=None).token()


# --- no open door ---------------------------------------------------------------------------------


def test_services_listen_on_loopback_alone_and_there_on_the_metrics_port_alone(
    tmp_path: Path,
) -> None:
    """Faust's own web server stays off; nothing can be reached from another machine."""
    broker = EmbeddedBroker()
    settings = Settings(
        bootstrap_servers=broker.bootstrap_servers,
        embedded_broker=True,
        registry_url=f"sqlite:///{tmp_path}/r.db",
    )
    broker.touch(settings.names)
    with OpenRegistry(settings.registry_url) as registry:
        registry.upgrade()
    commands: dict[str, list[str]] = {stage: ["stream.worker", stage] for stage in STAGES}
    commands["trainer"] = ["consumers", "trainer"]
    ports = dict(zip(commands, free_ports(len(commands)), strict=True))
    here = {"PYTHONPATH": str(Path(__file__).parents[1]), "DRIFTLINE_SUPERVISOR": "0"}
    running = {
        name: subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                **environment(settings, 0),
                **here,
                "DRIFTLINE_METRICS_PORT": str(ports[name]),
            },
            stderr=subprocess.DEVNULL,
        )
        for name, arguments in commands.items()
    }
    try:
        for name, process in running.items():
            wait_for(process, ports[name])
        time.sleep(2)  # what else would listen does so by now
        assert {n: listening(p) for n, p in running.items()} == {
            n: {("127.0.0.1", port)} for n, port in ports.items()
        }
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def listening(process: subprocess.Popen[bytes]) -> set[tuple[str, int]]:
    found = psutil.Process(process.pid).net_connections("inet")
    return {(c.laddr.ip, c.laddr.port) for c in found if c.status == psutil.CONN_LISTEN}


def wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(place[1] == port for place in listening(process)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_config_show_is_json_whatever_the_types() -> None:
    rows = {row["name"]: row for row in json.loads(run("config", "show", "--json").stdout)}
    assert rows["command_keys"]["value"] == []
