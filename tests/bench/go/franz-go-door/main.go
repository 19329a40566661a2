// A bare front door over Kafka on franz-go: an idempotent client without linger.
package main

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"partita/bench/door"
)

const largest = 100 << 20

func open(brokers []string, topic string) (door.Store, int, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(0),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(largest),
		kgo.BrokerMaxWriteBytes(largest+largest/10),
	)
	if err != nil {
		return nil, 0, err
	}
	topics, err := kadm.NewClient(client).ListTopics(context.Background(), topic)
	if err != nil {
		return nil, 0, err
	}
	store := func(partition int, key, body []byte) (int64, error) {
		record := &kgo.Record{Topic: topic, Partition: int32(partition), Key: key, Value: body}
		stored := make(chan error, 1)
		client.Produce(context.Background(), record, func(_ *kgo.Record, err error) { stored <- err })
		err := <-stored
		return record.Offset, err
	}
	return store, len(topics[topic].Partitions), nil
}

func main() { door.Serve(open) }
