// The live page: it reads the picker's state once, and follows its events.

import { age, byId, call, number, setText } from "./dom.js";
import { askView } from "./ask.js";
import { compareView } from "./compare.js";
import { decisionsView } from "./decisions.js";
import { modelsView } from "./models.js";
import { nowView } from "./now.js";

const VIEWS = { now: nowView, ask: askView, decisions: decisionsView, models: modelsView, compare: compareView };
const KEPT_S = 3600;

const seen = { state: null, steps: new Map() };
const shown = {};

start();

async function start() {
  chooseTheme(localStorage.getItem("theme"));
  byId("theme").addEventListener("click", changeTheme);
  try {
    seen.state = await call("state");
  } catch (error) {
    setText(byId("connection"), `can't read the picker's state: ${error.message}`);
    setTimeout(start, 2000);
    return;
  }
  setText(byId("pool-name"), seen.state.pool_name);
  byId("tab-compare").hidden = !seen.state.has_comparison;
  for (const [name, view] of Object.entries(VIEWS)) shown[name] = view(byId(`view-${name}`), seen.state);
  take(seen.state);
  followTabs();
  follow();
}

function follow() {
  const events = new EventSource("api/events");
  events.onmessage = (event) => take(JSON.parse(event.data));
  events.onerror = () => setText(byId("connection"), "the picker doesn't answer; trying again");
}

function take(news) {
  for (const step of news.steps) seen.steps.set(step.at, step);
  for (const at of seen.steps.keys()) if (at < news.at - KEPT_S) seen.steps.delete(at);
  const pool = news.pool;
  const stale = pool.stale.filter(Boolean).length;
  const inFlight = pool.in_flight.reduce((sum, count) => sum + count, 0);
  const endpoints = `${number(pool.name.length)} endpoints${stale ? `, ${number(stale)} stale` : ""}`;
  const shadow = seen.state.is_shadow ? " · shadow: predictions route nothing" : "";
  setText(byId("summary"), `${endpoints} · ${number(inFlight)} requests in flight${shadow}`);
  // Screen readers needn't hear the clock.
  setText(byId("connection"), Date.now() / 1000 - news.at > 10 ? `as it was ${age(Date.now() / 1000 - news.at)} ago` : "live");
  const told = { ...news, steps: allSteps(news.at) };
  for (const view of Object.values(shown)) view.take(told);
}

// The server leaves out steps in which nothing ended.
function allSteps(now) {
  const stepS = seen.state.step_s;
  const first = Math.min(...seen.steps.keys(), now);
  const steps = [];
  for (let at = Math.floor(first / stepS) * stepS; at <= now; at += stepS) {
    steps.push(seen.steps.get(at) ?? { at, groups: [], sources: {}, refused: {} });
  }
  return steps;
}

function followTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const open = (tab) => {
    for (const one of tabs) {
      const isOpen = one === tab;
      one.setAttribute("aria-selected", isOpen);
      one.tabIndex = isOpen ? 0 : -1;
      byId(one.getAttribute("aria-controls")).hidden = !isOpen;
    }
    const name = tab.id.slice("tab-".length);
    history.replaceState(null, "", `#${name}`);
    shown[name].opened();
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => open(tab));
    tab.addEventListener("keydown", (event) => {
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!move) return;
      const usable = tabs.filter((one) => !one.hidden);
      const next = usable[(usable.indexOf(tab) + move + usable.length) % usable.length];
      next.focus();
      open(next);
    });
  }
  const named = byId(`tab-${location.hash.slice(1)}`);
  open(named && !named.hidden ? named : tabs[0]);
}

function chooseTheme(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
}

function changeTheme() {
  const isDark = getComputedStyle(document.documentElement).getPropertyValue("--back").trim() === "#0e1116";
  const theme = isDark ? "light" : "dark";
  localStorage.setItem("theme", theme);
  chooseTheme(theme);
}
