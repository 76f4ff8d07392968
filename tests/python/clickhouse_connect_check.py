"""Uses a ClickHouse server through clickhouse-connect as any program would; exits non-zero at the first difference.

Usage: clickhouse_connect_check.py HOST PORT [PASSWORD]
"""

import datetime
import sys

import clickhouse_connect
from clickhouse_connect.driver.exceptions import DatabaseError

DATABASE = "clickhouse_connect_check"


def expect(got, wanted, what):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, wanted {wanted!r}")
    print(f"ok {what}")


def expect_error(action, code, what):
    try:
        action()
    except DatabaseError as error:
        expect(error.code, code, what)
        return
    sys.exit(f"{what}: no error")


def check_queries(client):
    expect(client.command("SELECT 41 + 1"), 42, "command")
    result = client.query("SELECT number AS n, toString(number) AS s FROM numbers(3)")
    expect(result.column_names, ("n", "s"), "column names")
    expect(result.result_rows, [(0, "0"), (1, "1"), (2, "2")], "rows")
    values = {"word": "it's \\ a\ttab", "day": datetime.date(2026, 2, 3), "list": [1, 2]}
    result = client.query("SELECT {word:String}, {day:Date}, {list:Array(UInt8)}", parameters=values)
    expect(result.result_rows, [(values["word"], values["day"], values["list"])], "server-side parameters")
    long = "x" * 20_000
    expect(client.query("SELECT {long:String}", parameters={"long": long}).result_rows, [(long,)], "long parameter")
    with client.query_row_block_stream("SELECT number FROM numbers(1000000)") as stream:
        expect(sum(len(block) for block in stream), 1_000_000, "streamed rows")
    raw = client.raw_query("SELECT 1 AS one FORMAT JSONEachRow")
    expect(raw, b'{"one":1}\n', "raw query")


def check_inserts(client):
    table = f"{DATABASE}.t"
    client.command(f"CREATE TABLE {table} (id UInt32, name LowCardinality(String), at DateTime64(3), size Nullable(Float64))"
                   " ENGINE = MergeTree ORDER BY id SETTINGS non_replicated_deduplication_window = 1000")
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, 678000)
    rows = [[1, "a", at, 1.5], [2, "b", at, None]]
    summary = client.insert(table, rows, column_names=["id", "name", "at", "size"])
    expect(summary.written_rows, 2, "written rows")
    expect(client.query(f"SELECT * FROM {table} ORDER BY id").result_rows, [tuple(row) for row in rows], "insert")
    for _ in range(2):
        client.insert("t", [[3, "c", at, 0.0]], column_names=["id", "name", "at", "size"], database=DATABASE,
                      settings={"insert_deduplication_token": "batch-3", "async_insert": 0})
    expect(client.command(f"SELECT count() FROM {table}"), 3, "deduplication token")
    client.raw_insert(table, column_names=["id", "name"], insert_block="4,d\n5,e\n", fmt="CSV")
    expect(client.command(f"SELECT count() FROM {table}"), 5, "raw insert")
    count = 200_000
    client.insert(table, [list(range(count)), ["x"] * count, [at] * count, [0.5] * count],
                  column_names=["id", "name", "at", "size"], column_oriented=True)
    expect(client.command(f"SELECT count() FROM {table}"), count + 5, "large insert")


def check_settings(client):
    value = "SELECT toUInt64(getSetting('max_block_size'))"
    before = client.command(value)
    expect(client.command(value, settings={"max_block_size": 77}), 77, "setting of one statement")
    expect(client.command(value), before, "setting does not stay")
    client.command("SET max_block_size = 78")
    expect(client.command(value), 78, "SET stays in the session")
    expect(client.command(value, settings={"max_block_size": 79}), 79, "setting within a session")
    expect(client.command(value), 78, "SET is back")
    client.command("CREATE TEMPORARY TABLE mine (a UInt8)")
    client.insert("mine", [[7]], column_names=["a"])
    expect(client.command("SELECT a FROM mine"), 7, "temporary table")
    expect_error(lambda: client.query("SELECT nosuch"), 47, "code of an unknown column")
    expect_error(lambda: client.query("SELECT * FROM nosuch"), 60, "code of an unknown table")
    expect_error(lambda: client.query("SELECT throwIf(number = 2500000) FROM numbers(3000000)"), 395, "error within a result")


def check_reader(host, port):
    """Without a password the client starts and reads."""
    client = clickhouse_connect.get_client(host=host, port=port)
    expect(client.query("SELECT number, toString(number) FROM numbers(2)").result_rows, [(0, "0"), (1, "1")], "reader")
    expect(client.command("SELECT {x:UInt8} + 1", parameters={"x": 4}), 5, "parameter of a reader")
    expect(client.command("SELECT getSetting('max_block_size')", settings={"max_block_size": 77}), 77, "setting of a reader")
    expect_error(lambda: client.command("CREATE DATABASE d"), 497, "a reader writes")
    client.close()


def main():
    host, port = sys.argv[1], int(sys.argv[2])
    password = sys.argv[3]
    check_reader(host, port)
    for compress in (True, False, "gzip", "zstd", "lz4"):
        client = clickhouse_connect.get_client(
            host=host, port=port, username="doseline", password=password, compress=compress
        )
        print(f"server {client.server_version}, compress={compress}")
        client.command(f"DROP DATABASE IF EXISTS {DATABASE} SYNC")
        client.command(f"CREATE DATABASE {DATABASE}")
        check_queries(client)
        check_inserts(client)
        check_settings(client)
        client.command(f"DROP DATABASE {DATABASE} SYNC")
        client.close()


if __name__ == "__main__":
    main()
