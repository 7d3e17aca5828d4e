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
  };
  image.addEventListener("load", () => { fit(); watch(image.parentElement, fit); }, { once: true });
  return crisp(image);
}

// Keeps the pixels of a picture that is shown at twice its size or more.
function crisp(image) {
  image.addEventListener("load", () => image.classList.toggle("hard", image.clientWidth >= 2 * image.naturalWidth));
  return image;
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

function film(frames, alt) {
  const image = make("img", { class: "picture", alt, src: frames[frames.length - 1].src });
  whole(image);
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

function films(title, note, key, beside) {
  const runs = report.runs.filter((run) => run[key].length);
  if (!runs.length) return;
  const row = make("div", { class: many ? "row many" : "row" });
  const made = runs.map((run) => film(run[key], `${title} of ${run.name}`));
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

// ---------------------------------------------------------------- samples and what they are near to

function nearList(list) {
  return make("div", { class: "neighbours" }, ...list.map((one) => {
    const tile = (src, alt, ...words) => make("figure", {}, crisp(make("img", { src, alt })), make("figcaption", {}, ...words));
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

films("Samples", "The same latents all along, from the run's seed: not picked.", "samples", many ? null : stories.firstChild);

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

films("Reconstructions", "Rows of pairs: pictures kept out of training, and below each what the networks make of it.", "reconstructions");

const flows = report.runs.flatMap((run) => Object.entries(run.gradients).map(([network, flow]) => heatMap(many ? `${run.name}: ${network.replaceAll("_", " ")}` : network.replaceAll("_", " "), flow))).filter(Boolean);
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
