"use strict";
// Maps are 16-bit numbers, in steps of data-step; they are decoded when they come into view.
const WARM = [178, 24, 43], COLD = [33, 102, 172];
const opacity = document.getElementById("opacity"), threshold = document.getElementById("threshold");
const below = document.getElementById("below");
const drawn = new Map();

function decode(canvas) {
  const text = atob(document.getElementById(canvas.dataset.map).textContent);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

function open(canvas) {
  if (drawn.has(canvas)) return;
  const state = { values: decode(canvas), grey: null, full: Number(canvas.dataset.full), step: Number(canvas.dataset.step) };
  drawn.set(canvas, state);
  const source = document.getElementById(canvas.dataset.image);
  if (!source) { paint(canvas); return; }
  const begin = () => {
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    state.grey = new Uint8ClampedArray(canvas.width * canvas.height);
    for (let i = 0; i < state.grey.length; i++)
      state.grey[i] = 0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2];
    paint(canvas);
  };
  if (source.complete) begin(); else source.addEventListener("load", begin);  // at once: printing does not wait
}

// The cell of the map below a pixel of the canvas: maps may be coarser than the image.
function cell(canvas, x, y) {
  const wide = Number(canvas.dataset.w), high = Number(canvas.dataset.h);
  return [Math.floor((x + 0.5) * wide / canvas.width), Math.floor((y + 0.5) * high / canvas.height), wide];
}

function paint(canvas) {
  const { values, grey, full, step } = drawn.get(canvas), context = canvas.getContext("2d");
  const out = context.createImageData(canvas.width, canvas.height), data = out.data;
  const alpha = Number(opacity.value) / 100, least = Number(threshold.value) / 100, shown = below.checked && grey;
  for (let i = 0; i < canvas.width * canvas.height; i++) {
    const [column, row, wide] = cell(canvas, i % canvas.width, Math.floor(i / canvas.width));
    const strength = Math.max(-1, Math.min(1, values[row * wide + column] * step / full)), size = Math.abs(strength);
    const share = size < least ? 0 : alpha * size, ground = shown ? grey[i] : 255;
    const colour = strength >= 0 ? WARM : COLD;
    for (let c = 0; c < 3; c++) data[4 * i + c] = ground * (1 - share) + colour[c] * share;
    data[4 * i + 3] = 255;
  }
  context.putImageData(out, 0, 0);
  if (canvas.dataset.at) {
    const [column, row] = canvas.dataset.at.split(",").map(Number);
    const across = canvas.width / canvas.dataset.w, down = canvas.height / canvas.dataset.h;
    context.strokeStyle = "#000"; context.strokeRect(column * across, row * down, across, down);
  }
}

function say(canvas, column, row) {
  const state = drawn.get(canvas);
  if (!state) return;
  const wide = Number(canvas.dataset.w), scale = Number(canvas.dataset.scale);
  column = Math.max(0, Math.min(wide - 1, column)); row = Math.max(0, Math.min(Number(canvas.dataset.h) - 1, row));
  const value = state.values[row * wide + column] * state.step, text = value.toPrecision(3);
  canvas.dataset.at = `${column},${row}`;
  document.getElementById(canvas.dataset.says).textContent =
    `row ${Math.floor(row * scale)}, column ${Math.floor(column * scale)}: ${value > 0 ? "+" : ""}${text}`;
}

function words() {
  const alpha = 0.94 * Number(opacity.value) / 100, least = Number(threshold.value) / 100;
  for (const word of document.querySelectorAll(".t")) {
    const strength = Number(word.dataset.s), share = Math.abs(strength) < least ? 0 : alpha * Math.abs(strength);
    word.style.background = `rgb(${(strength > 0 ? WARM : COLD).join(" ")} / ${share.toFixed(3)})`;
  }
}

function change() {
  for (const [one, unit] of [[opacity, " %"], [threshold, " %"]])
    document.getElementById(one.id + "-says").textContent = one.value + unit;
  for (const canvas of drawn.keys()) paint(canvas);
  words();
}

const maps = [...document.querySelectorAll("canvas[data-map]")];
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) { watch.unobserve(entry.target); open(entry.target); }
}, { rootMargin: "400px" });
for (const canvas of maps) {
  watch.observe(canvas);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    say(canvas, Math.floor((event.clientX - box.left) / box.width * canvas.dataset.w),
      Math.floor((event.clientY - box.top) / box.height * canvas.dataset.h));
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const [x, y] = (canvas.dataset.at || `${canvas.dataset.w >> 1},${canvas.dataset.h >> 1}`).split(",").map(Number);
    say(canvas, x + far * step[0], y + far * step[1]);
    paint(canvas);
  });
}
for (const one of [opacity, threshold, below]) if (one) one.addEventListener("input", change);
window.addEventListener("beforeprint", () => maps.forEach(open));

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.children[column];
        return cell.dataset.v === undefined ? cell.textContent.trim() : Number(cell.dataset.v);
      };
      const body = table.tBodies[0];
      [...body.rows].map((row) => [value(row), row]).sort(([a], [b]) => {
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // empty cells last
        const order = typeof a === "number" ? a - b : a.localeCompare(b);
        return falling ? -order : order;
      }).forEach(([, row]) => body.append(row));
    });
  });
}
