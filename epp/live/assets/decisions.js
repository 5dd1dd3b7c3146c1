// The stream of decisions. One that is opened is explained, and decided again under other conditions.

import { call, clock, el, ms, number, setText, table } from "./dom.js";
import { candidatesTable } from "./explained.js";

export function decisionsView(host, state) {
  const list = el("tbody");
  const pause = el("input", { type: "checkbox", id: "pause" });
  const missed = el("input", { type: "checkbox", id: "missed", onchange: () => draw() });
  const asked = el("input", { type: "search", placeholder: "x-request-id", "aria-label": "Open the decision of this request" });
  const problem = el("p", { class: "bad", role: "alert" });
  const detail = el("section", { class: "card", "aria-label": "The decision", tabindex: -1, hidden: true });
  const heads = ["request", "at", "endpoint", "profile", "tokens", "TTFT seen / predicted", "TPOT seen / predicted", "objectives"];
  const shownTable = table(heads, [], "Newest decisions");
  shownTable.querySelector("tbody").replaceWith(list);
  host.append(
    el("form", { class: "row", onsubmit: (event) => { event.preventDefault(); open(asked.value.trim()); } },
      asked, el("button", {}, "Explain"),
      el("label", {}, pause, " pause"), el("label", {}, missed, " missed objectives only")),
    problem, detail, shownTable,
  );
  let decisions = [];

  function draw() {
    if (host.hidden) return;
    const wanted = missed.checked ? decisions.filter((one) => one.is_met === false) : decisions;
    list.replaceChildren(...wanted.map((one) => summaryRow(one, open)));
  }

  async function open(requestId) {
    if (!requestId) return;
    try {
      const told = await call("what-if", { request_id: requestId });
      setText(problem, "");
      detail.hidden = false;
      detail.replaceChildren(...explained(told.was, state, requestId));
      detail.focus();
    } catch (error) {
      setText(problem, error.message);
    }
  }

  return {
    take(told) {
      // The row that has the keyboard's focus must not vanish.
      if (pause.checked || list.contains(document.activeElement)) return;
      decisions = told.decisions;
      draw();
    },
    opened: draw,
  };
}

function summaryRow(one, open) {
  const verdict = one.is_met == null ? "–" : one.is_met ? "met" : "missed";
  const latency = (key) => `${ms(one[`${key}_ms`])} / ${ms(one[`predicted_${key}_median_ms`] ?? one[`predicted_${key}_ms`])}`;
  return el("tr", {},
    el("th", { scope: "row", class: "left" }, el("button", { type: "button", onclick: () => open(one.request_id) }, one.request_id.slice(0, 18))),
    ...[clock(one.decided_at), one.endpoint, one.profile, number(one.input_tokens), latency("ttft"), latency("tpot")].map((text) => el("td", {}, text)),
    el("td", { class: one.is_met === false ? "bad" : one.is_met ? "good" : "" }, verdict));
}

function explained({ decision, words }, state, requestId) {
  // The words' last part is the table of candidates, which stands below as a picture.
  const [request, choice, , outcome] = words.join("\n").split("\n\n");
  const filters = state.profiles[decision.profile]?.filters ?? [];
  return [
    el("h2", {}, `${decision.endpoint}, by profile ${decision.profile}`),
    el("p", { class: "words" }, [request, choice, outcome].filter(Boolean).join("\n\n")),
    el("p", { class: "faint" }, filters.length ? `Filters: ${filters.join(", ")}` : "The profile has no filters."),
    candidatesTable(decision),
    el("h3", {}, "What if it had been different?"),
    whatIf(decision, requestId),
  ];
}

function whatIf(decision, requestId) {
  const objective = (key) => el("input", { type: "number", min: 1, step: "any", value: decision[`slo_${key}_ms`] ?? "", placeholder: "none", name: key });
  const [ttft, tpot] = [objective("ttft"), objective("tpot")];
  const priority = el("input", { type: "number", step: 1, value: decision.priority, name: "priority" });
  const predicted = el("input", { type: "checkbox", name: "by_prediction", checked: decision.wanted_profile === decision.profile && decision.prediction != null });
  const weights = Object.entries(decision.weights).map(([name, weight]) => [name, el("input", { type: "number", min: 0, step: "any", value: weight, name: `weight ${name}` })]);
  const result = el("div", { "aria-live": "polite" });
  const value = (input) => (input.value === "" ? null : Number(input.value));

  async function decide(event) {
    event.preventDefault();
    try {
      const told = await call("what-if", {
        request_id: requestId,
        slo_ttft_ms: value(ttft),
        slo_tpot_ms: value(tpot),
        priority: value(priority) ?? 0,
        by_prediction: predicted.checked,
        weights: Object.fromEntries(weights.map(([name, input]) => [name, value(input) ?? 0])),
      });
      result.replaceChildren(...compared(told.was.decision, told.would_be));
    } catch (error) {
      result.replaceChildren(el("p", { class: "bad" }, error.message));
    }
  }

  const field = (title, input) => el("label", { class: "field" }, title, input);
  return el("div", {},
    el("form", { class: "row", onsubmit: decide },
      field("TTFT objective, ms", ttft), field("TPOT objective, ms", tpot), field("priority", priority),
      el("label", {}, predicted, " by prediction"),
      ...weights.map(([name, input]) => field(`weight of ${name}`, input)),
      el("button", {}, "Decide again")),
    result);
}

function compared(was, wouldBe) {
  if (wouldBe.refused) return [el("p", { class: "bad" }, `It would have been refused: ${wouldBe.refused}`)];
  const now = wouldBe.decision;
  const text = now.endpoint === was.endpoint ? `It would have gone to ${was.endpoint} all the same` : `It would have gone to ${now.endpoint} instead of ${was.endpoint}`;
  return [el("p", { class: "what-if-choice" }, `${text}, by profile ${now.profile}.`), candidatesTable(now)];
}
