// A table of the pool that draws only the rows in view: a thousand endpoints cost no more than a screenful.

import { el, ms, number, setText } from "./dom.js";

const ROW_PX = 32;
const BEYOND = 6;
// The height to which the table grows.
const MOST_PX = 34 * 16;
const COLUMNS = [
  { key: "name", title: "endpoint", text: (pool, i) => pool.name[i] },
  { key: "waiting", title: "waiting", text: (pool, i) => number(pool.waiting[i]) },
  { key: "running", title: "running", text: (pool, i) => number(pool.running[i]) },
  { key: "in_flight", title: "in flight", text: (pool, i) => number(pool.in_flight[i]) },
  { key: "kv", title: "KV cache", text: (pool, i) => (pool.kv[i] == null ? "–" : `${(100 * pool.kv[i]).toFixed(0)} %`) },
  { key: "ttft_ms", title: "recent TTFT", text: (pool, i) => ms(pool.ttft_ms[i]) },
  { key: "tpot_ms", title: "recent TPOT", text: (pool, i) => ms(pool.tpot_ms[i]) },
  { key: "prefill_tokens", title: "tokens to read", text: (pool, i) => number(pool.prefill_tokens[i]), isWide: true },
  { key: "slowdown", title: "slowdown", text: (pool, i) => (pool.slowdown[i] === 1 ? "–" : `${number(pool.slowdown[i], 1)}×`), isWide: true },
  { key: "age_s", title: "metrics", text: metricsText, isWide: true },
];

export function poolTable() {
  const filter = el("input", { type: "search", "aria-label": "Show endpoints whose name contains", placeholder: "name contains" });
  const count = el("span", { class: "faint" });
  const heads = COLUMNS.map((column) =>
    el("th", { scope: "col", class: column.isWide ? "wide" : "" }, el("button", { type: "button", onclick: () => sortBy(column.key) }, column.title)));
  const [above, below] = [gap(), gap()];
  const body = el("tbody", {}, above.row, below.row);
  const drawn = el("table", {}, el("thead", {}, el("tr", {}, ...heads)), body);
  const scroll = el("div", { class: "scroll pool", tabindex: 0, role: "region", "aria-label": "Endpoints of the pool" }, drawn);
  const rows = [];
  let pool = { name: [] };
  let sort = { key: "name", sign: 1 };

  function sortBy(key) {
    sort = { key, sign: sort.key === key ? -sort.sign : key === "name" ? 1 : -1 };
    draw();
  }

  function order() {
    const wanted = filter.value.toLowerCase();
    const values = pool[sort.key] ?? [];
    const places = [...pool.name.keys()].filter((i) => !wanted || pool.name[i].toLowerCase().includes(wanted));
    return places.sort((a, b) => sort.sign * compare(values[a], values[b]) || compare(pool.name[a], pool.name[b]));
  }

  function draw() {
    const places = order();
    const first = Math.max(Math.floor(scroll.scrollTop / ROW_PX) - BEYOND, 0);
    const fits = Math.ceil(Math.max(scroll.clientHeight, MOST_PX) / ROW_PX) + 2 * BEYOND;
    const shown = places.slice(first, first + fits);
    above.set(first);
    below.set(places.length - first - shown.length);
    while (rows.length < shown.length) rows.push(addRow(below.row));
    while (rows.length > shown.length) rows.pop().remove();
    shown.forEach((i, place) => fill(rows[place], pool, i, first + place));
    drawn.setAttribute("aria-rowcount", places.length + 1);
    setText(count, `${number(places.length)} of ${number(pool.name.length)}`);
    heads.forEach((head, place) => {
      const isSorted = COLUMNS[place].key === sort.key;
      head.setAttribute("aria-sort", isSorted ? (sort.sign > 0 ? "ascending" : "descending") : "none");
    });
  }

  filter.addEventListener("input", draw);
  let isDue = false;
  scroll.addEventListener("scroll", () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      draw();
    });
  });
  return {
    node: el("section", { class: "card" }, el("div", { class: "row" }, filter, count), scroll),
    take(told) {
      pool = told;
      draw();
    },
  };
}

function addRow(before) {
  const row = el("tr", {}, ...COLUMNS.map((column, place) => el("td", { class: `${place ? "" : "name"} ${column.isWide ? "wide" : ""}` })));
  before.before(row);
  return row;
}

function fill(row, pool, i, place) {
  COLUMNS.forEach((column, at) => setText(row.cells[at], column.text(pool, i)));
  const kind = pool.stale[i] || pool.left_out_s[i] ? "stale" : "";
  if (row.className !== kind) row.className = kind;
  const index = String(place + 2);
  if (row.getAttribute("aria-rowindex") !== index) row.setAttribute("aria-rowindex", index);
  if (row.cells[0].title !== pool.address[i]) row.cells[0].title = pool.address[i];
}

function gap() {
  const cell = el("td", { colspan: COLUMNS.length });
  const row = el("tr", { class: "gap", "aria-hidden": "true" }, cell);
  return {
    row,
    set(count) {
      const height = `${count * ROW_PX}px`;
      if (cell.style.height !== height) cell.style.height = height;
      row.hidden = !count;
    },
  };
}

function metricsText(pool, i) {
  if (pool.left_out_s[i]) return `fails, out for ${pool.left_out_s[i]} s`;
  if (pool.age_s[i] == null) return "never read";
  return pool.stale[i] ? `stale, ${number(pool.age_s[i], 1)} s` : `${(1000 * pool.age_s[i]).toFixed(0)} ms old`;
}

function compare(a, b) {
  if (a == null || b == null) return (a == null) - (b == null);
  return a < b ? -1 : a > b ? 1 : 0;
}
