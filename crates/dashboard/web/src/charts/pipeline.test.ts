import { describe, expect, it } from "vitest";
import { pipelineMinutes, stations, type Minute, type Overview, type Role } from "./pipeline";

const NOW = "2026-12-01T01:00:00.000000Z";
const ago = (s: number) => new Date(Date.parse(NOW) - s * 1000).toISOString();
const OVERVIEW: Overview = {
  devices: 10, devices_online: 9, injections_today: 100, made: 1000, stored: 1000, missing: 0, lost: 0, quarantined_today: 0,
  last_received_at: ago(3), latency_p50_ms: 200, latency_p99_ms: 900, injections_per_min: 12, now: NOW,
};
const role = (role: string, state: string, since: string | null, detail = ""): Role => ({ role, subject: "", state, since, detail });
const RUNNING = [role("load", "COMMITTED", ago(2)), role("monitor", "PASSED", ago(20)), role("monitor", "PASSED", ago(40))];
const levels = (overview: Partial<Overview>, roles: Role[] | undefined = RUNNING) =>
  Object.fromEntries(stations({ ...OVERVIEW, ...overview }, roles, []).filter(({ level }) => level !== "fine").map(({ name, level }) => [name, level]));

describe("the stations of the pipeline", () => {
  it("are quiet while all runs, also for those who may not see roles", () => {
    expect(levels({})).toEqual({});
    expect(levels({}, undefined)).toEqual({});
    expect(stations(OVERVIEW, RUNNING, []).map(({ name }) => name)).toEqual(["device", "broker", "bridge", "kafka", "loader", "clickhouse", "monitor"]);
  });
  it("mark the loader when it is behind the bridge, not when nothing arrives", () => {
    expect(levels({}, [role("load", "COMMITTED", ago(120))])).toEqual({ loader: "stop" });
    expect(levels({ last_received_at: ago(119) }, [role("load", "COMMITTED", ago(120))])).toEqual({});
  });
  it("mark the monitor by its slower half", () => {
    expect(levels({}, [...RUNNING, role("monitor", "PASSED", ago(300))])).toEqual({ monitor: "stop" });
  });
  it("mark a role that has a fault, and say which", () => {
    const roles = [...RUNNING, role("bridge", "FAULT", null, "no broker")];
    expect(levels({}, roles)).toEqual({ bridge: "stop" });
    expect(stations(OVERVIEW, roles, []).find(({ name }) => name === "bridge")?.state).toContain("no broker");
  });
  it("mark silence only while devices are online", () => {
    expect(levels({ last_received_at: ago(3600) })).toEqual({ broker: "look", bridge: "look" });
    expect(levels({ last_received_at: ago(3600), devices_online: 0 })).toEqual({});
    expect(levels({ last_received_at: null })).toEqual({ broker: "look", bridge: "look" });
  });
  it("mark devices whose events are missing", () => {
    expect(levels({ missing: 8 })).toEqual({ device: "look" });
  });
});

it("draws minutes in seconds and per minute, and breaks the line where there is no latency", () => {
  const minute = (at: string, more: Partial<Minute> = {}): Minute => ({ minute: `2026-12-01T00:${at}:00Z`, injections: 5, events: 20, latency_p50_ms: 250, latency_p99_ms: 1500, quarantined: 0, ...more });
  const rows = [minute("01"), minute("02", { injections: 0, events: 0, latency_p50_ms: null, latency_p99_ms: null }), minute("03", { quarantined: 2 })];
  const { series } = pipelineMinutes(rows, token => token) as unknown as { series: { data: unknown[] }[] };
  expect(series.map(({ data }) => data)).toEqual([[5, 0, 5], [20, 0, 20], [[2, 2]], [0.25, null, 0.25], [1.5, null, 1.5]]);
});
