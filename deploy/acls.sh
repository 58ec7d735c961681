#!/usr/bin/env bash
# The rights of each service, for brokers with an authorizer. Made by `driftline topics acls`, which
# knows other prefixes and principals too; tests/test_acls.py holds this file to it.
#
#   KAFKA_ACLS="kafka-acls.sh --bootstrap-server kafka:9092 --command-config root.properties" \
#     bash deploy/acls.sh
set -euo pipefail
: "${KAFKA_ACLS:?set it to kafka-acls.sh and how to connect}"
# score: driftline worker --stages score
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Read --topic driftline.requests.v1
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Read --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Read --operation Write --topic driftline.checkpoints.score.v1
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Write --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Write --topic driftline.requests.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Write --topic driftline.summaries.v1
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Write --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Read --group driftline.score
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Describe --group driftline.tail
$KAFKA_ACLS --add --allow-principal User:driftline-score --operation Write --operation Describe --transactional-id driftline.score. --resource-pattern-type prefixed

# monitor: driftline worker --stages monitor
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Read --operation Write --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Read --operation Write --topic driftline.feedback.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Read --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Read --operation Write --topic driftline.checkpoints.monitor.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Write --topic driftline.examples.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Write --topic driftline.summaries.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Write --topic driftline.predictions.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Write --topic driftline.feedback.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Write --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Read --group driftline.monitor
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Describe --group driftline.tail
$KAFKA_ACLS --add --allow-principal User:driftline-monitor --operation Write --operation Describe --transactional-id driftline.monitor. --resource-pattern-type prefixed

# evaluate: driftline worker --stages evaluate
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Read --topic driftline.summaries.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Read --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Read --operation Write --topic driftline.checkpoints.evaluate.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Write --topic driftline.accuracy.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Write --topic driftline.drift.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Write --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Write --topic driftline.commands.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Write --topic driftline.decisions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Read --group driftline.evaluate
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Describe --group driftline.tail
$KAFKA_ACLS --add --allow-principal User:driftline-evaluate --operation Write --operation Describe --transactional-id driftline.evaluate. --resource-pattern-type prefixed

# shadow: driftline worker --stages shadow
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Read --operation Write --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Read --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Read --operation Write --topic driftline.checkpoints.shadow.v1
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Write --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Read --group driftline.shadow
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Describe --group driftline.tail
$KAFKA_ACLS --add --allow-principal User:driftline-shadow --operation Write --operation Describe --transactional-id driftline.shadow. --resource-pattern-type prefixed

# trainer: driftline trainer
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Read --topic driftline.commands.v1
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Read --topic driftline.examples.v1
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Read --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Write --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Write --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Write --topic driftline.commands.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Read --group driftline.trainer
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Describe --group driftline.reader
$KAFKA_ACLS --add --allow-principal User:driftline-trainer --operation Write --operation Describe --transactional-id driftline.relay

# alerts: driftline alerts: sends alerts on
$KAFKA_ACLS --add --allow-principal User:driftline-alerts --operation Read --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-alerts --operation Write --topic driftline.alerts.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-alerts --operation Read --group driftline.alerts. --resource-pattern-type prefixed

# bridge: driftline bridge; beside this, Read on the topic that servers log to
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Read --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Write --topic driftline.requests.v1
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Write --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Write --topic driftline.feedback.v1
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Write --topic driftline.requests.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Write --topic driftline.predictions.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Write --topic driftline.feedback.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Read --group driftline.bridge
$KAFKA_ACLS --add --allow-principal User:driftline-bridge --operation Describe --group driftline.reader

# producer: what asks for predictions and knows the truth: requests, feedback
$KAFKA_ACLS --add --allow-principal User:driftline-producer --operation Write --topic driftline.requests.v1
$KAFKA_ACLS --add --allow-principal User:driftline-producer --operation Write --topic driftline.feedback.v1

# scorer: a service that scores by itself: predictions, feedback
$KAFKA_ACLS --add --allow-principal User:driftline-scorer --operation Write --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-scorer --operation Write --topic driftline.feedback.v1

# reader: driftline status, doctor, tail, and what subscribes to verdicts; no one's features
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.accuracy.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.drift.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.commands.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.decisions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Read --topic driftline.summaries.v1
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --operation DescribeConfigs --topic driftline. --resource-pattern-type prefixed
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.reader
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.trainer
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.alerts. --resource-pattern-type prefixed
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.score
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.monitor
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.evaluate
$KAFKA_ACLS --add --allow-principal User:driftline-reader --operation Describe --group driftline.shadow

# console: driftline console: every event whole, and what people decide in it
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.accuracy.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.drift.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.commands.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.decisions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --operation Write --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --operation Write --topic driftline.summaries.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.requests.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.feedback.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.examples.v1
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.requests.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.predictions.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.feedback.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.commands.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Read --topic driftline.alerts.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Describe --group driftline.reader
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Describe --group driftline.trainer
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Describe --group driftline.score
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Describe --group driftline.monitor
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Describe --group driftline.evaluate
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Describe --group driftline.shadow
$KAFKA_ACLS --add --allow-principal User:driftline-console --operation Write --operation Describe --transactional-id driftline.relay

# operator: people at the command line: driftline models, alerts, publish, dlq, erase, replay
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.requests.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.predictions.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.feedback.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.commands.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.alerts.v1.dlq
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.alerts.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --operation Write --topic driftline.lifecycle.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --operation Write --topic driftline.predictions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --operation Write --topic driftline.feedback.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --operation Write --topic driftline.summaries.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.commands.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Read --topic driftline.decisions.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Write --topic driftline.requests.v1
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Describe --group driftline.reader
$KAFKA_ACLS --add --allow-principal User:driftline-operator --operation Write --operation Describe --transactional-id driftline.relay

# admin: driftline topics apply, once
$KAFKA_ACLS --add --allow-principal User:driftline-admin --operation Create --operation Describe --operation DescribeConfigs --operation AlterConfigs --topic driftline. --resource-pattern-type prefixed
