/** Rows of the interface that pages name. */
export type Overview = {
  devices: number; devices_online: number; injections_today: number; sessions_today: number; made: number; stored: number; missing: number; lost: number;
  alerts_critical: number; alerts_high: number; alerts_other: number; quarantined_today: number; last_received_at: string | null; latency_p50_ms: number | null;
  latency_p99_ms: number | null; injections_per_min: number; now: string;
};
export type FleetDevice = {
  tenant: string; site: string; device: string; registration: string; kind: string; model: string; manufacturer: string; serial: string; gateway: string; firmware: string;
  state: string; state_since: string | null; battery_pct: number | null; outbox_events: number | null; injection_no: number | null; last_seen: string | null; open_gaps: number;
  missing_events: number; lost_events: number; alerts: number; worst_severity: string; dose_state: string; depth_state: string; dose_error_pct: number | null; drift_state: string;
  crossing_at: string | null; breaches: number; due_at: string | null; days_left: number | null; made: number; stored: number; missing: number; spark: (number | null)[];
};
export type Evidence = { at: string; device: string; session_id: string; what: string; value: number | null; limit_value: number | null; unit: string };
export type AlertDelivery = { at: string; target: string; status: string; severity: string; fingerprint: string; alert_key: string };
export type Hit = { rank: number; kind: string; tenant: string; site: string; id: string; title: string; at: string | null };
