// The numbers beside the volume, the plot of latencies and the profile of the slices.

const $ = (id) => document.getElementById(id);
const STATES = {
  waiting: "waiting for the board", running: "streaming", complete: "complete", ended: "ended early",
  lost: "host disconnected", finished: "finished case",
};
const text = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export function showState(state, message, toLookAt = 0) {
  const chip = document.querySelector("#state .chip");
  const review = ["complete", "finished"].includes(state) ? toLookAt : 0;
  const words = `${STATES[state] ?? state}${review ? `, ${review} slice${review > 1 ? "s" : ""} to look at` : ""}`;
  if (chip.textContent !== words) {
    chip.dataset.state = state;
    chip.toggleAttribute("data-review", review > 0); // amber, not green
    chip.textContent = words;
  }
  $("message").hidden = !message;
  if ($("message").textContent !== message) $("message").textContent = message;
}

export function showCase(given) {
  $("case").textContent = given.name ?? "the case on the board";
  document.title = `${given.name ?? "played case"} – glioslice`;
  $("model").textContent = given.model?.name ?? "not known";
  $("digest").textContent = given.model ? `SHA-256 ${given.model.sha256}` : "";
  $("mode").textContent = given.mode ?? "";
  $("port").textContent = given.port ?? "";
  showWarnings(given.warnings ?? []);
  $("made").textContent = given.version ? `glioslice ${given.version}` : "";
  const rows = given.regions.map(({ name, title, colour }) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${colour})`;
    const short = document.createElement("b");
    short.textContent = name;
    head.append(swatch, short, title);
    row.append(head, cell(`${name}-ml`), cell(`${name}-mm`), cell(`${name}-dice`, "dice"));
    return row;
  });
  $("regions").tBodies[0].replaceChildren(...rows);
}

// What a reader must know before the numbers.
function showWarnings(found) {
  const text = found.join("\n");
  if ($("warnings").dataset.text === text) return; // it may have been folded
  $("warnings").dataset.text = text;
  $("warnings").hidden = !found.length;
  $("warnings").querySelector("summary").textContent = found.length === 1 ? "Warning" : `Warnings: ${found.length}`;
  $("warnings").querySelector("ul").replaceChildren(...found.map((warning) => {
    const item = document.createElement("li");
    item.textContent = warning;
    return item;
  }));
}

function cell(id, kind = "") {
  const made = document.createElement("td");
  made.className = kind;
  made.hidden = Boolean(kind);
  made.id = id;
  made.textContent = "–";
  return made;
}

export function showNumbers(numbers) {
  for (const [region, ml] of Object.entries(numbers.volumes_ml ?? {})) {
    $(`${region}-ml`).textContent = ml.toFixed(1);
    $(`${region}-mm`).textContent = text(numbers.diameters_mm?.[region], 1);
    $(`${region}-dice`).textContent = text(numbers.dice?.[region], 3);
  }
  for (const part of document.querySelectorAll(".dice")) part.hidden = !numbers.dice;
  if (numbers.warnings) showWarnings(numbers.warnings);
  if (numbers.date) {
    $("made").textContent = `Made on ${numbers.date.slice(0, 16).replace("T", " ")} with glioslice ${numbers.version}.`;
  }
  const running = ["waiting", "running"].includes(numbers.state);
  $("device").hidden = !running && !numbers.device_ms;
  $("link").hidden = !running && !numbers.bytes_down;
  document.querySelector(".progress").hidden = numbers.state === "finished";
  $("sofar").textContent = numbers.state === "running" ? "so far" : "";
  $("progress").max = numbers.slices || 1;
  $("progress").value = numbers.masks ?? 0;
  $("done").textContent = numbers.slices
    ? `${numbers.masks} of ${numbers.slices} slices${left(numbers)}` : "";
  for (const key of ["p50", "p90", "p99"]) $(key).textContent = text(numbers.device_ms?.[key], 2);
  $("rate").textContent = text(numbers.slices_per_second, 1);
  const link = linkUse(numbers);
  $("use").value = link?.use ?? 0;
  $("use").hidden = !running && !link?.use;
  $("share").textContent = !link || link.use === null ? "–" : `${Math.round(100 * link.use)} %`;
  $("up").textContent = text(link && link.up / 1000, 1);
  $("down").textContent = text(link && link.down / 1000, 1);
  $("retransmitted").textContent = numbers.retransmits ?? "–";
}

// The current rate of bytes; once the run is over, its average.
function linkUse({ state, link, bytes_up: up, bytes_down: down, seconds }) {
  if (state === "running" || !seconds) return link;
  const mean = { up: up / seconds, down: down / seconds };
  return { ...mean, use: link?.baud ? Math.min(1, (10 * Math.max(mean.up, mean.down)) / link.baud) : null };
}

function left({ state, slices, masks, slices_per_second: rate }) {
  if (state !== "running" || !rate) return "";
  const seconds = Math.round((slices - masks) / rate);
  return seconds < 90 ? `, ${seconds} s left` : `, ${Math.round(seconds / 60)} min left`;
}

// A canvas whose unit is a CSS pixel; returns null while it is hidden.
function paper(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  if (!width) return null;
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  return { pen, width, height };
}

// Device milliseconds in the order of arrival, from 0 up, with the median as a line.
export function drawLatency(canvas, times, slices) {
  canvas.hidden = !times.length && slices === 0;
  const sheet = canvas.hidden ? null : paper(canvas);
  if (!sheet) return;
  const { pen, width, height } = sheet;
  const [left, bottom, top] = [30, height - 16, 6];
  const sorted = [...times].sort((a, b) => a - b);
  const step = nice(1.15 * (sorted[Math.floor(0.95 * (sorted.length - 1))] ?? 1) / 3);
  const most = 3 * step;
  const x = (order) => left + ((width - left - 4) * order) / Math.max(1, slices - 1);
  const y = (ms) => bottom - ((bottom - top) * Math.min(ms, most)) / most;
  pen.textBaseline = "middle";
  for (let ms = 0; ms <= most + step / 2; ms += step) {
    line(pen, "#2b3542", left, y(ms), width - 4, y(ms));
    pen.fillStyle = "#a3b1bf";
    pen.textAlign = "right";
    pen.fillText(String(+ms.toPrecision(3)), left - 5, y(ms));
  }
  pen.textAlign = "left";
  pen.fillText("first slice", left, height - 6);
  pen.textAlign = "right";
  pen.fillText("last", width - 4, height - 6);
  if (!times.length) return;
  const median = sorted[Math.floor(sorted.length / 2)];
  pen.setLineDash([4, 3]);
  line(pen, "#a3b1bf", left, y(median), width - 4, y(median));
  pen.setLineDash([]);
  pen.fillStyle = "#7cc4ff";
  times.forEach((ms, order) => {
    if (ms > most) pen.fillRect(x(order) - 1, top - 4, 2, 5); // off the scale: a mark at the top
    else pen.fillRect(x(order) - 1.2, y(ms) - 1.2, 2.4, 2.4);
  });
}

function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step || 1));
  return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= step);
}

function line(pen, colour, x, y, toX, toY) {
  pen.strokeStyle = colour;
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(toX, toY);
  pen.stroke();
}

// Links to the slices of which the network is least sure: `go` is called with a slice's index.
export function showLookAt(unsure, first, go) {
  const key = unsure.join();
  if ($("look").dataset.key === key) return;
  $("look").dataset.key = key;
  $("look").hidden = !unsure.length;
  $("look").querySelector("ol").replaceChildren(...unsure.map((index) => {
    const [item, button] = [document.createElement("li"), document.createElement("button")];
    button.type = "button";
    button.textContent = `slice ${index + first + 1}`;
    button.onclick = () => go(index);
    item.append(button);
    return item;
  }));
}

// A column for each slice, feet to head: the area of each region, slices that failed, and the rank
// of those of which the network is least sure.
export function drawProfile(canvas, slices, areas, failed, unsure, regions, here) {
  const sheet = paper(canvas);
  if (!sheet) return;
  const { pen, width, height } = sheet;
  const column = width / slices;
  const most = Math.max(400, ...areas.map((area) => area?.WT ?? 0));
  const base = height - 14;
  for (let index = 0; index < slices; index++) {
    const area = areas[index];
    pen.fillStyle = area ? "#33404e" : failed.has(index) ? "#ffb454" : "#1d2530";
    pen.fillRect(index * column, base, Math.ceil(column), 3);
    for (const { name, colour } of area ? regions : []) {
      const tall = ((base - 18) * area[name]) / most;
      pen.fillStyle = `rgb(${colour})`; // smaller regions over the larger, as they are nested
      pen.fillRect(index * column, base - tall, Math.ceil(column), tall);
    }
  }
  pen.fillStyle = "#ffdca8";
  pen.textAlign = "center";
  unsure.forEach((index, rank) => {
    const middle = (index + 0.5) * column;
    pen.beginPath();
    pen.moveTo(middle - 3.5, 11);
    pen.lineTo(middle + 3.5, 11);
    pen.lineTo(middle, 16);
    pen.fill();
    pen.fillText(String(rank + 1), middle, 9);
  });
  pen.textAlign = "left";
  pen.strokeStyle = "#ffffff";
  pen.strokeRect(Math.floor(here * column) + 0.5, 1.5, Math.max(2, column), base + 1);
  pen.fillStyle = "#a3b1bf";
  pen.fillText("feet", 4, height - 1);
  pen.textAlign = "right";
  const marks = [unsure.length && "\u25bc: look at first", failed.size && "orange: the board failed"].filter(Boolean);
  pen.fillText(marks.length ? `head (${marks.join(", ")})` : "head", width - 4, height - 1);
}
