// Policies under the same load, as a command measures them while this page is open.

import { lineChart } from "./charts.js";
import { call, el, ms, number, percent, setText, table } from "./dom.js";

const EVERY_MS = 2000;

export function compareView(host) {
  const problem = el("p", { class: "faint", role: "status" });
  const attainment = el("div");
  const figures = el("div");
  host.append(
    el("p", {}, "The same requests under each policy. Time counts from the start of a policy's turn."),
    problem,
    el("section", { class: "card" }, el("h2", {}, "Requests that met their objectives so far"), attainment),
    figures,
  );
  const draw = lineChart(attainment, { title: "Share of requests that met their objectives so far", format: (share) => percent(share, 0), max: 1, isTime: false });
  let readAt = 0;

  async function read() {
    if (host.hidden || Date.now() - readAt < EVERY_MS) return;
    readAt = Date.now();
    try {
      const { policies } = await call("comparison");
      setText(problem, "");
      const times = [...new Set(policies.flatMap((policy) => policy.at_s))].sort((one, other) => one - other);
      draw(times, Object.fromEntries(policies.map((policy) => [policy.name, times.map((at) => policy.attained[policy.at_s.indexOf(at)] ?? null)])));
      figures.replaceChildren(figuresTable(policies));
    } catch (error) {
      setText(problem, error.message);
    }
  }

  return { take: read, opened: () => { readAt = 0; read(); } };
}

function figuresTable(policies) {
  const rows = policies.map((policy) =>
    el("tr", {},
      el("th", { scope: "row", class: "left" }, policy.name),
      el("td", {}, policy.is_done ? "ended" : policy.requests ? "running" : "waiting"),
      el("td", {}, number(policy.requests)), el("td", {}, percent(policy.attainment)), el("td", {}, ms(policy.ttft_p95_ms)), el("td", {}, ms(policy.tpot_p95_ms))));
  return table(["policy", "turn", "requests", "met objectives", "TTFT p95", "TPOT p95"], rows, "Policies");
}
