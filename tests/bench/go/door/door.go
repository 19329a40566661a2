// Package door is a bare front door: net/http, the body into one buffer of its declared size, 202 when it is stored.
package door

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
)

// Store makes a body durable in a partition and returns its offset.
type Store func(partition int, key, body []byte) (int64, error)

// Serve listens for POST /v1/tasks/{key}. open connects to a topic and says how many partitions it has.
func Serve(open func(brokers []string, topic string) (Store, int, error)) {
	listen := flag.String("listen", "127.0.0.1:0", "the address to listen on")
	brokers := flag.String("bootstrap-servers", "", "host:port of some brokers")
	topic := flag.String("topic", "", "the topic to write to")
	flag.Int("workers", 0, "taken and not looked at: Go uses every core")
	flag.Int("producers", 0, "taken and not looked at: a client connects to each broker once")
	flag.Parse()
	store, partitions, err := open(strings.Split(*brokers, ","), *topic)
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr())
	log.Fatal(http.Serve(listener, post(store, partitions)))
}

func post(store Store, partitions int) http.HandlerFunc {
	return func(answer http.ResponseWriter, request *http.Request) {
		key := request.URL.Path[strings.LastIndexByte(request.URL.Path, '/')+1:]
		if request.ContentLength < 0 {
			http.Error(answer, "a length is needed", http.StatusLengthRequired)
			return
		}
		body := make([]byte, request.ContentLength)
		if _, err := io.ReadFull(request.Body, body); err != nil {
			http.Error(answer, err.Error(), http.StatusBadRequest)
			return
		}
		partition := int(murmur2([]byte(key))&0x7fffffff) % partitions
		offset, err := store(partition, []byte(key), body)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusServiceUnavailable)
			return
		}
		answer.Header().Set("Content-Type", "application/json")
		answer.WriteHeader(http.StatusAccepted)
		fmt.Fprintf(answer, `{"id":"%d-%d","partition":%d,"offset":%d}`, partition, offset, partition, offset)
	}
}

// murmur2 is what Kafka's own producer chooses partitions by (org.apache.kafka.common.utils.Utils).
func murmur2(data []byte) uint32 {
	const m = 0x5bd1e995
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for ; len(data) >= 4; data = data[4:] {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(data[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
