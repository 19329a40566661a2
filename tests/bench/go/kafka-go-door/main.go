// A bare front door over Kafka on kafka-go, which has no idempotent producer and tells no offsets.
package main

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
	"partita/bench/door"
)

const largest = 100 << 20

func open(brokers []string, topic string) (door.Store, int, error) {
	connection, err := kafka.Dial("tcp", brokers[0])
	if err != nil {
		return nil, 0, err
	}
	defer connection.Close()
	partitions, err := connection.ReadPartitions(topic)
	if err != nil {
		return nil, 0, err
	}
	writer := &kafka.Writer{
		Addr:         kafka.TCP(brokers...),
		Topic:        topic,
		Balancer:     kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return message.WriterData.(int) }),
		RequiredAcks: kafka.RequireAll,
		BatchBytes:   largest,
		// A message waits for so long for others: by default a second.
		BatchTimeout: 10 * time.Millisecond,
	}
	store := func(partition int, key, body []byte) (int64, error) {
		return -1, writer.WriteMessages(context.Background(), kafka.Message{Key: key, Value: body, WriterData: partition})
	}
	return store, len(partitions), nil
}

func main() { door.Serve(open) }
