// pgx: the line of docs/clients.md is a URL, and the document has the code that makes the pool's configuration.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	times, err := strconv.Atoi(os.Getenv("TIMES"))
	if err != nil {
		panic(err)
	}
	pool, err := open(os.Args[1])
	if err != nil {
		panic(err)
	}
	for range times {
		if issuer, err := connect(pool); err != nil {
			fmt.Println("pgx failed", strings.Join(strings.Fields(err.Error()), " "))
		} else {
			fmt.Println("pgx ok", issuer)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// One pool, as programs have it.
func open(url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	config.BeforeConnect = func(_ context.Context, conn *pgx.ConnConfig) error {
		fresh, err := pgx.ParseConfig(url)
		if err == nil {
			conn.Config = fresh.Config
		}
		return err
	}
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(context.Background(), config)
}

// The connection is taken out of the pool, so that the next one is new.
func connect(pool *pgxpool.Pool) (issuer string, err error) {
	ctx := context.Background()
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return "", err
	}
	conn := pooled.Hijack()
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, os.Getenv("QUERY")).Scan(&issuer)
	return issuer, err
}
