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

// Shows a picture of pixels at a whole multiple of its size where there is room, smoothly shrunk where not.
function whole(image) {
  const fit = () => {
    const times = Math.floor(image.parentElement.clientWidth / image.naturalWidth);
    image.style.width = times >= 1 ? `${times * image.naturalWidth}px` : "100%";
    image.classList.toggle("hard", times >= 2);
  };
  image.addEventListener("load", () => { fit(); watch(image.parentElement, fit); }, { once: true });
}

// Calls `fit` whenever the element gets another width.
function watch(element, fit) {
  let width = element.clientWidth;
  new ResizeObserver(() => {
    if (element.clientWidth === width) return;
    width = element.clientWidth;
    fit();
  }).observe(element);
}

// ---------------------------------------------------------------- films of grids

function film(frames, alt, fine) {
  const image = make("img", { class: "picture", alt, src: frames[frames.length - 1].src });
  if (!fine) whole(image);
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

function films(title, note, key, fine, beside) {
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
  if (beside) { row.className = "hero"; row.append(beside); }
  const together = [];
  if (made.length > 1) {
    const slider = make("input", { type: "range", min: 0, max: 1000, value: 1000, "aria-label": `${title}: all runs together` });
    slider.addEventListener("input", () => made.forEach((one) => one.seek(Number(slider.value) / 1000)));
    together.push(make("div", { class: "controls" }, make("span", { class: "quiet", text: "all together" }), slider));
  }
  section(title, note, ...together, row);
}

// ---------------------------------------------------------------- line charts

const LEFT = 46, RIGHT = 8, TOP = 10, BOTTOM = 26;
const drawings = [];  // functions that draw what must know its width, once the page has one

// Draws into `panel`, now that it is in the page and whenever its width changes.
function drawn(panel, place, paint) {
  drawings.push(() => {
    const again = () => { if (place.clientWidth) place.replaceChildren(paint(place.clientWidth)); };
    again();
    watch(panel, again);
  });
}

function ticks(low, high, log) {
  if (log) {
    const found = [];
    for (let power = Math.ceil(low - 1e-9); power <= high + 1e-9; power += 1) found.push(power);
    if (found.length >= 3) return found.filter((_, i) => i % Math.ceil(found.length / 6) === 0);
    const wide = high - low > 0.7;
    const plain = wide ? [1, 2, 5, 10, 20, 50].map((times) => times * 10 ** Math.floor(low)) : ticks(10 ** low, 10 ** high);
    return plain.map(Math.log10).filter((tick) => tick >= low && tick <= high);
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
  const tip = make("div", { class: "tip" });
  const place = make("div", {});
  const panel = make("div", { class: "panel chart" }, make("h3", { text: title }), place);
  if (usable.length > 1 || usable[0].name !== title) panel.append(make("div", { class: "legend" }, ...usable.map((line) =>
    make("span", {}, make("i", { style: `background:${line.colour}` }), make("span", { text: line.name })))));
  panel.append(tip);
  drawn(panel, place, (W) => plot({ title, usable, logged, level, tip, W, H: Math.round(Math.min(250, Math.max(170, W * 0.52))), x0, x1, y0, y1 }));
  return panel;
}

function plot({ title, usable, logged, level, tip, W, H, x0, x1, y0, y1 }) {
  const px = (x) => LEFT + ((x - x0) / (x1 - x0)) * (W - LEFT - RIGHT);
  const py = (y) => H - BOTTOM - ((y - y0) / (y1 - y0)) * (H - TOP - BOTTOM);
  const svg = draw("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": title });
  for (const tick of ticks(y0, y1, logged)) {
    svg.append(draw("line", { class: "grid-line", x1: LEFT, x2: W - RIGHT, y1: py(tick), y2: py(tick) }));
    svg.append(draw("text", { x: LEFT - 6, y: py(tick) + 4, "text-anchor": "end" }, short(logged ? 10 ** tick : tick)));
  }
  for (const tick of ticks(x0, x1)) {
    if (px(tick) < W - RIGHT - 46) svg.append(draw("text", { x: px(tick), y: H - 8, "text-anchor": "middle" }, short(tick)));
  }
  svg.append(draw("text", { x: W - RIGHT, y: H - 8, "text-anchor": "end" }, "kimg"));
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
  return svg;
}

// groups: [{title, prefix, only: names after it, apart: a chart each, log}]
function charts(title, note, groups) {
  const made = [];
  for (const group of groups) {
    const given = [...new Set(report.runs.flatMap((run) => Object.keys(run.series).filter((name) => name.startsWith(group.prefix))))];
    const wanted = group.only ? group.only.map((name) => group.prefix + name) : given;
    const names = wanted.filter((name) => given.includes(name) && !(group.only && report.runs.every((run) => !(name in run.series) || run.series[name].y.every((value) => value === 0))));
    const plain = (name) => name.slice(group.prefix.length).replaceAll("_", " ");
    const line = (run, name, label, colour) => ({ name: label, colour, ...run.series[name] });
    if (many || group.apart) {
      for (const name of names) {
        const lines = report.runs.map((run, i) => [run, i]).filter(([run]) => name in run.series)
          .map(([run, i]) => line(run, name, many ? run.name : plain(name), COLOURS[i % COLOURS.length]));
        made.push(chart(names.length > 1 ? `${group.title}: ${plain(name)}` : group.title, lines, group.log));
      }
    } else if (names.length) {
      const lines = names.map((name, i) => line(report.runs[0], name, names.length > 1 ? plain(name) : group.title, COLOURS[i % COLOURS.length]));
      made.push(chart(group.title, lines, group.log));
    }
  }
  const shown = made.filter(Boolean);
  if (!shown.length) return;
  const row = make("div", { class: "row" }, ...shown);
  if (title) section(title, note, row);
  else page.append(row);
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
  const place = make("div", {});
  const bar = make("i", { style: `width:90px;height:9px;background:linear-gradient(90deg,${HEAT.map((c) => `rgb(${c})`).join(",")})` });
  const legend = make("div", { class: "legend" }, make("span", {}, make("span", { text: short(10 ** low) }), bar, make("span", { text: `${short(10 ** high)}, mean of |gradient|` })));
  const panel = make("div", { class: "panel chart" }, make("h3", { text: title }), place, legend);
  drawn(panel, place, (W) => heat({ title, flow, rows, columns, low, high, W }));
  return panel;
}

function heat({ title, flow, rows, columns, low, high, W }) {
  const left = 112, cell = Math.max(15, Math.min(26, 240 / rows)), height = rows * cell + 26;
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
  return svg;
}

// ---------------------------------------------------------------- samples and what they are near to

function nearList(list) {
  return make("div", { class: "neighbours" }, ...list.map((one) => {
    const tile = (src, alt, ...words) => make("figure", {}, make("img", { src, alt }), make("figcaption", {}, ...words));
    const matches = one.matches.map((match) => {
      const figure = tile(match.src, `nearest training picture by ${match.space}`,
        make("b", { text: match.distance }), ` ${match.space}`,
        ...(match.mark ? [make("em", { text: match.mark })] : []));
      figure.className = match.mark ? (match.mark === "copy" ? "copy" : "near") : "far";
      return figure;
    });
    return make("div", { class: "near-card" }, tile(one.sample, "sample", one.label), ...matches);
  }));
}

function near(title, note, part) {
  const runs = report.runs.map((run, i) => ({ run, i, ...part(run) })).filter((one) => one.list.length);
  if (!runs.length) return;
  section(title, note, ...runs.map((one) => make("div", { class: "panel stack" },
    ...(many ? [runName(one.run, one.i)] : []), make("p", { class: "quiet", text: one.note }), nearList(one.list))));
}

// ---------------------------------------------------------------- how good they are

function scores() {
  const runs = report.runs.map((run, i) => ({ run, i })).filter(({ run }) => run.quality);
  if (!runs.length) return;
  const names = [...new Set(runs.flatMap(({ run }) => run.quality.measures.map((one) => one.name)))];
  const find = (run, name) => run.quality.measures.find((one) => one.name === name);
  const head = make("tr", {}, make("td", {}), ...runs.map(({ run, i }) => make("td", {}, runName(run, i))));
  const rows = names.map((name) => {
    const { meaning } = runs.map(({ run }) => find(run, name)).find(Boolean);
    const cells = runs.map(({ run }) => {
      const one = find(run, name);
      return make("td", {}, ...(one ? [make("b", { text: one.value }), make("span", { class: "quiet", text: one.interval })] : ["–"]));
    });
    return make("tr", {}, make("th", { scope: "row" }, make("b", { text: name.replaceAll("_", " ") }), make("span", { class: "quiet", text: meaning })), ...cells);
  });
  const notes = runs.map(({ run, i }) => make("div", {}, ...(many ? [runName(run, i)] : []),
    ...run.quality.warnings.map((line) => make("p", { class: "warning", text: line })),
    make("p", { class: "quiet", text: run.quality.note })));
  const table = make("table", { class: "scores" }, make("tbody", {}, ...(many ? [head] : []), ...rows));
  if (!many) table.classList.add("alone");
  return make("div", { class: "panel stack" }, ...notes, make("div", { class: "scroll" }, table));
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
if (many || !report.runs[0].samples.length) page.append(stories);

films("Samples", "The same latents all along, from the run's seed: not picked.", "samples", false, many ? null : stories.firstChild);

const table = scores();
const measured = report.runs.some((run) => Object.keys(run.series).some((name) => name.startsWith("metrics/")));
if (table || measured) section("How good they are", "docs/metrics.md says what each number is. Intervals are of 95 %.", ...(table ? [table] : []));
charts("", "", [
  { prefix: "metrics/", title: "Fréchet distance", only: ["fid"] },
  { prefix: "metrics/", title: "Kernel distance × 1000", only: ["kid"] },
  { prefix: "metrics/", title: "Sliced Wasserstein of patches", only: many ? ["swd"] : ["swd", "swd_16", "swd_32", "swd_64", "swd_128", "swd_256"] },
  { prefix: "metrics/", title: "Precision to coverage", only: many ? ["precision", "recall"] : ["precision", "recall", "density", "coverage"] },
  { prefix: "metrics/", title: "Variety, reals 1", only: ["feature_spread", "pixel_spread"] },
  { prefix: "metrics/", title: "Copies of training pictures", only: many ? ["memorised"] : ["memorised", "memorised_features", "memorised_pixels"] },
  { prefix: "metrics/", title: "Colours and covered share", only: many ? [] : ["colour", "coverage_distance"] },
  { prefix: "metrics/", title: "Score", only: ["score"], log: true },
]);
charts("Losses and scores", "", [
  { prefix: "loss/", title: "Losses" },
  { prefix: "score/", title: "Scores of the discriminator" },
  { prefix: "penalty/", title: "Penalties" },
  { prefix: "augment/", title: "Augmentation" },
  { prefix: "held_out/", title: "On held-out pictures" },
]);

near("Nearest training pictures", "Left what was made up, beside it the training pictures that are nearest to it.", (run) => ({ list: run.neighbours, note: run.neighbours_note }));
near("Nearest of those that were measured", "", (run) => ({ list: run.quality ? run.quality.nearest : [], note: run.quality ? run.quality.nearest_note : "" }));

films("Reconstructions", "Rows of pairs: pictures kept out of training, and below each what the networks make of it.", "reconstructions", false);

const flows = report.runs.flatMap((run) => Object.entries(run.gradients).map(([network, flow]) => heatMap(many ? `${run.name}: ${network}` : network, flow))).filter(Boolean);
if (flows.length) section("Gradient flow", "Mean size of the gradients, layer by layer, over the run. Dark rows learn little.", make("div", { class: "row" }, ...flows));
charts("Rates and gradients", "", [
  { prefix: "gradient/", title: "Gradient norms", log: true },
  { prefix: "lr/", title: "Learning rates" },
]);
charts("Time and memory", "", [
  { prefix: "speed/", title: "Pictures a second", only: ["images_per_s"] },
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
    panel.append(make("img", { class: "picture", src: run.contact, alt: "training pictures" }), make("p", { class: "quiet", text: run.contact_note }));
    row.append(panel);
  }
  section("What it learned from", "", row);
}

for (const run of report.runs) {
  const box = make("details", { class: "panel", style: "margin-top:16px" }, make("summary", { text: many ? `All settings of ${run.name}` : "All settings" }), make("pre", { text: run.settings }));
  page.append(box);
}
page.append(make("footer", { class: "quiet", text: report.footer }));
drawings.forEach((one) => one());
