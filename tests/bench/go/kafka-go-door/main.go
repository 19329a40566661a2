// A bare front door over Kafka on kafka-go, which has no idempotent producer.
package main

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
	"partita/bench/door"
)

const largest = 100 << 20

// place is where a message goes, and then where it is.
type place struct {
	partition int
	offset    int64
}

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
		Balancer:     kafka.BalancerFunc(func(message kafka.Message, _ ...int) int { return message.WriterData.(*place).partition }),
		RequiredAcks: kafka.RequireAll,
		BatchBytes:   largest,
		// A message waits for so long for others: by default a second.
		BatchTimeout: 10 * time.Millisecond,
		// Called before WriteMessages returns.
		Completion: func(messages []kafka.Message, _ error) {
			for _, message := range messages {
				message.WriterData.(*place).offset = message.Offset
			}
		},
	}
	store := func(partition int, key, body []byte) (int64, error) {
		place := &place{partition: partition}
		err := writer.WriteMessages(context.Background(), kafka.Message{Key: key, Value: body, WriterData: place})
		return place.offset, err
	}
	return store, len(partitions), nil
}

func main() { door.Serve(open) }
