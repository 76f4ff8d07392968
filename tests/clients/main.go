// Clients in Go that share no code with doseline, for its tests.
//
// Usage: clients kafka ADDRESS TOPIC COUNT | clients clickhouse HOST:PORT PASSWORD
package main

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	switch arguments := os.Args[2:]; os.Args[1] {
	case "kafka":
		err = useKafka(ctx, arguments[0], arguments[1], arguments[2])
	case "clickhouse":
		err = useClickHouse(ctx, arguments[0], arguments[1])
	default:
		err = fmt.Errorf("unknown command %q", os.Args[1])
	}
	if err != nil {
		log.Fatal(err)
	}
}

// useKafka produces a record with each codec, then reads the topic as a group from its beginning and prints the values.
func useKafka(ctx context.Context, address, topic, count string) error {
	for _, codec := range []kafka.Compression{compress.None, compress.Gzip, compress.Snappy, compress.Lz4, compress.Zstd} {
		writer := kafka.Writer{
			Addr: kafka.TCP(address), Topic: topic, Compression: codec, RequiredAcks: kafka.RequireAll,
			BatchTimeout: 10 * time.Millisecond,
		}
		value := fmt.Sprintf("kafka-go %d", codec)
		if err := writer.WriteMessages(ctx, kafka.Message{Value: []byte(value)}); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
		if err := writer.Close(); err != nil {
			return err
		}
	}
	records, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: []string{address}, GroupID: "kafka-go", Topic: topic, StartOffset: kafka.FirstOffset,
	})
	for ; records > 0; records-- {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return fmt.Errorf("%d records did not come: %w", records, err)
		}
		fmt.Println(string(message.Value))
	}
	return reader.Close()
}

// useClickHouse asks through database/sql over HTTP, as Grafana's plug-in does.
func useClickHouse(ctx context.Context, address, password string) error {
	options := clickhouse.Options{Addr: []string{address}, Protocol: clickhouse.HTTP}
	if password != "" {
		options.Auth = clickhouse.Auth{Username: "doseline", Password: password}
	}
	database := clickhouse.OpenDB(&options)
	defer database.Close()
	if err := database.PingContext(ctx); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	for name, method := range map[string]clickhouse.CompressionMethod{"lz4": clickhouse.CompressionLZ4, "gzip": clickhouse.CompressionGZIP} {
		options.Compression = &clickhouse.Compression{Method: method}
		if err := query(ctx, clickhouse.OpenDB(&options)); err != nil {
			return fmt.Errorf("query with %s: %w", name, err)
		}
	}
	return query(ctx, database)
}

func query(ctx context.Context, database *sql.DB) error {
	rows, err := database.QueryContext(ctx, `
		SELECT number, toString(number), toDateTime64('2026-01-02 03:04:05.678', 3, 'UTC'), if(number = 1, NULL, number),
			toLowCardinality('low'), [number, 2], map('k', number), CAST(1, 'Enum8(\'one\' = 1)'), tuple(1, 'x')
		FROM numbers(70000)`)
	if err != nil {
		return err
	}
	defer rows.Close()
	count := 0
	for rows.Next() {
		var number uint64
		var text, low, one string
		var at time.Time
		var nullable *uint64
		var list []uint64
		var entries map[string]uint64
		var pair any
		if err := rows.Scan(&number, &text, &at, &nullable, &low, &list, &entries, &one, &pair); err != nil {
			return err
		}
		if number != uint64(count) || text != strconv.Itoa(count) || at.UnixMilli() != 1767323045678 ||
			(nullable == nil) != (count == 1) || low != "low" || len(list) != 2 || list[0] != number ||
			entries["k"] != number || one != "one" {
			return fmt.Errorf("row %d is %v %q %v %v %q %v %v %q %v", count, number, text, at, nullable, low, list, entries, one, pair)
		}
		count++
	}
	if count != 70_000 {
		return fmt.Errorf("%d rows: %w", count, rows.Err())
	}
	return rows.Err()
}
