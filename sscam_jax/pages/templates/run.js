// A report of a run: a scatter, differences of two methods, and examples.
const byId = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg", WIDTH = 400, HEIGHT = 280;

function element(name, attributes, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const short = (value) => (value === null ? "no value" : String(Number(value.toPrecision(4))));

function range(values) {
  const low = Math.min(...values), high = Math.max(...values);
  // All values equal: a range around them, or places would be divided by 0.
  return high > low ? [low, high] : [low - 0.5, high + 0.5];
}

function axes(svg, across, up, x, y) {
  svg.append(element("path", { class: "axis", d: `M0 0V${HEIGHT}H${WIDTH}` }));
  if (x) {
    svg.append(element("text", { x: 0, y: HEIGHT + 15 }, short(x[0])));
    svg.append(element("text", { x: WIDTH, y: HEIGHT + 15, "text-anchor": "end" }, short(x[1])));
  }
  svg.append(element("text", { x: WIDTH / 2, y: HEIGHT + 30, "text-anchor": "middle" }, across));
  svg.append(element("text", { x: -5, y: HEIGHT, "text-anchor": "end" }, short(y[0])));
  svg.append(element("text", { x: -5, y: 8, "text-anchor": "end" }, short(y[1])));
  svg.append(element("text", { x: 0, y: -4 }, up));
}

// One image of a chart is chosen, by the pointer or the arrow keys; its photograph and its values are beside the chart.
function choosable(svg, marks) {
  const [picture, output] = svg.parentElement.querySelectorAll("img, output");
  let chosen = -1;
  const choose = (next) => {
    marks[chosen]?.mark.classList.remove("chosen");
    chosen = (next + marks.length) % marks.length;
    const { mark, image, text } = marks[chosen];
    mark.classList.add("chosen");
    mark.parentElement.append(mark);  // SVG draws in this order: the chosen one is on top
    output.textContent = `${data.names[image]}: ${text}`;
    picture.hidden = !data.photos[image];
    if (data.photos[image]) picture.src = data.photos[image];
  };
  marks.forEach(({ mark }, i) => mark.addEventListener("pointermove", () => chosen !== i && choose(i)));
  // Assigned, not added: a chart that is drawn again must not listen twice.
  svg.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step || !marks.length) return;
    event.preventDefault();
    choose(chosen < 0 ? 0 : chosen + step);
  };
  output.textContent = "";
  picture.hidden = true;
}

function scatter() {
  const svg = byId("scatter"), m = Number(byId("scatter-method").value);
  const [i, j] = [Number(byId("scatter-x").value), Number(byId("scatter-y").value)];
  const [xs, ys] = [data.values[m][i], data.values[m][j]];
  const images = data.names.map((_, n) => n).filter((n) => xs[n] !== null && ys[n] !== null);
  svg.replaceChildren();
  const [x, y] = [data.metrics[i].title, data.metrics[j].title];
  svg.setAttribute("aria-label", `${data.methods[m]}: ${y} against ${x} of ${images.length} images`);
  if (!images.length) return svg.append(element("text", { x: 20, y: 40 }, "no image has both values"));
  const [across, up] = [range(images.map((n) => xs[n])), range(images.map((n) => ys[n]))];
  axes(svg, x, y, across, up);
  // The arrow keys go from left to right.
  images.sort((a, b) => xs[a] - xs[b]);
  choosable(svg, images.map((n) => {
    const cx = (WIDTH * (xs[n] - across[0])) / (across[1] - across[0]), cy = HEIGHT - (HEIGHT * (ys[n] - up[0])) / (up[1] - up[0]);
    const mark = element("circle", { cx, cy, r: 4 });
    svg.append(mark);
    return { mark, image: n, text: `${x} ${short(xs[n])}, ${y} ${short(ys[n])}` };
  }));
}

