// A decision's candidates: predictions beside objectives, what a placement is worth, scores, and who was chosen.

import { el, ms, number, percent, table } from "./dom.js";

// Rows of a table. The best come first, so that the rest would only be scrolled past.
const MOST_ROWS = 50;
const LATENCIES = [["TTFT", "ttft"], ["TPOT", "tpot"]];

export function candidatesTable(decision) {
  const candidates = [...decision.candidates].sort((one, other) => (other.score ?? -Infinity) - (one.score ?? -Infinity));
  const shown = candidates.slice(0, MOST_ROWS);
  const chosen = candidates.find((one) => one.endpoint === decision.endpoint);
  if (chosen && !shown.includes(chosen)) shown.push(chosen);
  const scorers = Object.keys(decision.weights);
  const hasPredictions = candidates.some((one) => one.predicted);
  const hasWorth = candidates.some((one) => one.worth);
  const mostOf = Object.fromEntries(LATENCIES.map(([, key]) => [key, most(shown, key, decision[`slo_${key}_ms`])]));
  const heads = [
    "candidate", "waiting", "running", "KV cache", "cached",
    ...(hasPredictions ? ["TTFT", "TPOT"] : []),
    ...(hasWorth ? ["gains", "others lose", "worth"] : []),
    ...scorers.map((name) => `${name} × ${number(decision.weights[name], 2)}`),
    "score",
  ];
  const rows = shown.map((one) => {
    const features = one.features;
    const cells = [
      number(features.num_request_waiting), number(features.num_request_running),
      percent(features.kv_cache_percentage, 0), percent(features.prefix_cache_score, 0),
    ].map((text) => el("td", {}, text));
    if (hasPredictions) for (const [, key] of LATENCIES) cells.push(el("td", { class: "left" }, range(one.predicted, key, decision[`slo_${key}_ms`], mostOf[key])));
    if (hasWorth) for (const key of ["gained", "lost", "total"]) cells.push(el("td", {}, number(one.worth?.[key], 3)));
    for (const name of scorers) cells.push(el("td", {}, number(one.scores?.[name], 3)));
    cells.push(el("td", {}, one.filtered ? "left out by a filter" : number(one.score, 3)));
    const isChosen = one.endpoint === decision.endpoint;
    const name = el("th", { scope: "row", class: "left" }, isChosen ? `→ ${one.endpoint}` : one.endpoint);
    return el("tr", { class: isChosen ? "chosen" : one.filtered ? "filtered" : "" }, name, ...cells);
  });
  const more = candidates.length - shown.length;
  return el("div", {}, table(heads, rows, "Candidates, the best first"), more ? el("p", { class: "faint" }, `and ${number(more)} more`) : null);
}

function most(candidates, key, sloMs) {
  const values = candidates.map((one) => one.predicted?.[`${key}_ms`] ?? 0);
  return Math.max(...values, sloMs ?? 0) * 1.05 || 1;
}

function range(predicted, key, sloMs, mostMs) {
  if (!predicted) return "–";
  const upperMs = predicted[`${key}_ms`];
  const medianMs = predicted[`${key}_median_ms`] ?? upperMs;
  const bar = el("span", { class: "range", "aria-hidden": "true" });
  const whole = el("i");
  whole.style.left = `${(100 * medianMs) / mostMs}%`;
  whole.style.width = `${(100 * Math.max(upperMs - medianMs, 0)) / mostMs}%`;
  bar.append(whole);
  if (sloMs != null) {
    const line = el("b");
    line.style.left = `${Math.min((100 * sloMs) / mostMs, 100)}%`;
    bar.append(line);
  }
  const text = upperMs === medianMs ? ms(upperMs) : `${ms(medianMs)} to ${ms(upperMs)}`;
  return el("span", {}, bar, " ", el("span", { class: sloMs != null && upperMs > sloMs ? "bad" : "" }, text, sloMs != null && upperMs > sloMs ? " (late)" : ""));
}
