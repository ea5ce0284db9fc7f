"use strict";
// What the pages share: arrays out of the file's text, maps drawn as overlays, tables that sort.
const data = JSON.parse(document.getElementById("data").textContent);
const TYPES = { "<f4": Float32Array, "<f2": Uint16Array, "|u1": Uint8Array };

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

const tables = Object.fromEntries(Object.entries(data.colours).map(([name, text]) => [name, bytes(text)]));

async function array(stored) {
  const stream = new Blob([bytes(stored.data)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  return { values: new TYPES[stored.type](buffer), shape: stored.shape, type: stored.type, buffer };
}

// Bilinear with half-pixel centres, as the library enlarges a raw map; then ReLU and the range [0, 1].
function enlarged(raw, [height, width]) {
  const [rows, columns] = raw.shape;
  const out = new Float32Array(height * width);
  let low = Infinity, high = -Infinity;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const value = Math.max(0, sampled(raw.values, rows, columns, (y + 0.5) / height, (x + 0.5) / width));
      out[y * width + x] = value;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
  }
  return { values: out.map((value) => (high > low ? (value - low) / (high - low) : 0)), shape: [height, width] };
}

// The value at a place given as shares of the height and the width, between the four nearest.
function sampled(values, rows, columns, atY, atX) {
  const y = Math.min(Math.max(atY * rows - 0.5, 0), rows - 1), x = Math.min(Math.max(atX * columns - 0.5, 0), columns - 1);
  const top = Math.floor(y), left = Math.floor(x);
  const down = Math.min(top + 1, rows - 1) * columns, right = Math.min(left + 1, columns - 1);
  const upper = values[top * columns + left] * (1 - x + left) + values[top * columns + right] * (x - left);
  const lower = values[down + left] * (1 - x + left) + values[down + right] * (x - left);
  return upper * (1 - y + top) + lower * (y - top);
}

// Promises, not maps: two figures that ask for a map at once share the work.
const known = new Map();
function mapOf(index) {
  if (!known.has(index)) known.set(index, decoded(data.maps[index]));
  return known.get(index);
}

async function decoded(stored) {
  if (!stored.map) return enlarged(await array(stored.raw), data.size);
  const map = await array(stored.map);
  return { values: Float32Array.from(map.values, (value) => value / 255), shape: map.shape };
}

function valueAt(map, y, x) {
  return sampled(map.values, map.shape[0], map.shape[1], y, x);
}

// The map's colour with the map itself as its opacity: over the photograph this is (1 - m) photograph + m colour.
function draw(canvas, map, colours) {
  const [height, width] = map.shape, table = tables[colours], picture = new ImageData(width, height);
  map.values.forEach((value, i) => {
    const step = Math.round(255 * value);
    picture.data.set([table[3 * step], table[3 * step + 1], table[3 * step + 2], step], 4 * i);
  });
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// By a link, because only a link gives a download its name.
function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // Not at once: some browsers read the blob after the click has returned.
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// NumPy's format, version 1.0: a header whose length is a multiple of 64, then the values.
function npy(stored) {
  const shape = `(${stored.shape.join(", ")}${stored.shape.length === 1 ? "," : ""})`;
  const text = `{'descr': '${stored.type}', 'fortran_order': False, 'shape': ${shape}, }`;
  const header = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const start = new Uint8Array(10);
  start.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  return new Blob([start, header, stored.buffer]);
}

function sorted(table, column, falling) {
  const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  const compare = (a, b) => {
    const [left, right] = [key(a), key(b)], [x, y] = [Number(left), Number(right)];
    if (left === "" || right === "") return (left === "") - (right === "");  // without a value: at the end
    const order = Number.isNaN(x) || Number.isNaN(y) ? left.localeCompare(right) : x - y;
    return falling ? -order : order;
  };
  // Rows that are there are moved, so that a link with the focus keeps it.
  for (const body of table.tBodies) body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    // A button inside the heading: Tab reaches it, and a screen reader still reads the heading.
    const button = document.createElement("button");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const falling = cell.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", falling ? "descending" : "ascending");
      sorted(table, column, falling);
    });
  });
}
