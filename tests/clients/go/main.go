// The official CloudEvents SDK for Go as a client of POST /v1/tasks.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	cloudevents "github.com/cloudevents/sdk-go/v2"
	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
)

var base = os.Getenv("PARTITA_URL")

const key = "go session/1"

func newEvent(id string, contentType string, data any) event.Event {
	e := cloudevents.NewEvent()
	e.SetID(id)
	e.SetType("com.example.click")
	e.SetSource("/go")
	e.SetSubject(key)
	e.SetExtension("tenant", "a b")
	if err := e.SetData(contentType, data); err != nil {
		log.Fatal(err)
	}
	return e
}

type chunk struct {
	Size        int    `json:"size"`
	ContentType string `json:"content_type"`
}

func get(path string) (int, []byte) {
	answer, err := http.Get(base + path)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		log.Fatal(err)
	}
	return answer.StatusCode, body
}

func recorded(count int) ([]chunk, []byte) {
	for range 300 {
		status, body := get("/v1/recordings/" + url.PathEscape(key))
		var recording struct {
			Chunks []chunk `json:"chunks"`
		}
		if status == http.StatusOK {
			if err := json.Unmarshal(body, &recording); err != nil {
				log.Fatal(err)
			}
		}
		if len(recording.Chunks) == count {
			_, content := get("/v1/recordings/" + url.PathEscape(key) + "/content")
			return recording.Chunks, content
		}
		time.Sleep(100 * time.Millisecond)
	}
	log.Fatalf("%q has not %d chunks", key, count)
	return nil, nil
}

func main() {
	client, err := cloudevents.NewClientHTTP(cloudevents.WithTarget(base + "/v1/tasks"))
	if err != nil {
		log.Fatal(err)
	}
	send := func(ctx context.Context, e event.Event) {
		result := client.Send(ctx, e)
		var answer *cehttp.Result
		if !cloudevents.ResultAs(result, &answer) || answer.StatusCode != http.StatusAccepted {
			log.Fatalf("%s: %v", e.ID(), result)
		}
	}
	var expected [][]byte
	for number := range 20 {
		data, _ := json.Marshal(map[string]int{"number": number})
		raw := bytes.Repeat([]byte{byte(number)}, 1000)
		ctx := context.Background()
		send(binding.WithForceBinary(ctx), newEvent(fmt.Sprintf("b-%d", number), "application/json", map[string]int{"number": number}))
		send(binding.WithForceStructured(ctx), newEvent(fmt.Sprintf("s-%d", number), "application/json", map[string]int{"number": number}))
		send(binding.WithForceStructured(ctx), newEvent(fmt.Sprintf("i-%d", number), "image/png", raw))
		expected = append(expected, data, data, raw)
	}
	batch := []event.Event{newEvent("a-1", "text/plain", "one"), newEvent("a-2", "text/plain", "two")}
	request, err := cehttp.NewHTTPRequestFromEvents(context.Background(), base+"/v1/tasks", batch)
	if err != nil {
		log.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	var results struct {
		Results []struct {
			Status string `json:"status"`
			ID     string `json:"id"`
		} `json:"results"`
	}
	if err := json.NewDecoder(answer.Body).Decode(&results); err != nil {
		log.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusAccepted || len(results.Results) != 2 ||
		results.Results[0].Status != "accepted" || results.Results[1].ID != "a-2" {
		log.Fatalf("%d: %+v", answer.StatusCode, results)
	}
	expected = append(expected, []byte("one"), []byte("two"))

	chunks, content := recorded(len(expected))
	for index, chunk := range chunks {
		piece := content[:chunk.Size]
		content = content[chunk.Size:]
		if !bytes.Equal(piece, expected[index]) {
			log.Fatalf("chunk %d is %q, not %q", index, piece, expected[index])
		}
	}
	fmt.Printf("go: %d events, in order\n", len(expected))
}
