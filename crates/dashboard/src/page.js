"use strict";
const element = (name, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
};
const number = value => value === null ? "–" : Number(value).toLocaleString("en");
const fixed = digits => value => value === null ? "–" : Number(value).toFixed(digits);
const ago = value => {
  if (value === null) return "never";
  const seconds = Math.max(0, Date.now() / 1000 - Number(value));
  if (seconds < 90) return `${seconds.toFixed(0)} s ago`;
  if (seconds < 5400) return `${(seconds / 60).toFixed(0)} min ago`;
  return seconds < 129600 ? `${(seconds / 3600).toFixed(0)} h ago` : `${(seconds / 86400).toFixed(0)} d ago`;
};
const get = async panel => {
  const tenant = document.getElementById("tenant").value;
  const response = await fetch(`api/${panel}?tenant=${encodeURIComponent(tenant)}`);
  if (response.status === 401) location.assign("login");
  if (!response.ok) throw new Error(`${panel}: ${(await response.json()).detail}`);
  return (await response.json()).data;
};
const table = (id, rows, empty, columns) => {
  const target = document.getElementById(id);
  if (rows.length === 0) return target.replaceChildren(element("p", { className: "empty", textContent: empty }));
  const head = element("tr", {}, ...columns.map(([title, , format]) =>
    element("th", { textContent: title, scope: "col", className: format ? "number" : "" })));
  const body = rows.map(row => element("tr", {}, ...columns.map(([, key, format, bad]) => element("td", {
    textContent: format ? format(row[key]) : row[key],
    className: `${format ? "number" : ""} ${bad && bad(row) ? "bad" : ""}`,
  }))));
  target.replaceChildren(element("table", {}, element("thead", {}, head), element("tbody", {}, ...body)));
};
const figures = overview => {
  const list = [
    ["injections stored", number(overview.injections)],
    ["in the last minute", number(overview.injections_last_minute)],
    ["devices seen", number(overview.devices)],
    ["online", number(overview.devices_online)],
    ["not arrived", number(overview.missing), overview.missing > 0],
    ["declared lost", number(overview.lost), overview.lost > 0],
    ["in quarantine", number(overview.quarantined), overview.quarantined > 0],
  ];
  document.getElementById("figures").replaceChildren(...list.map(([title, value, bad]) => element("div", {},
    element("dt", { textContent: title }), element("dd", { textContent: value, className: bad ? "bad" : "" }))));
};
const minutes = rows => {
  const target = document.getElementById("minutes");
  if (rows.length === 0) {
    target.replaceChildren(element("p", { className: "empty", textContent: "No injection in the last hour." }));
    return;
  }
  const most = Math.max(...rows.map(row => Number(row.injections)));
  const node = (name, attributes, text = "") => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return made;
  };
  const svg = node("svg", { viewBox: "0 0 600 105", preserveAspectRatio: "none", role: "img", "aria-label": `at most ${most} a minute` });
  for (const row of rows) {
    const height = 100 * Number(row.injections) / most;
    const bar = node("rect", { x: 590 - 10 * Number(row.minutes_ago), y: 105 - height, width: 8, height });
    bar.append(node("title", {}, `${row.minute} UTC: ${number(row.injections)}`));
    svg.append(bar);
  }
  const caption = ["1 h ago", `highest: ${number(most)} a minute`, "now"].map(text => element("span", { textContent: text }));
  target.replaceChildren(svg, element("div", { className: "caption" }, ...caption));
};
const tenants = rows => {
  const select = document.getElementById("tenant"), chosen = select.value;
  select.replaceChildren(element("option", { value: "", textContent: "all" }),
    ...rows.map(row => element("option", { value: row.tenant, textContent: row.tenant })));
  select.value = chosen;
};
const refresh = async () => {
  const state = document.getElementById("state");
  try {
    const [all, overview, perMinute, fleet, gaps, quarantine, alerts] = await Promise.all(
      ["tenants", "overview", "minutes", "fleet", "gaps", "quarantine", "alerts"].map(get));
    tenants(all);
    figures(overview[0]);
    minutes(perMinute);
    table("fleet", fleet, "No device has been seen yet.", [
      ["tenant", "tenant"], ["site", "site"], ["device", "device"], ["model", "model"],
      ["state", "state", null, row => row.state === "LOST"], ["last arrival", "last_arrival_s", ago],
      ["injections today", "injections", number], ["dose error %", "dose_error_pct", fixed(2)],
      ["depth error um", "depth_error_um", fixed(0)], ["not arrived", "missing", number, row => row.missing > 0],
    ]);
    table("gaps", gaps, "Nothing is missing.", [
      ["tenant", "tenant"], ["site", "site"], ["device", "device"], ["boot", "boot_id"],
      ["first", "first_missing", number], ["last", "last_missing", number], ["state", "state"], ["since", "since_s", ago],
    ]);
    table("quarantine", quarantine, "Nothing is in quarantine.", [
      ["received", "received_s", ago], ["reason", "reason"], ["detail", "detail"], ["topic", "topic"], ["from", "source"],
    ]);
    table("alerts", alerts, "Nothing waits for anybody.", [
      ["severity", "severity", null, row => row.severity === "critical"], ["tenant", "tenant"], ["site", "site"],
      ["device", "device"], ["what", "title"], ["visits", "visits", number], ["raised", "raised_s", ago], ["key", "alert_key"],
    ]);
    state.className = "";
    state.textContent = `as of ${new Date().toLocaleTimeString()}`;
  } catch (error) {
    state.className = "bad";
    state.textContent = String(error.message);
  }
  setTimeout(refresh, 3000);
};
document.getElementById("tenant").addEventListener("change", () => document.getElementById("state").textContent = "loading …");
const askWhoAsks = async () => {
  const response = await fetch("api/v1/me");
  document.getElementById("leave").hidden = !(response.ok && (await response.json()).signed_in);
};
askWhoAsks();
refresh();
