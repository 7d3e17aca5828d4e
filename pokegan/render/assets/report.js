"use strict";
const report = JSON.parse(document.getElementById("report").textContent);
const page = document.getElementById("page");
const many = report.runs.length > 1;
const COLOURS = ["#c8452f", "#2f7fb8", "#3f9a5b", "#a15fb0", "#d18f1f", "#5b6b7a", "#c2607f", "#27a3a3"];

function make(tag, options = {}, ...children) {
  const { text, ...attributes } = options;
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function section(title, note, ...children) {
  const heading = make("h2", { text: title });
  page.append(heading, ...(note ? [make("p", { class: "quiet", text: note })] : []), ...children);
}

function runName(run, index) {
  const dot = make("span", { class: "dot", style: `background:${COLOURS[index % COLOURS.length]}` });
  return make("h3", { class: "run-name" }, dot, make("span", { text: run.name }));
}

function short(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return String(Number(value.toPrecision(size >= 100 ? 4 : 3)));
}

// ---------------------------------------------------------------- films of grids

function film(frames, alt, fine) {
  const image = make("img", { class: fine ? "picture fine" : "picture", alt, src: frames[frames.length - 1].src });
  const slider = make("input", { type: "range", min: 0, max: frames.length - 1, step: 1, value: frames.length - 1, "aria-label": alt });
  const label = make("span", { class: "label", text: frames[frames.length - 1].label });
  const play = make("button", { type: "button", "aria-label": "play", text: "▶" });
  let timer = 0;
  function show(index) {
    image.src = frames[index].src;
    label.textContent = frames[index].label;
    slider.value = index;
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶";
  }
  slider.addEventListener("input", () => { stop(); show(Number(slider.value)); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    let index = Number(slider.value) >= frames.length - 1 ? 0 : Number(slider.value);
    play.textContent = "❚❚";
    show(index);
    timer = setInterval(() => {
      index += 1;
      if (index >= frames.length) { stop(); return; }
      show(index);
    }, Math.max(60, Math.min(400, 9000 / frames.length)));
  });
  const box = make("div", { class: "film" }, image);
  if (frames.length > 1) box.append(make("div", { class: "controls" }, play, slider, label));
  else box.append(make("div", { class: "quiet", text: frames[0].label }));
  return { box, seek: (share) => { stop(); show(Math.round(share * (frames.length - 1))); } };
}

function films(title, note, key, fine) {
  const runs = report.runs.filter((run) => run[key].length);
  if (!runs.length) return;
  const row = make("div", { class: many ? "row many" : "row" });
  const made = runs.map((run) => film(run[key], `${title} of ${run.name}`, fine));
  runs.forEach((run, i) => {
    const panel = make("div", { class: "panel" });
    if (many) panel.append(runName(run, report.runs.indexOf(run)));
    panel.append(made[i].box);
    row.append(panel);
  });
  const together = [];
  if (made.length > 1) {
    const slider = make("input", { type: "range", min: 0, max: 1000, value: 1000, "aria-label": `${title}: all runs together` });
    slider.addEventListener("input", () => made.forEach((one) => one.seek(Number(slider.value) / 1000)));
    together.push(make("div", { class: "controls" }, make("span", { class: "quiet", text: "all together" }), slider));
  }
  section(title, note, ...together, row);
}

// ---------------------------------------------------------------- line charts

const W = 520, H = 250, LEFT = 50, RIGHT = 10, TOP = 10, BOTTOM = 28;

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power += 1) found.push(power);
    if (found.length >= 2) return found.filter((_, i) => i % Math.ceil(found.length / 6) === 0);
  }
  const rough = (high - low) / 5 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((size) => size >= rough * 0.999);
  const found = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-6; tick += step) found.push(tick);
  return found;
}

