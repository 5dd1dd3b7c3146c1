// Questions about a request that isn't sent: what each endpoint would take for it, and which would be picked.

import { call, debounced, el, ms, number, percent, setText } from "./dom.js";
import { candidatesTable } from "./explained.js";

const SLIDERS = [
  { key: "input_tokens", title: "Prompt", least: 1, most: 131072, start: 1000, text: (value) => `${number(value)} tokens` },
  { key: "cached", title: "Share in cache", least: 0, most: 1, start: 0, text: (value) => percent(value, 0) },
  { key: "slo_ttft_ms", title: "TTFT objective", least: 20, most: 120000, start: 2000, text: ms, mayLack: true },
  { key: "slo_tpot_ms", title: "TPOT objective", least: 2, most: 1000, start: 50, text: ms, mayLack: true },
];
const STEPS = 1000;
const PAUSE_MS = 150;

export function askView(host, state) {
  const answer = el("div", { "aria-live": "polite" });
  const cachedOn = el("select", { onchange: () => later() });
  const sliders = SLIDERS.map((slider) => field(slider, () => later()));
  const problem = el("p", { class: "bad", role: "alert" });
  host.append(
    el("p", { class: "faint" }, "Nothing is sent to a server. Predictions are those of this moment."),
    el("section", { class: "card row", "aria-label": "The request" }, ...sliders.map((one) => one.node), el("label", { class: "field" }, "cached on", cachedOn)),
    problem,
    answer,
  );
  offerEndpoints(cachedOn, state.pool.name);
  const later = debounced(ask, PAUSE_MS);
  let asked = 0;

  async function ask() {
    const number = ++asked;
    const body = Object.fromEntries(sliders.map((one) => [one.key, one.value()]));
    try {
      const told = await call("ask", { ...body, cached_on: cachedOn.value });
      if (number !== asked) return;
      setText(problem, told.refused ? `It would be refused: ${told.refused}` : "");
      if (told.decision) answer.replaceChildren(...answered(told.decision));
    } catch (error) {
      setText(problem, error.message);
    }
  }

  return {
    take(told) {
      offerEndpoints(cachedOn, told.pool.name);
      if (!host.hidden && !answer.childElementCount) later();
    },
    opened: ask,
  };
}

function answered(decision) {
  const source = decision.prediction
    ? `Predicted by ${decision.prediction.source}, generation ${decision.prediction.generation}.`
    : `There are no predictions: ${decision.prediction_error}.`;
  return [
    el("h2", { id: "ask-choice" }, `${decision.endpoint} would be picked, by profile ${decision.profile}`),
    el("p", { class: "faint" }, `${source} A bar reaches from the median to the upper quantile; the dashed line is the objective.`),
    candidatesTable(decision),
  ];
}

function field({ key, title, least, most, start, text, mayLack }, changed) {
  const isLogarithmic = least > 0;
  const toValue = (place) => (isLogarithmic ? least * (most / least) ** (place / STEPS) : (least + (most - least) * place / STEPS));
  const toPlace = (value) => STEPS * (isLogarithmic ? Math.log(value / least) / Math.log(most / least) : (value - least) / (most - least));
  const input = el("input", { type: "range", min: 0, max: STEPS, value: toPlace(start), "aria-label": title, id: `ask-${key}` });
  const lacks = el("input", { type: "checkbox" });
  const shown = el("output", { for: `ask-${key}` });
  const value = () => {
    if (lacks.checked) return null;
    const found = toValue(Number(input.value));
    return key === "cached" ? Number(found.toFixed(3)) : Math.max(Math.round(found), least);
  };
  const tell = () => {
    setText(shown, value() == null ? "none" : text(value()));
    input.setAttribute("aria-valuetext", shown.textContent);
    input.disabled = lacks.checked;
    changed();
  };
  input.addEventListener("input", tell);
  lacks.addEventListener("change", tell);
  setText(shown, text(start));
  const without = mayLack ? el("label", { class: "faint" }, lacks, " none") : null;
  return { key, value, node: el("div", {}, el("label", { class: "field" }, el("span", {}, `${title}: `, shown), input), without) };
}

function offerEndpoints(select, names) {
  if (select.options.length === names.length + 1 && names.every((name, i) => select.options[i + 1].value === name)) return;
  const chosen = select.value;
  select.replaceChildren(el("option", { value: "" }, "all endpoints"), ...names.map((name) => el("option", { value: name }, name)));
  select.value = names.includes(chosen) ? chosen : "";
}
