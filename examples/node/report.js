// One prediction and its label, by kafkajs, whose default partitioner is that of Java clients.
//
//     npm install --no-package-lock && KAFKA_BOOTSTRAP_SERVERS=localhost:9092 node report.js
const { randomUUID } = require("node:crypto");
const { Kafka, Partitioners } = require("kafkajs");

const prefix = process.env.DRIFTLINE_TOPIC_PREFIX || "driftline";
const brokers = (process.env.KAFKA_BOOTSTRAP_SERVERS || "localhost:9092").split(",");
const producer = new Kafka({ clientId: "my-service", brokers }).producer({
  createPartitioner: Partitioners.DefaultPartitioner,
  allowAutoTopicCreation: false,
});

const send = (entity, event) =>
  producer.send({
    topic: `${prefix}.${entity}.v1`,
    acks: -1,
    messages: [{ key: event.prediction_id, value: JSON.stringify(event) }],
  });

async function main() {
  await producer.connect();
  const prediction_id = randomUUID();
  const features = { age: 41, plan: "basic" };
  await send("predictions", { prediction_id, model: "churn", version: 3, output: 0.83, features });
  await send("feedback", { prediction_id, model: "churn", label: "leaves" });
  await producer.disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
