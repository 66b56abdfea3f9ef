// A small chart of what was a moment ago: an SVG with its own text for those who do not see it.

const SVG = "http://www.w3.org/2000/svg";
const POINTS = 60;
const [WIDTH, HEIGHT] = [120, 32];
const TOLD_EVERY = 10; // a text that changes with each point would never be read to its end

/** A line in `svg` of the last sixty values; `write(value)` is how its text says them. */
export class Chart {
  #svg;
  #title;
  #write;
  #values = [];
  #line;
  #area;
  #pushed = 0;

  constructor(svg, title, write = String) {
    [this.#svg, this.#title, this.#write] = [svg, title, write];
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", `${title}: nothing yet`);
    svg.classList.add("line");
    this.#area = svg.appendChild(document.createElementNS(SVG, "polygon"));
    this.#line = svg.appendChild(document.createElementNS(SVG, "polyline"));
  }

  push(value) {
    this.#values.push(value);
    if (this.#values.length > POINTS) this.#values.shift();
    this.#draw();
    if (this.#pushed++ % TOLD_EVERY === 0) this.#tell();
  }

  #draw() {
    const most = Math.max(1, ...this.#values);
    const step = WIDTH / (POINTS - 1);
    const left = WIDTH - step * (this.#values.length - 1);
    const point = (value, place) => `${(left + place * step).toFixed(1)},${(HEIGHT - 1 - (value / most) * (HEIGHT - 3)).toFixed(1)}`;
    const points = this.#values.map(point).join(" ");
    this.#line.setAttribute("points", points);
    this.#area.setAttribute("points", `${left.toFixed(1)},${HEIGHT} ${points} ${WIDTH},${HEIGHT}`);
  }

  #tell() {
    const [least, most, now] = [Math.min(...this.#values), Math.max(...this.#values), this.#values.at(-1)].map(this.#write);
    this.#svg.setAttribute("aria-label", `${this.#title}: ${now} now, between ${least} and ${most} in the last minute`);
  }
}
