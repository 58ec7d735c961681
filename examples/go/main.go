// One prediction and its label, by franz-go, whose default partitioner is that of Java clients.
//
//	KAFKA_BOOTSTRAP_SERVERS=localhost:9092 go run .
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type prediction struct {
	PredictionID string         `json:"prediction_id"`
	Model        string         `json:"model"`
	Version      int            `json:"version"`
	Output       float64        `json:"output"`
	Features     map[string]any `json:"features"`
}

type feedback struct {
	PredictionID string `json:"prediction_id"`
	Model        string `json:"model"`
	Label        string `json:"label"`
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func record(entity, id string, event any) *kgo.Record {
	value, err := json.Marshal(event)
	if err != nil {
		log.Fatal(err)
	}
	topic := setting("DRIFTLINE_TOPIC_PREFIX", "driftline") + "." + entity + ".v1"
	return &kgo.Record{Topic: topic, Key: []byte(id), Value: value}
}

func main() {
	brokers := strings.Split(setting("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092"), ",")
	client, err := kgo.NewClient(kgo.SeedBrokers(brokers...))
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	within, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	id := rand.Text()
	features := map[string]any{"age": 41, "plan": "basic"}
	records := []*kgo.Record{
		record("predictions", id, prediction{id, "churn", 3, 0.83, features}),
		record("feedback", id, feedback{id, "churn", "leaves"}),
	}
	if err := client.ProduceSync(within, records...).FirstErr(); err != nil {
		log.Fatal(err)
	}
}
