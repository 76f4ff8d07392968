/** Rows of the interface that pages name. */
export type Overview = {
  devices: number; devices_online: number; injections_today: number; sessions_today: number; made: number; stored: number; missing: number; lost: number;
  alerts_critical: number; alerts_high: number; alerts_other: number; quarantined_today: number; last_received_at: string | null; latency_p50_ms: number | null;
  latency_p99_ms: number | null; injections_per_min: number; now: string;
};
