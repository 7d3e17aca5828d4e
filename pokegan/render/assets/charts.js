"use strict";
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
  const step = [1, 2, 5, 10].map((times) => times * unit).find((size) => size >= rough * 0.7);
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
  const legend = make("div", { class: "legend" }, make("span", {}, make("span", { text: short(10 ** low) }), bar, make("span", { text: short(10 ** high) })));
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