// lines: [{name, colour, x: [...], y: [...]}]
function chart(title, lines, log) {
  const usable = lines.filter((line) => line.x.length);
  if (!usable.length) return null;
  const logged = log && usable.every((line) => line.y.every((value) => value > 0));
  const level = (value) => (logged ? Math.log10(value) : value);
  const xs = usable.flatMap((line) => line.x);
  const ys = usable.flatMap((line) => line.y.map(level));
  let [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [Math.min(...ys), Math.max(...ys)];
  if (x0 === x1) x1 = x0 + 1;
  if (y0 === y1) { y0 -= Math.abs(y0) * 0.1 || 0.5; y1 += Math.abs(y1) * 0.1 || 0.5; }
  const margin = (y1 - y0) * 0.05;
  y0 = !logged && y0 >= 0 && y0 < (y1 - y0) * 0.5 ? 0 : y0 - margin;
  y1 += margin;
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const py = (y) => H - BOTTOM - ((y - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  for (const tick of ticks(y0, y1, logged)) {
    svg.append(draw("line", { class: "grid-line", x1: LEFT, x2: W - RIGHT, y1: py(tick), y2: py(tick) }));
    svg.append(draw("text", { x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" }, short(logged ? 10 ** tick : tick)));
  }
  for (const tick of ticks(x0, x1)) {
    svg.append(draw("text", { x: px(tick), y: H - 9, "text-anchor": "middle" }, short(tick)));
  }
  svg.append(draw("text", { x: W - RIGHT, y: H - BOTTOM - 5, "text-anchor": "end" }, "kimg"));
  for (const line of usable) {
    const points = line.x.map((x, i) => `${px(x).toFixed(1)},${py(level(line.y[i])).toFixed(1)}`);
    svg.append(draw("polyline", { points: points.join(" "), fill: "none", stroke: line.colour, "stroke-width": 1.8, "stroke-linejoin": "round" }));
    if (line.x.length < 3) points.forEach((point) => {
      const [cx, cy] = point.split(",");
      svg.append(draw("circle", { cx, cy, r: 3, fill: line.colour }));
    });
  }
  const cursor = draw("line", { class: "grid-line", y1: TOP, y2: H - BOTTOM, visibility: "hidden" });
  svg.append(cursor);
  const tip = make("div", { class: "tip" });
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = x0 + (((event.clientX - box.left) / box.width) * W - LEFT) / (W - LEFT - RIGHT) * (x1 - x0);
    const told = usable.map((line) => {
      let best = 0;
      line.x.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(line.x[best] - x)) best = i; });
      return [line.x[best], `${line.name} ${short(line.y[best])}`];
    });
    const at = told.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a))[0];
    cursor.setAttribute("x1", px(at));
    cursor.setAttribute("x2", px(at));
    cursor.setAttribute("visibility", "visible");
    tip.textContent = `${short(at)} kimg: ${told.map((one) => one[1]).join(" · ")}`;
  });
  svg.addEventListener("pointerleave", () => { cursor.setAttribute("visibility", "hidden"); tip.textContent = ""; });
  const legend = make("div", { class: "legend" }, ...usable.map((line) =>
    make("span", {}, make("i", { style: `background:${line.colour}` }), make("span", { text: line.name }))));
  return make("div", { class: "panel chart" }, make("h3", { text: title }), svg, legend, tip);
}

function charts(title, note, groups) {
  const made = [];
  for (const group of groups) {
    const names = [...new Set(report.runs.flatMap((run) => Object.keys(run.series).filter((name) => name.startsWith(group.prefix))))];
    const plain = (name) => name.slice(group.prefix.length).replaceAll("_", " ");
    const line = (run, name, label, colour) => ({ name: label, colour, ...run.series[name] });
    if (many || group.apart) {
      for (const name of names) {
        const lines = report.runs.map((run, i) => [run, i]).filter(([run]) => name in run.series)
          .map(([run, i]) => line(run, name, many ? run.name : plain(name), COLOURS[i % COLOURS.length]));
        made.push(chart(`${group.title}: ${plain(name)}`, lines, group.log));
      }
    } else if (names.length) {
      const lines = names.map((name, i) => line(report.runs[0], name, plain(name), COLOURS[i % COLOURS.length]));
      made.push(chart(group.title, lines, group.log));
    }
  }
  const shown = made.filter(Boolean);
  if (shown.length) section(title, note, make("div", { class: "row" }, ...shown));
}

// ---------------------------------------------------------------- gradient flow

const HEAT = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];

