// A deep link of every page of the demo: what `doseline up --simulate 25` has planted.
import { sql, value } from "./browser.mjs";

const link = (...parts) => `/${parts.map(encodeURIComponent).join("/")}`;

/** Name and address of each page. */
export async function addresses() {
  const [pen] = await sql("SELECT tenant, device, alert_key FROM open_alerts WHERE kind = 'accuracy-verdict' LIMIT 1");
  const [breach] = await sql("SELECT tenant, sessions[1] AS session, item_id FROM sterility_breaches WHERE rule = 4 LIMIT 1");
  const [cycle] = await sql("SELECT tenant, cycle_uid FROM cycle_verdicts WHERE verdict = 'FAILED' LIMIT 1");
  const item = await value(`SELECT item_key FROM item_history WHERE item_id = '${breach.item_id}' LIMIT 1`);
  return {
    today: "/",
    fleet: "/fleet",
    device: link("devices", pen.tenant, pen.device),
    session: link("sessions", breach.tenant, breach.session),
    sterility: "/sterility",
    cycle: link("cycles", cycle.tenant, cycle.cycle_uid),
    trace: link("trace", breach.tenant, "item", item),
    recall: link("recall", cycle.tenant, "cycle", cycle.cycle_uid),
    alerts: "/alerts",
    alert: link("alerts", pen.tenant, pen.alert_key),
    manufacturer: "/manufacturer",
    pipeline: "/pipeline",
    audit: `/audit?tenant=${pen.tenant}&device=${pen.device}`,
    search: "/search?q=inj-0001",
  };
}
