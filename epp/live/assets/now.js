// The pool at this moment, and what its requests got over the last hour.

import { lineChart } from "./charts.js";
import { el, number, percent, setText } from "./dom.js";
import { poolTable } from "./pool_table.js";

export function nowView(host, { step_s: stepS }) {
  const by = el("select", { onchange: () => draw(), "aria-label": "Lines by" }, el("option", { value: "profile" }, "profile"), el("option", { value: "objective" }, "objective"));
  const [attainment, rates, sources] = [el("div"), el("div"), el("div")];
  const refused = el("p", { class: "faint" });
  const pool = poolTable();
  host.append(
    el("div", { class: "cards" },
      card("Requests that met their objectives", el("label", { class: "row" }, "by", by), attainment),
      card("Requests a second", rates),
      card("Requests by source of prediction", sources, refused)),
    el("h2", {}, "Endpoints"),
    pool.node,
  );
  const drawAttainment = lineChart(attainment, { title: "Share of requests that met their objectives", format: (share) => percent(share, 0), max: 1 });
  const drawRates = lineChart(rates, { title: "Requests a second", format: (rate) => number(rate, 1) });
  const drawSources = lineChart(sources, { title: "Requests a second by source of prediction", format: (rate) => number(rate, 1) });
  let news = null;

  function draw() {
    if (!news || host.hidden) return;
    pool.take(news.pool);
    const steps = news.steps;
    const times = steps.map((step) => step.at);
    drawAttainment(times, attained(steps, by.value));
    const ended = steps.map((step) => sum(step.groups, "requests") / stepS);
    drawRates(times, { ended, ...goodput(steps, by.value, stepS) });
    drawSources(times, perSource(steps, stepS));
    setText(refused, refusals(steps));
  }

  return {
    take(told) {
      news = told;
      draw();
    },
    opened: draw,
  };
}

const card = (title, ...children) => el("section", { class: "card" }, el("h2", {}, title), ...children);
const sum = (groups, key) => groups.reduce((all, group) => all + group[key], 0);

// Lines by profile or objective, where there are judged requests; `value` takes a step's groups of one name.
function lines(steps, key, value, title) {
  const names = [...new Set(steps.flatMap((step) => step.groups.filter((group) => group.judged).map((group) => group[key])))].sort();
  const line = (name) => steps.map((step) => value(step.groups.filter((group) => group[key] === name)));
  return Object.fromEntries(names.map((name) => [title(name || "(none)"), line(name)]));
}

function attained(steps, key) {
  const share = (groups) => (sum(groups, "judged") ? sum(groups, "met") / sum(groups, "judged") : null);
  return lines(steps, key, share, (name) => name);
}

const goodput = (steps, key, stepS) => lines(steps, key, (groups) => sum(groups, "met") / stepS, (name) => `met, ${name}`);

function perSource(steps, stepS) {
  const names = [...new Set(steps.flatMap((step) => Object.keys(step.sources)))].sort();
  return Object.fromEntries(names.map((name) => [name, steps.map((step) => (step.sources[name] ?? 0) / stepS)]));
}

function refusals(steps) {
  const counts = {};
  for (const step of steps) for (const [reason, count] of Object.entries(step.refused)) counts[reason] = (counts[reason] ?? 0) + count;
  const told = Object.entries(counts).map(([reason, count]) => `${number(count)} ${reason}`);
  return told.length ? `Refused in the last hour: ${told.join(", ")}` : "Nothing was refused in the last hour.";
}
