// Draws the last hour: plain SVG, sized to its frame, with a text for screen readers.

const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 144;
const LEFT = 40;
const RIGHT = 6;
const TOP = 8;
const BOTTOM = 20;

export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 9.95) return Math.round(value).toLocaleString("en");
  return value.toFixed(1).replace(/\.0$/, "");
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return both(seconds, 3600, "h", 60, "min");
  return both(seconds, 86400, "d", 3600, "h");
}

function both(seconds, large, largeName, small, smallName) {
  const rest = Math.floor((seconds % large) / small);
  return `${Math.floor(seconds / large)} ${largeName}${rest ? ` ${rest} ${smallName}` : ""}`;
}

export function clock(at) {
  const time = new Date(at * 1000);
  return `${String(time.getHours()).padStart(2, "0")}:${String(time.getMinutes()).padStart(2, "0")}`;
}

function element(name, attributes, text) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The next round number for an axis.
function ceiling(value, steps) {
  if (!(value > 0)) return 1;
  const decade = 10 ** Math.floor(Math.log10(value));
  return steps.map((step) => step * decade).find((step) => step >= value * 1.0001) ?? 10 * decade;
}

const DECIMAL = [1, 2, 3, 4, 5, 6, 8, 10];
const SECONDS = [10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 604800];

function top(values, isTime) {
  const highest = Math.max(0, ...values.filter((value) => value !== null));
  if (!isTime) return ceiling(highest, DECIMAL);
  return SECONDS.find((step) => step >= highest) ?? ceiling(highest / 86400, DECIMAL) * 86400;
}

function frame(plot, rows, highest, label) {
  const width = Math.max(220, plot.clientWidth);
  const height = Math.max(90, plot.clientHeight || HEIGHT);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const x = (place) => LEFT + ((width - LEFT - RIGHT) * place) / rows.length;
  const y = (value) => height - BOTTOM - ((height - TOP - BOTTOM) * value) / highest;
  for (const share of [0, 0.5, 1]) {
    const value = highest * share;
    svg.append(element("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(element("text", { x: LEFT - 7, y: y(value) + 4, "text-anchor": "end" }, share ? label(value) : "0"));
  }
  rows.forEach((row, place) => {
    if ((row[0] / 60) % 15) return;
    const edge = place > rows.length - 4 ? "end" : place < 3 ? "start" : "middle";
    svg.append(element("text", { x: x(place + 0.5), y: height - 4, "text-anchor": edge }, clock(row[0])));
  });
  return { svg, x, y };
}

function put(plot, svg, text) {
  svg.append(element("title", {}, text));
  svg.setAttribute("aria-label", text);
  plot.replaceChildren(svg);
}

// Bars of changes a second, one per minute; the current minute counts only its elapsed part.
export function bars(plot, rows, now) {
  const speeds = rows.map((row) => {
    const seconds = Math.min(60, Math.max(5, now - row[0]));
    return [row[1] / seconds, row[2] / seconds, row[3] / seconds];
  });
  const sums = speeds.map((each) => each[0] + each[1] + each[2]);
  const highest = top(sums, false);
  const { svg, x, y } = frame(plot, rows, highest, number);
  const gap = x(1) - x(0) > 6 ? 1.5 : 0.5;
  speeds.forEach((speed, place) => {
    let below = 0;
    ["applied", "unchanged", "dead"].forEach((kind, index) => {
      if (!speed[index]) return;
      const end = below + speed[index];
      const height = Math.max(1, y(below) - y(end));
      svg.append(element("rect", {
        class: `bar ${kind}`, x: x(place) + gap / 2, width: x(1) - x(0) - gap, y: y(below) - height, height, rx: 1,
      }));
      below = end;
    });
  });
  const most = Math.max(...sums);
  put(plot, svg, `Changes a second over the last hour: ${number(sums.at(-1))} now, ${number(most)} at most.`);
}

function paths(values, x, y) {
  const pieces = [];
  let piece = null;
  values.forEach((value, place) => {
    if (value === null) {
      piece = null;
    } else {
      if (!piece) pieces.push((piece = []));
      piece.push([x(place + 0.5), y(value)]);
    }
  });
  return pieces;
}

// Lines over samples, with a gap where samples are missing.
export function lines(plot, rows, series, { name, isTime = false }) {
  const values = series.map(({ column }) => rows.map((row) => row[column]));
  const label = isTime ? duration : number;
  const highest = top(values.flat(), isTime);
  const { svg, x, y } = frame(plot, rows, highest, label);
  series.forEach(({ kind, filled }, index) => {
    for (const piece of paths(values[index], x, y)) {
      const points = piece.map(([left, up]) => `${left.toFixed(1)},${up.toFixed(1)}`);
      if (filled && piece.length > 1) {
        const [first, last] = [piece[0][0], piece.at(-1)[0]];
        svg.append(element("polygon", {
          class: `area ${kind}`, points: [`${first},${y(0)}`, ...points, `${last},${y(0)}`].join(" "),
        }));
      }
      if (piece.length > 1) svg.append(element("polyline", { class: `line ${kind}`, points: points.join(" ") }));
      else if (kind !== "limit") svg.append(element("circle", { class: `mark ${kind}`, cx: piece[0][0], cy: piece[0][1], r: 2.5 }));
    }
  });
  const said = series.map(({ says }, index) => {
    const known = values[index].filter((value) => value !== null);
    return known.length ? `${says} ${label(known.at(-1))} now, ${label(Math.max(...known))} at most` : `${says} not known`;
  });
  put(plot, svg, `${name} over the last hour: ${said.join("; ")}.`);
}
