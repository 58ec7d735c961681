"""The Faust app of a stage, and the only place that knows which processor a stage runs."""

from __future__ import annotations

import asyncio
import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
from aiokafka.abc import AbstractTokenProvider
from faust.types import TP

from stream.core.processor import Context, Processor
from stream.runtime import Runtime
from stream.settings import Settings
from stream.signing import trust
from stream.tokens import Tokens
from stream.topics import Stage
from stream.transport import BatchTransport, Intake

Factory = Callable[[Context], Processor]


def factory(stage: Stage, settings: Settings) -> Factory:
    """What makes a stage's processors. Imported here, so that a stage loads what it needs only."""
    if stage in ("score", "shadow"):
        # Takes seconds, which no model's first record should wait for; the others never need it.
        importlib.import_module("models.serving")
    if stage == "score":
        from stream.core.scoring import ScoreProcessor

        return ScoreProcessor
    if stage == "monitor":
        from stream.core.monitor import MonitorProcessor

        return MonitorProcessor
    if stage == "shadow":
        from stream.core.shadowing import ShadowProcessor

        return ShadowProcessor
    from stream.core.evaluate import EvaluateProcessor

    # People say in summaries what they do about an alert, with the key that signs lifecycle.
    checked = trust(settings, "lifecycle")._replace(topic=settings.names.topic("summaries"))
    return lambda context: EvaluateProcessor(context, checked.check)


class _TokenProvider(AbstractTokenProvider):
    """`stream.tokens` as aiokafka asks for it: off its event loop."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def token(self) -> str:
        return await asyncio.to_thread(self._tokens.token)


def _security(settings: Settings) -> dict[str, Any]:
    tokens = settings.tokens()
    provider = {"sasl_oauth_token_provider": _TokenProvider(tokens)} if tokens else {}
    return settings.aiokafka() | provider


class _Boot(faust.App.BootStrategy):
    """Without Faust's own producer: it would hold a connection that nobody uses."""

    enable_kafka_producer = False


class StageApp(faust.App):
    """A Faust app on the batch transport.

    Attributes:
        intake: what the transport fetches.
        security: arguments of its aiokafka client.
        fail: where the transport reports what must end the process.
    """

    BootStrategy = _Boot
    intake: Intake
    security: dict[str, Any]
    fail: Callable[[BaseException], None]

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)


def build(
    stage: Stage, settings: Settings, runtime: Runtime, fail: Callable[[BaseException], None]
) -> StageApp:
    """The app: one agent, which hands each slice to its partition's keeper."""
    app = StageApp(
        settings.names.group(stage),
        broker=[f"kafka://{host}" for host in settings.bootstrap_servers.split(",")],
        broker_client_id=runtime.world.writer.id,  # so that the group's members are known by it
        broker_check_crcs=not settings.embedded_broker,
        broker_session_timeout=settings.session_timeout_seconds,
        broker_heartbeat_interval=settings.session_timeout_seconds / 5,
        broker_request_timeout=max(40.0, settings.session_timeout_seconds * 2),
        broker_rebalance_timeout=settings.session_timeout_seconds * 3,
        broker_max_poll_interval=300.0,
        store="memory://",
        web_enabled=False,
        datadir=Path(tempfile.gettempdir()) / "driftline",  # made by Faust, used by nobody
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        stream_buffer_maxsize=max(16, settings.queue_batches * 2),
    )
    app.intake = runtime.intake
    app.security = _security(settings)
    app.fail = fail
    topic = app.topic(
        *settings.names.inputs(stage), key_type=bytes, value_type=bytes, value_serializer="raw"
    )

    @app.agent(topic, name=f"driftline.{stage}")
    async def hand_over(fetched: Any) -> None:
        async for slices in fetched:
            runtime.offer(slices)

    @app.on_partitions_revoked.connect
    async def revoked(_: Any, __: set[TP], **___: Any) -> None:
        # Heartbeats go on meanwhile; a third leaves the others their time.
        await runtime.revoke(settings.session_timeout_seconds / 3)

    @app.on_partitions_assigned.connect
    async def assigned(_: Any, tps: set[TP], **___: Any) -> None:
        runtime.assign({tp.partition for tp in tps})

    return app