function heatColour(share) {
  const place = Math.max(0, Math.min(0.9999, share)) * (HEAT.length - 1);
  const [a, b] = [HEAT[Math.floor(place)], HEAT[Math.floor(place) + 1]];
  return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * (place - Math.floor(place)))).join(",")})`;
}

function heatMap(title, flow) {
  const rows = flow.layers.length, columns = flow.kimg.length;
  const values = flow.mean.flat().filter((value) => value > 0).map(Math.log10);
  if (!values.length) return null;
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const left = 118, cell = Math.max(15, Math.min(26, 240 / rows)), height = rows * cell + 26;
  const svg = draw("svg", { viewBox: `0 0 ${W} ${height}`, role: "img", "aria-label": title });
  const wide = (W - left - 4) / columns;
  flow.layers.forEach((layer, row) => {
    svg.append(draw("text", { x: left - 6, y: row * cell + cell / 2 + 4, "text-anchor": "end" }, layer.length > 18 ? `…${layer.slice(-17)}` : layer));
    for (let column = 0; column < columns; column += 1) {
      const value = flow.mean[column][row];
      const fill = value > 0 ? heatColour((Math.log10(value) - low) / (high - low || 1)) : "#888";
      const rect = draw("rect", { x: left + column * wide, y: row * cell, width: wide + 0.3, height: cell - 1, fill });
      rect.append(draw("title", {}, `${layer}, ${short(flow.kimg[column])} kimg: mean ${short(value)}, max ${short(flow.max[column][row])}`));
      svg.append(rect);
    }
  });
  svg.append(draw("text", { x: left, y: height - 8 }, `${short(flow.kimg[0])} kimg`));
  svg.append(draw("text", { x: W - 4, y: height - 8, "text-anchor": "end" }, `${short(flow.kimg[columns - 1])} kimg`));
  const bar = make("i", { style: `width:90px;height:9px;background:linear-gradient(90deg,${HEAT.map((c) => `rgb(${c})`).join(",")})` });
  const legend = make("div", { class: "legend" }, make("span", {}, make("span", { text: short(10 ** low) }), bar, make("span", { text: `${short(10 ** high)}, mean of |gradient|` })));
  return make("div", { class: "panel chart" }, make("h3", { text: title }), svg, legend);
}

// ---------------------------------------------------------------- the page

page.replaceChildren();
page.append(make("h1", { text: report.title }));
if (many) page.append(make("p", { class: "quiet", text: `${report.runs.length} runs side by side` }));
const stories = make("div", { class: "row" });
report.runs.forEach((run, i) => {
  const table = make("table", {}, make("tbody", {}, ...run.facts.map(([name, value]) =>
    make("tr", {}, make("th", { text: name, scope: "row" }), make("td", { text: value })))));
  const panel = make("div", { class: "panel" });
  if (many) panel.append(runName(run, i));
  panel.append(make("p", { text: run.story }), make("div", { class: "scroll" }, table));
  stories.append(panel);
});
page.append(stories);

films("Samples", "The same latents all along, from the run's seed: not picked.", "samples", false);
charts("How good they are", "Lower is better for distances; docs/metrics.md says what each number is.", [{ prefix: "metrics/", title: "Metric", apart: true }]);
charts("Losses and scores", "", [
  { prefix: "loss/", title: "Losses" },
  { prefix: "score/", title: "Scores of the discriminator" },
  { prefix: "penalty/", title: "Penalties" },
  { prefix: "augment/", title: "Augmentation" },
  { prefix: "held_out/", title: "On held-out pictures" },
]);

const neighbours = report.runs.filter((run) => run.neighbours.length);
if (neighbours.length) {
  const row = make("div", { class: "row many" });
  for (const run of neighbours) {
    const figures = run.neighbours.map((pair) => make("figure", {},
      make("div", {}, make("img", { src: pair.sample, alt: "sample" }), make("img", { src: pair.real, alt: "nearest training picture" })),
      make("figcaption", { text: pair.label })));
    const panel = make("div", { class: "panel" });
    if (many) panel.append(runName(run, report.runs.indexOf(run)));
    panel.append(make("p", { class: "quiet", text: run.neighbours_note }), make("div", { class: "neighbours" }, ...figures));
    row.append(panel);
  }
  section("Nearest training pictures", "Left what was made up, right the picture that is nearest to it among those learned from.", row);
}

films("Reconstructions", "Rows of pairs: pictures kept out of training, and below each what the networks make of it.", "reconstructions", false);

const flows = report.runs.flatMap((run) => Object.entries(run.gradients).map(([network, flow]) => heatMap(many ? `${run.name}: ${network}` : network, flow))).filter(Boolean);
if (flows.length) section("Gradient flow", "Mean size of the gradients, layer by layer, over the run. Dark rows learn little.", make("div", { class: "row" }, ...flows));
charts("Rates and gradients", "", [
  { prefix: "gradient/", title: "Gradient norms", log: true },
  { prefix: "lr/", title: "Learning rates" },
]);
charts("Time and memory", "", [
  { prefix: "speed/", title: "Speed", apart: true },
  { prefix: "share/", title: "Share of the time" },
  { prefix: "memory/", title: "Memory in MB" },
  { prefix: "device/", title: "Device use" },
]);

const sheets = report.runs.filter((run) => run.contact);
if (sheets.length) {
  const row = make("div", { class: "row many" });
  for (const run of sheets) {
    const panel = make("div", { class: "panel" });
    if (many) panel.append(runName(run, report.runs.indexOf(run)));
    panel.append(make("img", { class: "picture fine", src: run.contact, alt: "training pictures" }), make("p", { class: "quiet", text: run.contact_note }));
    row.append(panel);
  }
  section("What it learned from", "", row);
}

for (const run of report.runs) {
  const box = make("details", { class: "panel", style: "margin-top:16px" }, make("summary", { text: many ? `All settings of ${run.name}` : "All settings" }), make("pre", { text: run.settings }));
  page.append(box);
}
page.append(make("footer", { class: "quiet", text: report.footer }));
