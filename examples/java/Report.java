// One prediction and its label, by Kafka's own Java client.
//
//     java -cp 'libs/*' Report.java        (kafka-clients and slf4j-api in libs)
import java.io.FileReader;
import java.util.List;
import java.util.Properties;
import java.util.UUID;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;

public class Report {
    public static void main(String[] arguments) throws Exception {
        var properties = new Properties();
        try (var file = new FileReader("producer.properties")) {
            properties.load(file);
        }
        var environment = System.getenv();
        var brokers = environment.get("KAFKA_BOOTSTRAP_SERVERS");
        if (brokers != null) {
            properties.put("bootstrap.servers", brokers);
        }
        var prefix = environment.getOrDefault("DRIFTLINE_TOPIC_PREFIX", "driftline");

        var id = UUID.randomUUID().toString();
        var prediction = """
            {"prediction_id": "%s", "model": "churn", "version": 3, "output": 0.83,
             "features": {"age": 41, "plan": "basic"}}""".formatted(id);
        var feedback = """
            {"prediction_id": "%s", "model": "churn", "label": "leaves"}""".formatted(id);
        try (var producer = new KafkaProducer<String, String>(properties)) {
            List<Future<RecordMetadata>> sent = List.of(
                producer.send(new ProducerRecord<>(prefix + ".predictions.v1", id, prediction)),
                producer.send(new ProducerRecord<>(prefix + ".feedback.v1", id, feedback)));
            for (var one : sent) {
                one.get();
            }
        }
    }
}
