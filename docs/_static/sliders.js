// The sliders of the lessons. Each <figure class="sliders"> holds a table as JSON: `sliders` with
// their values, and `panels` over some of them. A panel has numbers, and curves or a map, for every
// combination of its sliders' values, the last slider's changing fastest. Nothing is computed here:
// moving a slider shows other entries of the table.
"use strict";

const WIDTH = 420, HEIGHT = 240, LEFT = 52, BOTTOM = 36, EDGE = 12;

function add(parent, name, attributes = {}, text = "") {
  const space = name === "svg" || parent.namespaceURI.endsWith("svg")
    ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const made = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

// At most four digits, in words that a reader knows.
function shown(value) {
  if (value === null) return "–";
  if (typeof value === "string") return value;
  const small = value !== 0 && Math.abs(value) < 1e-3;
  return small ? value.toExponential() : value.toLocaleString("en", { maximumSignificantDigits: 4 });
}

// From a number in one range to its place in another.
function scale([low, high], [from, to]) {
  return (value) => from + ((to - from) * (Math.min(Math.max(value, low), high) - low)) / (high - low);
}

function drawCurves(parent, panel) {
  const svg = add(parent, "svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": panel.alt });
  const [low, high] = panel.range, { name, values } = panel.x;
  const x = scale([values[0], values.at(-1)], [LEFT, WIDTH - EDGE]);
  const y = scale([low, high], [HEIGHT - BOTTOM, EDGE]);
  for (const tick of [0, 1, 2, 3, 4].map((i) => low + (i * (high - low)) / 4)) {
    add(svg, "line", { x1: LEFT, x2: WIDTH - EDGE, y1: y(tick), y2: y(tick) });
    add(svg, "text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, shown(tick));
  }
  for (const tick of [values[0], values[values.length >> 1], values.at(-1)])
    add(svg, "text", { x: x(tick), y: HEIGHT - 20, "text-anchor": "middle" }, shown(tick));
  add(svg, "text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, name);
  const lines = Object.keys(panel.curves).map((label, i) => {
    const at = { x: WIDTH - EDGE, y: EDGE + 16 * (i + 1), "text-anchor": "end" };
    add(svg, "text", { class: `curve-${i}`, ...at }, label);
    return [label, add(svg, "polyline", { class: `curve-${i}` })];
  });
  return (row) => {
    for (const [label, line] of lines)
      line.setAttribute("points", panel.curves[label][row].map((value, i) => `${x(values[i])},${y(value)}`).join(" "));
  };
}

// A map is a table whose cells can be chosen, too. It is greenest where its numbers are least.
function drawMap(parent, panel, sliders, choose) {
  const [columns, rows] = panel.over.map((i) => sliders[i]), values = panel.numbers[panel.map];
  const least = Math.min(...values), depth = scale([Math.log(least), Math.log(2 * least)], [60, 0]);
  const table = add(add(parent, "div", { class: "map" }), "table", { "aria-label": panel.alt });
  add(table, "caption", {}, `${rows.name} ↑`);
  const cells = [];
  for (let j = rows.values.length - 1; j >= 0; j--) {
    const line = add(table, "tr");
    add(line, "th", { scope: "row" }, shown(rows.values[j]));
    columns.values.forEach((_, i) => {
      const row = i * rows.values.length + j;
      const style = `background: color-mix(in srgb, var(--good) ${depth(Math.log(values[row]))}%, transparent)`;
      cells[row] = add(line, "td", { style }, values[row].toFixed(1));
      cells[row].addEventListener("click", () => choose(row));
    });
  }
  const foot = add(table, "tr");
  add(foot, "th", {}, `${columns.name} →`);
  for (const value of columns.values) add(foot, "th", { scope: "col" }, shown(value));
  return (row) => cells.forEach((cell, i) => cell.setAttribute("aria-current", i === row));
}

function drawNumbers(parent, panel) {
  const list = add(parent, "dl", { "aria-live": "polite" });
  const places = Object.entries(panel.numbers).map(([name, values]) => {
    add(list, "dt", {}, name);
    return [values, add(list, "dd")];
  });
  return (row) => places.forEach(([values, place]) => (place.textContent = shown(values[row])));
}

function build(figure) {
  const { sliders, panels } = JSON.parse(figure.querySelector("script").textContent);
  const controls = add(figure, "div", { class: "controls" }), shows = [];
  const inputs = sliders.map(({ name, values, start }) => {
    const label = add(controls, "label", {}, `${name} = `), output = add(label, "output");
    const input = add(label, "input", { type: "range", min: 0, max: values.length - 1, value: start });
    input.addEventListener("input", update);
    shows.push(() => {
      output.textContent = shown(values[input.value]);
      input.setAttribute("aria-valuetext", output.textContent);
    });
    return input;
  });
  const parts = add(figure, "div", { class: "panels" });
  for (const panel of panels) {
    const part = add(parts, "section");
    add(part, "h3", {}, panel.title);
    const draw = panel.curves ? drawCurves : drawMap;
    const draws = [draw(part, panel, sliders, (row) => choose(panel, row)), drawNumbers(part, panel)];
    shows.push(() => {
      const row = panel.over.reduce((at, i) => at * sliders[i].values.length + Number(inputs[i].value), 0);
      draws.forEach((draw) => draw(row));
    });
  }
  function choose(panel, row) {
    for (const i of panel.over.toReversed()) {
      inputs[i].value = row % sliders[i].values.length;
      row = Math.floor(row / sliders[i].values.length);
    }
    update();
  }
  function update() {
    shows.forEach((show) => show());
  }
  figure.append(figure.querySelector("figcaption"));
  update();
}

document.querySelectorAll("figure.sliders").forEach(build);
