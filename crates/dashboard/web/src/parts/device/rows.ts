/** Rows of endpoints of a device that `schema.ts` does not have yet. */
export type Fault = { at: string; boot_id: string; seq: number; session_id: string; code: string; state: string; detail: string };
export type Balance = {
  mount_id: string; item_id: string; slot: string; mounted_at: string | null; removed_at: string | null; fill_nl: number | null; primed_nl: number | null;
  residual_nl: number | null; residual_source: string; injections: number; delivered_n: number; delivered_nl: number; balance_nl: number | null; balance_pct: number | null;
};
/** A line of the audit sheet. */
export type AuditLine = {
  at: string; site: string; device: string; what: string; channel: string; title: string; certificate: string; as_found_error_pct: number | null;
  as_left_error_pct: number | null; uncertainty_pct: number | null; due_at: string | null; severity: string; actor: string; note: string;
};
