// The models: their generations, how good they are on rows that they haven't seen, what they look at, what was refused.

import { lineChart, scatter } from "./charts.js";
import { age, call, clock, el, ms, number, percent, setText, table } from "./dom.js";

const TARGETS = ["ttft", "tpot"];
const EVERY_MS = 5000;
const PAIRS = 400;

export function modelsView(host) {
  const status = el("p");
  const problem = el("p", { class: "bad", role: "alert" });
  const [errors, coverage] = [el("div"), el("div")];
  const effects = el("div", { class: "cards" });
  const pairs = el("div", { class: "cards" });
  const passes = el("div");
  host.append(
    status, problem,
    el("div", { class: "cards" },
      el("section", { class: "card" }, el("h2", {}, "Median error on held-out rows"), errors),
      el("section", { class: "card" }, el("h2", {}, "Held-out rows below what is predicted"), coverage)),
    el("h2", {}, "What each feature changes"), effects,
    el("h2", {}, "Predicted and observed, newest requests"), pairs,
    el("h2", {}, "Training passes"), passes,
  );
  const drawErrors = lineChart(errors, { title: "Median error on held-out rows", format: (share) => percent(share, 0) });
  const drawCoverage = lineChart(coverage, { title: "Share of held-out rows below what is predicted", format: (share) => percent(share, 0), max: 1 });
  let readAt = 0;

  async function read() {
    if (host.hidden || Date.now() - readAt < EVERY_MS) return;
    readAt = Date.now();
    try {
      const [told, { decisions }] = await Promise.all([call("models"), call(`decisions?limit=${PAIRS}`)]);
      setText(problem, "");
      draw(told, decisions);
    } catch (error) {
      setText(problem, error.message);
    }
  }

  function draw({ generation, passes: all }, decisions) {
    const published = all.filter((pass) => pass.outcome === "published");
    const newest = published.at(-1);
    setText(status, newest
      ? `Generation ${generation}, published ${age(Date.now() / 1000 - Date.parse(newest.at) / 1000)} ago, learnt from ${TARGETS.map((name) => `${number(newest.models[name]?.train_samples)} rows of ${name.toUpperCase()}`).join(" and ")}. ${aim(newest)}`
      : generation == null ? "No model has been published yet." : `Generation ${generation}, published before the trainer's start.`);
    const times = published.map((pass) => Date.parse(pass.at) / 1000);
    drawErrors(times, linesOf(published, medianError));
    drawCoverage(times, linesOf(published, (model) => model.scores.coverage));
    const models = Object.entries(newest?.models ?? {});
    effects.replaceChildren(...models.map(([name, model]) => effectsCard(name, model.effects)));
    pairs.replaceChildren(...TARGETS.map((name) => pairsCard(name, decisions)));
    passes.replaceChildren(passesTable(all));
  }

  return { take: read, opened: () => { readAt = 0; read(); } };
}

// Of several outputs, the median's error is what a reader expects of a prediction.
const medianError = (model) => model.scores[Object.keys(model.scores).find((name) => /^mdape_.*p50/.test(name)) ?? "mdape"];

function aim(pass) {
  const quantile = Object.values(pass.models)[0]?.quantile;
  return quantile == null ? "" : `${percent(quantile, 0)} of the requests should stay below what is predicted.`;
}

function linesOf(passes, score) {
  return Object.fromEntries(TARGETS.map((name) => [name.toUpperCase(), passes.map((pass) => (pass.models[name] ? score(pass.models[name]) ?? null : null))]));
}

function effectsCard(name, effects) {
  const all = Object.entries(effects).sort((one, other) => other[1] - one[1]);
  const most = all[0]?.[1] || 1;
  const rows = all.map(([feature, share]) => {
    const bar = el("span", { class: "bar", "aria-hidden": "true" });
    bar.style.width = `${(8 * share) / most}rem`;
    return el("tr", {}, el("th", { scope: "row", class: "left" }, feature), el("td", { class: "left" }, bar, ` ${percent(share)}`));
  });
  return el("section", { class: "card" }, el("h3", {}, `${name.toUpperCase()}: mean change if its values are exchanged between rows`), table(["feature", "change"], rows, `Effects on ${name}`));
}

function pairsCard(name, decisions) {
  const found = decisions
    .map((one) => [one[`predicted_${name}_median_ms`] ?? one[`predicted_${name}_ms`], one[`${name}_ms`]])
    .filter(([predicted, observed]) => predicted > 0 && observed > 0);
  const title = `${name.toUpperCase()}: ${number(found.length)} requests`;
  return el("section", { class: "card" }, el("h3", {}, title), found.length ? scatter(found, title) : el("p", { class: "faint" }, "No request was predicted and observed yet."));
}

function passesTable(passes) {
  const rows = passes.slice(-60).reverse().map((pass) =>
    el("tr", {},
      el("th", { scope: "row", class: "left" }, clock(Date.parse(pass.at) / 1000)),
      el("td", { class: pass.outcome === "published" ? "good" : "bad" }, pass.generation == null ? pass.outcome : `${pass.outcome} ${pass.generation}`),
      ...TARGETS.map((name) => el("td", {}, pass.models[name] ? `${number(pass.models[name].train_samples)} rows, ${percent(medianError(pass.models[name]), 0)}` : "–")),
      el("td", {}, ms(1000 * pass.seconds)),
      el("td", { class: "left" }, pass.reason)));
  return table(["at", "outcome", "TTFT", "TPOT", "took", "reason"], rows, "Training passes, the newest first");
}
