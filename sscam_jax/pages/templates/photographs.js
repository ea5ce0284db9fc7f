// A report of photographs: switches, the value under the pointer, downloads.
const byId = (id) => document.getElementById(id);
const figures = [...document.querySelectorAll("figure.map")];

function redraw(figure) {
  const image = figure.querySelector("img"), photo = figure.closest("article").querySelector(".photo");
  // The photograph is in the file once; each map's copy gets its address when it is seen.
  if (!image.src) image.src = photo.src;
  return mapOf(figure.dataset.map).then((map) => {
    draw(figure.querySelector("canvas"), map, byId("colours").value);
    figure.dataset.drawn = byId("colours").value;
  });
}

// Only what is near the window is drawn: a page of hundreds of maps opens at once.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    entry.target.dataset.near = entry.isIntersecting ? "1" : "";
    if (entry.isIntersecting && entry.target.dataset.drawn !== byId("colours").value) redraw(entry.target);
  }
}, { rootMargin: "300px" });
figures.forEach((figure) => near.observe(figure));
// A page with few maps draws the others when there is time, so that the browser's own print command finds them too.
if (figures.length <= 100) {
  const soon = window.requestIdleCallback ?? setTimeout;
  figures.forEach((figure) => soon(() => figure.dataset.drawn || redraw(figure)));
}

function style() {
  const opacity = byId("opacity").value, filter = byId("grey").checked ? "grayscale(1)" : "none";
  byId("opacity-value").textContent = `${opacity} %`;
  for (const figure of figures) {
    figure.querySelector("canvas").style.opacity = opacity / 100;
    figure.querySelector("img").style.filter = filter;
  }
}

function choose() {
  const layer = byId("layer")?.value ?? "", label = byId("class")?.value ?? "";
  const off = new Set([...document.querySelectorAll("input[name=method]:not(:checked)")].map((box) => box.value));
  for (const each of document.querySelectorAll("figure.map, details.curves")) {
    const other = (layer && each.dataset.layer !== layer) || (label && each.dataset.class !== label);
    each.hidden = other || off.has(each.dataset.method);
  }
}

// A chart is made when it is opened: those of 200 photographs are 22,000 elements.
const AXES = `<path class="axis" d="M0 0V100H200"/><text x="-6" y="4" text-anchor="end">1</text>
<text x="-6" y="104" text-anchor="end">0</text><text x="0" y="116">0</text>
<text x="200" y="116" text-anchor="end">100 % of the pixels</text>`;

// Numbers and texts of this file only: names go in by textContent.
function drawing(markup) {
  const holder = document.createElement("div");
  holder.innerHTML = markup;
  return holder.firstChild;
}

function curve(title, better, { values, areas }) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption"), legend = document.createElement("ul");
  const lines = values.map((line, m) => {
    const points = line.map((value, i) => `${200 * data.shares[i]},${100 - 100 * value}`).join(" ");
    return `<polyline class="line-${m % 6}" points="${points}"/>`;
  });
  const svg = drawing(`<svg viewBox="-34 -8 250 142" role="img">${AXES}${lines.join("")}</svg>`);
  svg.setAttribute("aria-label", `${title}: ${data.titles.map((name, m) => `${name} ${areas[m]}`).join(", ")}`);
  figure.className = "chart";
  legend.className = "legend";
  figure.append(svg, caption);
  caption.append(`${title}: the probability of the class. ${better} area is better.`, legend);
  data.titles.forEach((name, m) => {
    const entry = document.createElement("li"), line = `<path class="line-${m % 6}" d="M0 4H24"/>`;
    entry.append(drawing(`<svg viewBox="0 0 24 8" aria-hidden="true">${line}</svg>`), `${name} ${areas[m]}`);
    legend.append(entry);
  });
  return figure;
}

for (const details of document.querySelectorAll("details.curves")) {
  details.addEventListener("toggle", () => {
    const { insertion, deletion } = data.charts[details.dataset.chart], charts = details.querySelector(".charts");
    charts.replaceChildren(curve("Insertion", "A larger", insertion), curve("Deletion", "A smaller", deletion));
  });
}

