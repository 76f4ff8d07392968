// ClickHouse's JDBC driver, which shares no code with doseline: a time-out and a cancel end the
// query on the server, not only the wait of the client. The driver has two implementations. The
// newer one does not tell the server of a time-out, whichever server it is.
//
// Usage: java -cp clickhouse-jdbc.jar:slf4j-api.jar Jdbc.java HOST:PORT PASSWORD

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.Properties;

public class Jdbc {
    /** A minute of sleep, in blocks that can be ended. */
    private static final String SLOW =
        "SELECT sum(sleepEachRow(0.1)) FROM numbers(600) SETTINGS max_block_size = 1";
    private static final long SOON_MS = 30_000;

    public static void main(String[] arguments) throws Exception {
        Properties properties = new Properties();
        properties.setProperty("user", "doseline");
        properties.setProperty("password", arguments[1]);
        for (boolean first : new boolean[] {false, true}) {
            System.setProperty("clickhouse.jdbc.v1", String.valueOf(first));
            check(arguments[0], properties, first);
        }
    }

    private static void check(String address, Properties properties, boolean timesOut) throws Exception {
        try (Connection connection = DriverManager.getConnection("jdbc:clickhouse://" + address, properties)) {
            expect(70_000, number(connection, "SELECT count() FROM numbers(70000)"));
            if (timesOut) {
                try (Statement statement = connection.createStatement()) {
                    statement.setQueryTimeout(2);
                    ended("setQueryTimeout", "TIMEOUT_EXCEEDED", statement);
                }
                gone(connection);
            }
            try (Statement statement = connection.createStatement()) {
                Thread canceller = new Thread(() -> {
                    try {
                        while (running(connection) == 0) {
                            Thread.sleep(20);
                        }
                        statement.cancel();
                    } catch (SQLException | InterruptedException error) {
                        error.printStackTrace();
                    }
                });
                canceller.start();
                ended("cancel", "QUERY_WAS_CANCELLED", statement);
                canceller.join();
            }
            gone(connection);
            expect(3, number(connection, "SELECT 1 + 2"));
        }
    }

    private static void ended(String how, String reason, Statement statement) {
        long began = System.nanoTime();
        try {
            statement.executeQuery(SLOW).next();
            throw new AssertionError(how + " did not end the query");
        } catch (SQLException error) {
            long took = (System.nanoTime() - began) / 1_000_000;
            System.out.println(how + ": ended after " + took + " ms: " + error.getMessage());
            if (took > SOON_MS || !error.getMessage().contains(reason)) {
                throw new AssertionError(how + " took " + took + " ms: " + error.getMessage());
            }
        }
    }

    /** Waits until the server does not run the query any more. */
    private static void gone(Connection connection) throws Exception {
        long deadline = System.nanoTime() + SOON_MS * 1_000_000;
        while (running(connection) > 0) {
            if (System.nanoTime() > deadline) {
                throw new AssertionError("the server still runs the query");
            }
            Thread.sleep(50);
        }
    }

    private static long running(Connection connection) throws SQLException {
        return number(connection, "SELECT count() FROM system.processes WHERE query LIKE 'SELECT sum(sleep%'");
    }

    private static long number(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getLong(1);
        }
    }

    private static void expect(long expected, long found) {
        if (expected != found) {
            throw new AssertionError(found + ", not " + expected);
        }
    }
}
