// Lines over time, drawn by uPlot in the page's colours. Dashes tell lines apart without colour.

import { clock } from "./dom.js";

/* global uPlot */
const DASHES = [[], [8, 4], [2, 3], [12, 4, 2, 4], [5, 2], [1, 2]];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// Return a function that draws (times in Unix seconds, {label: values}) into `host`. Values may be null.
export function lineChart(host, { title, format, max = null, isTime = true }) {
  let plot = null;
  let drawn = "";
  host.classList.add("chart");
  host.setAttribute("role", "img");
  new ResizeObserver(() => plot?.setSize({ width: host.clientWidth, height: 190 })).observe(host);

  return (times, lines) => {
    const labels = Object.keys(lines);
    const theme = colour("--text");
    const wanted = JSON.stringify([labels, theme]);
    if (wanted !== drawn) {
      plot?.destroy();
      plot = new uPlot(options(host, labels, format, max, isTime), [[], ...labels.map(() => [])], host);
      drawn = wanted;
    }
    plot.setData([times, ...Object.values(lines)]);
    const last = labels.map((label) => `${label} ${format(lines[label].findLast((value) => value != null) ?? null)}`);
    host.setAttribute("aria-label", `${title}; newest: ${last.join(", ") || "nothing yet"}`);
  };
}

function options(host, labels, format, max, isTime) {
  const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  return {
    width: host.clientWidth || 400,
    height: 190,
    cursor: { drag: { x: false, y: false } },
    scales: { x: { time: isTime }, y: { range: (_, low, high) => [0, max ?? Math.max(high ?? 0, 1e-9) * 1.1] } },
    axes: [{ ...axis, space: 80, ...(isTime ? { values: (_, times) => times.map(clock) } : {}) }, { ...axis, size: 56, values: (_, values) => values.map(format) }],
    series: [
      isTime ? { value: "{HH}:{mm}:{ss}" } : { label: "seconds" },
      ...labels.map((label, place) => ({
        label,
        stroke: colour(`--c${place % 6}`),
        dash: DASHES[place % DASHES.length],
        width: 2,
        spanGaps: true,
        points: { show: false },
        value: (_, value) => format(value),
      })),
    ],
  };
}

const SVG = "http://www.w3.org/2000/svg";

// Return a picture of pairs [predicted, observed] in ms on logarithmic axes, with the diagonal where both are equal.
export function scatter(pairs, title) {
  const made = draw("svg", { viewBox: "0 0 320 320", class: "scatter", role: "img", "aria-label": title });
  const all = pairs.flat();
  const [low, high] = [Math.log10(Math.min(...all)) - 0.1, Math.log10(Math.max(...all)) + 0.1];
  const at = (value) => 40 + (270 * (Math.log10(value) - low)) / (high - low || 1);
  for (let power = Math.ceil(low); power <= high; power++) {
    const place = at(10 ** power);
    made.append(
      draw("line", { x1: place, x2: place, y1: 10, y2: 280 }),
      draw("line", { x1: 40, x2: 310, y1: 320 - place, y2: 320 - place }),
      draw("text", { x: place, y: 294, "text-anchor": "middle" }, `${10 ** power} ms`),
      draw("text", { x: 36, y: 324 - place, "text-anchor": "end" }, `${10 ** power}`),
    );
  }
  made.append(draw("line", { x1: 40, y1: 280, x2: 310, y2: 10, "stroke-dasharray": "4 3" }));
  made.append(draw("text", { x: 175, y: 312, "text-anchor": "middle" }, "predicted (median)"));
  made.append(draw("text", { x: 12, y: 150, "text-anchor": "middle", transform: "rotate(-90 12 150)" }, "observed"));
  for (const [predicted, observed] of pairs) made.append(draw("circle", { cx: at(predicted), cy: 320 - at(observed), r: 2.5 }));
  return made;
}

function draw(tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text) made.textContent = text;
  return made;
}