byId("controls").addEventListener("submit", (event) => event.preventDefault());
byId("opacity").addEventListener("input", style);
byId("grey").addEventListener("change", style);
byId("colours").addEventListener("change", () => figures.filter((figure) => figure.dataset.near).forEach(redraw));
for (const control of document.querySelectorAll("#layer, #class, input[name=method]")) {
  control.addEventListener("change", choose);
}
byId("print").addEventListener("click", async () => {
  // Maps that were never in sight are not drawn yet, and would be white on paper.
  await Promise.all(figures.filter((figure) => !figure.hidden).map(redraw));
  window.print();
});

function ring(stack) {
  let found = stack.querySelector(".ring");
  if (!found) {
    found = document.createElement("i");
    found.className = "ring";
    stack.append(found);
  }
  return found;
}

// The same place in every map of the photograph, so that methods can be compared.
async function tell(article, y, x) {
  for (const figure of article.querySelectorAll("figure.map:not([hidden])")) {
    const value = valueAt(await mapOf(figure.dataset.map), y, x), mark = ring(figure.querySelector(".stack"));
    mark.style.left = `${100 * x}%`;
    mark.style.top = `${100 * y}%`;
    const text = `${value.toFixed(3)} at ${Math.round(100 * x)} % from the left, ${Math.round(100 * y)} % from the top`;
    figure.querySelector("output").textContent = text;
  }
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
for (const figure of figures) {
  const canvas = figure.querySelector("canvas"), article = figure.closest("article");
  // A screen reader says the value in the map that has the focus, not in all of them.
  canvas.addEventListener("focus", () => (figure.querySelector("output").ariaLive = "polite"));
  canvas.addEventListener("blur", () => (figure.querySelector("output").ariaLive = "off"));
  const pointed = (event) => {
    const box = canvas.getBoundingClientRect();
    article.dataset.y = (event.clientY - box.top) / box.height;
    article.dataset.x = (event.clientX - box.left) / box.width;
    tell(article, Number(article.dataset.y), Number(article.dataset.x));
  };
  canvas.addEventListener("pointermove", pointed);
  canvas.addEventListener("pointerdown", pointed);
  canvas.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();  // the page would scroll
    const moved = (now, by) => Math.min(Math.max(Number(now ?? 0.5) + by * (event.shiftKey ? 0.1 : 0.02), 0), 1);
    article.dataset.y = moved(article.dataset.y, step[0]);
    article.dataset.x = moved(article.dataset.x, step[1]);
    tell(article, Number(article.dataset.y), Number(article.dataset.x));
  });
  for (const button of figure.querySelectorAll("button")) {
    button.addEventListener("click", () => (button.dataset.get === "raw" ? saveRaw(figure) : saveOverlay(figure)));
  }
}

function fileName(figure, ending) {
  // Letters of every script stay; what a file system may refuse becomes a hyphen.
  const stem = figure.closest("article").querySelector("h2").textContent.replace(/\.[^.]*$/, "");
  const parts = [stem, figure.dataset.class, data.methods[figure.dataset.method]];
  if (data.layers.length > 1) parts.push(data.layers[figure.dataset.layer]);
  return parts.join("_").replace(/[^\p{L}\p{N}._+=-]+/gu, "-") + ending;
}

async function saveRaw(figure) {
  save(npy(await array(data.maps[figure.dataset.map].raw)), fileName(figure, ".npy"));
}

async function saveOverlay(figure) {
  const map = await mapOf(figure.dataset.map), photo = figure.closest("article").querySelector(".photo");
  const canvas = document.createElement("canvas"), table = tables[byId("colours").value];
  await photo.decode();  // a lazy image that was never in sight has no pixels
  const width = (canvas.width = photo.naturalWidth), height = (canvas.height = photo.naturalHeight);
  const context = canvas.getContext("2d"), opacity = byId("opacity").value / 100;
  context.drawImage(photo, 0, 0);
  const picture = context.getImageData(0, 0, width, height), pixels = picture.data;
  for (let i = 0; i < width * height; i++) {
    const value = valueAt(map, (Math.floor(i / width) + 0.5) / height, ((i % width) + 0.5) / width);
    const step = 3 * Math.round(255 * value), cover = opacity * value;
    const grey = 0.299 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2];
    for (let colour = 0; colour < 3; colour++) {
      const ground = byId("grey").checked ? grey : pixels[4 * i + colour];
      pixels[4 * i + colour] = (1 - cover) * ground + cover * table[step + colour];
    }
  }
  context.putImageData(picture, 0, 0);
  canvas.toBlob((blob) => save(blob, fileName(figure, ".png")));
}

style();
choose();
