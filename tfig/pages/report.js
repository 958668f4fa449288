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
  if (drawn.has(canvas)) return Promise.resolve();
  const state = { values: decode(canvas), grey: null, full: Number(canvas.dataset.full), step: Number(canvas.dataset.step) };
  drawn.set(canvas, state);
  const source = document.getElementById(canvas.dataset.image);
  if (!source) { paint(canvas); return Promise.resolve(); }
  return source.decode().then(() => {
    const context = canvas.getContext("2d");
    context.drawImage(source, 0, 0, canvas.width, canvas.height);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    state.grey = new Uint8ClampedArray(canvas.width * canvas.height);
    for (let i = 0; i < state.grey.length; i++)
      state.grey[i] = 0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2];
    paint(canvas);
  });
}

function paint(canvas) {
  const { values, grey, full, step } = drawn.get(canvas), context = canvas.getContext("2d");
  const out = context.createImageData(canvas.width, canvas.height), data = out.data;
  const alpha = Number(opacity.value) / 100, least = Number(threshold.value) / 100, shown = below.checked && grey;
  for (let i = 0; i < values.length; i++) {
    const strength = Math.max(-1, Math.min(1, values[i] * step / full)), size = Math.abs(strength);
    const share = size < least ? 0 : alpha * size, ground = shown ? grey[i] : 255;
    const colour = strength >= 0 ? WARM : COLD;
    for (let c = 0; c < 3; c++) data[4 * i + c] = ground * (1 - share) + colour[c] * share;
    data[4 * i + 3] = 255;
  }
  context.putImageData(out, 0, 0);
  if (canvas.dataset.at) {
    const [x, y] = canvas.dataset.at.split(",").map(Number);
    context.strokeStyle = "#000"; context.strokeRect(x - 0.5, y - 0.5, 2, 2);
  }
}

function say(canvas, x, y) {
  const state = drawn.get(canvas);
  if (!state) return;
  x = Math.max(0, Math.min(canvas.width - 1, x)); y = Math.max(0, Math.min(canvas.height - 1, y));
  const value = state.values[y * canvas.width + x] * state.step, text = value.toPrecision(3);
  canvas.dataset.at = `${x},${y}`;
  document.getElementById(canvas.dataset.says).textContent =
    `row ${Math.floor(y * canvas.dataset.scale)}, column ${Math.floor(x * canvas.dataset.scale)}: ${value > 0 ? "+" : ""}${text}`;
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
    say(canvas, Math.floor((event.clientX - box.left) / box.width * canvas.width),
      Math.floor((event.clientY - box.top) / box.height * canvas.height));
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    const [x, y] = (canvas.dataset.at || `${canvas.width >> 1},${canvas.height >> 1}`).split(",").map(Number);
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