function pairs() {
  const svg = byId("pairs"), k = Number(byId("pairs-metric").value), metric = data.metrics[k];
  const [a, b] = [Number(byId("pairs-first").value), Number(byId("pairs-second").value)];
  const [first, second] = [data.values[a][k], data.values[b][k]], sign = metric.better === "higher" ? 1 : -1;
  const found = data.names.map((_, n) => n).filter((n) => first[n] !== null && second[n] !== null)
    .map((n) => ({ n, by: first[n] - second[n] })).sort((p, q) => q.by - p.by);
  const better = found.filter(({ by }) => sign * by > 0).length, worse = found.filter(({ by }) => sign * by < 0).length;
  const [p, q] = [data.methods[a], data.methods[b]];
  const said = `${metric.title}: ${p} is better on ${better} of ${found.length} images, ${q} on ${worse}`;
  byId("pairs-count").textContent = said;
  svg.setAttribute("aria-label", said);
  svg.replaceChildren();
  if (!found.length) return svg.append(element("text", { x: 20, y: 40 }, "no image has both values"));
  const [low, high] = range([0, ...found.map(({ by }) => by)]), place = (by) => HEIGHT - (HEIGHT * (by - low)) / (high - low);
  axes(svg, "images, by the difference", `${p} − ${q}`, null, [low, high]);
  svg.append(element("path", { class: "axis", d: `M0 ${place(0)}H${WIDTH}` }));
  const width = WIDTH / found.length;
  choosable(svg, found.map(({ n, by }, i) => {
    // At least a pixel: an image without a difference can be pointed at too.
    const y = Math.min(place(by), place(0)), height = Math.max(Math.abs(place(by) - place(0)), 1);
    const mark = element("rect", { x: i * width, y, width: Math.max(width * 0.9, 0.5), height });
    if (sign * by < 0) mark.classList.add("worse");
    svg.append(mark);
    return { mark, image: n, text: `${short(first[n])} − ${short(second[n])} = ${short(by)}` };
  }));
}

function example(method, image, k) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const place = data.places[`${image} ${method}`];
  figure.className = "map";
  if (data.photos[image]) {
    const stack = document.createElement("div"), photo = new Image();
    stack.className = "stack";
    photo.src = data.photos[image];
    photo.alt = data.names[image];
    photo.style.filter = "grayscale(1)";
    stack.append(photo);
    if (place !== undefined) {
      const canvas = document.createElement("canvas");
      canvas.style.opacity = byId("opacity").value / 100;
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `map of ${data.names[image]} by ${method}`);
      stack.append(canvas);
      mapOf(place).then((map) => draw(canvas, map, "plasma"));
    }
    figure.append(stack);
  }
  const value = data.values[data.methods.indexOf(method)][k][image];
  caption.textContent = `${data.names[image]}: ${short(value)}`;
  figure.append(caption);
  return figure;
}

function examples() {
  const k = Number(byId("examples-metric").value), target = byId("examples");
  target.replaceChildren();
  for (const [method, ranks] of Object.entries(data.picks[data.metrics[k].name])) {
    const heading = document.createElement("h3"), row = document.createElement("div");
    heading.textContent = method;
    row.className = "ranks";
    for (const [rank, images] of Object.entries(ranks)) {
      for (const image of images) {
        const figure = example(method, image, k), mark = document.createElement("strong");
        mark.textContent = `${rank}, `;
        figure.querySelector("figcaption").prepend(mark);
        row.append(figure);
      }
    }
    target.append(heading, row);
  }
}

for (const form of document.querySelectorAll("form")) form.addEventListener("submit", (event) => event.preventDefault());
for (const [ids, work] of [[["scatter-method", "scatter-x", "scatter-y"], scatter], [["examples-metric"], examples]]) {
  ids.forEach((id) => byId(id).addEventListener("change", work));
  work();
}
if (byId("pairs")) {
  ["pairs-first", "pairs-second", "pairs-metric"].forEach((id) => byId(id).addEventListener("change", pairs));
  pairs();
}
byId("opacity")?.addEventListener("input", () => {
  for (const canvas of document.querySelectorAll("#examples canvas")) canvas.style.opacity = byId("opacity").value / 100;
});
