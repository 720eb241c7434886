// The page: what comes over the WebSocket, and what hands do.

import { drawLatency, drawProfile, showCase, showNumbers, showState } from "./panel.js";
import { VIEWS, Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const NAMES = { flair: "FLAIR", t1: "T1", t1ce: "T1ce", t2: "T2" };
const HEAD = 8; // bytes before a slice's labels: u32 index, f32 milliseconds
const AGAIN = 1500; // milliseconds until a lost desk is called again

const viewer = new Viewer($("volume"));
let given = null; // the case
let numbers = { state: "waiting", told: "" };
let areas = []; // pixels of each region in each slice that has arrived
const times = new Map(); // device milliseconds by slice, in the order of arrival
let newest = null;
let modality = null;
const volumes = new Map(); // grey volumes by modality, as promises

// Messages are taken one after the other: a case must be open before its slices are put in.
let queue = Promise.resolve();
let arrivals = 0;

function connect() {
  const socket = new WebSocket(new URL("feed", location.href.replace(/^http/, "ws")));
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => { queue = queue.then(() => take(data)).catch(console.error); };
  socket.onclose = () => {
    queue = queue.then(() => {
      const over = ["complete", "ended", "finished"].includes(numbers.state);
      showState("lost", over ? `${numbers.told} What is here stays until this page is closed.`.trim()
        : "The desk's program has ended, or its line to this page has. Trying again.");
    });
    setTimeout(connect, AGAIN);
  };
}

async function take(data) {
  if (data instanceof ArrayBuffer) return takeSlice(data);
  const message = JSON.parse(data);
  if (message.kind === "case") return takeCase(message);
  numbers = message;
  showState(numbers.state, numbers.told);
  if (given) showNumbers(numbers);
  if (!["waiting", "running"].includes(numbers.state) && $("follow").checked) settle();
  paint();
}

async function takeCase(message) {
  given = message;
  [areas, newest, arrivals] = [[], null, 0];
  times.clear();
  volumes.clear();
  showCase(given);
  await viewer.open(given.grid, given.regions);
  $("slice").max = given.grid[2] - 1;
  $("hint").hidden = true;
  choices("modalities", given.modalities.map((name) => [name, NAMES[name]]), shade);
  $("modalities").hidden = !given.modalities.length;
  if (given.modalities.length) shade(modality ?? given.modalities[0]).then(fetchAll).catch(console.error);
  else showHint("The images are not here: masks alone.");
  viewer.goTo({ x: given.grid[0] / 2, y: given.grid[1] / 2, z: Math.floor(given.grid[2] / 2) });
}

function takeSlice(data) {
  const view = new DataView(data);
  const index = view.getUint32(0, true);
  const labels = new Uint8Array(data, HEAD);
  viewer.put(index, labels);
  const time = view.getFloat32(4, true);
  if (!Number.isNaN(time)) times.set(index, time);
  const area = measure(labels);
  areas[index] = area;
  newest = index;
  arrivals += 1;
  if ($("follow").checked) follow(index, area);
  paint();
}

// Pixels of each region, and the middle of the whole tumour.
function measure(labels) {
  const wide = given.grid[0];
  const area = { WT: 0, TC: 0, ET: 0 };
  let [x, y] = [0, 0];
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at];
    if (!label) continue;
    area.WT += 1;
    area.TC += label !== 2;
    area.ET += label === 3;
    x += at % wide;
    y += Math.floor(at / wide);
  }
  if (area.WT) area.middle = { x: Math.round(x / area.WT), y: Math.round(y / area.WT) };
  return area;
}

function follow(index, area) {
  viewer.goTo({ ...(area.middle ?? {}), z: index });
}

// Once all is here, the slice with most tumour says more than the last.
function settle() {
  let best = -1;
  areas.forEach((area, index) => { if (area.WT > (areas[best]?.WT ?? 0)) best = index; });
  if (best >= 0) follow(best, areas[best]);
}

function showHint(words) {
  $("hint").textContent = words;
  $("hint").hidden = false;
}

function grey(name) {
  if (!volumes.has(name)) {
    volumes.set(name, fetch(`volume/${name}`).then((answer) => {
      if (!answer.ok) throw new Error(`volume ${name}: ${answer.status}`);
      return answer.arrayBuffer();
    }));
  }
  return volumes.get(name);
}

async function shade(name) {
  modality = name;
  const chosen = document.querySelector(`#modalities input[value="${name}"]`);
  if (chosen) chosen.checked = true;
  const bytes = await grey(name);
  if (modality === name) viewer.shade(new Uint8Array(bytes));
}

// So that the page has every modality when the desk has gone.
async function fetchAll() {
  for (const name of given.modalities) await grey(name);
}

function choices(id, pairs, chosen) {
  const labels = pairs.map(([value, title]) => {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name: id, value });
    input.onchange = () => chosen(value);
    label.append(input, title);
    return label;
  });
  $(id).replaceChildren($(id).querySelector("legend"), ...labels);
}

let painting = false;
function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    drawLatency($("latency"), [...times.values()], given?.grid[2] ?? 1);
    if (!given) return;
    const { z } = viewer.place;
    const unsure = (numbers.quality?.unsure ?? []).map((place) => place - given.first);
    $("slice").value = z;
    $("where").textContent = `Z ${z + given.first} of ${given.deep}${z === newest ? ", newest" : ""}`
      + (unsure.includes(z) ? ", unsure" : "");
    const failed = new Set(numbers.failed ?? []);
    drawProfile($("profile"), given.grid[2], areas, failed, unsure, given.regions, z);
  });
}
viewer.onMoved = () => {
  if (given && viewer.place.z !== viewer.sent) stay(); // by hand; turning the 3-D view moves nothing
  paint();
};
new ResizeObserver(paint).observe(document.body);

function stay() {
  $("follow").checked = false;
}

function goToSlice(z) {
  if (!given) return;
  stay();
  const within = Math.max(0, Math.min(given.grid[2] - 1, z));
  viewer.goTo({ ...(areas[within]?.middle ?? {}), z: within });
  paint();
}

function show(view) {
  document.querySelector(`#views input[value="${view}"]`).checked = true;
  viewer.show(view);
}

function fade(percent) {
  const within = Math.max(0, Math.min(100, percent));
  $("opacity").value = within;
  $("opaque").textContent = `${within} %`;
  viewer.setOpacity(within / 100);
}

let hidden = null; // opacity to come back to
function toggleMasks() {
  const now = Number($("opacity").value);
  fade(now ? 0 : hidden ?? 50);
  hidden = now || null;
}

const KEYS = {
  ArrowUp: () => goToSlice(viewer.place.z + 1),
  ArrowDown: () => goToSlice(viewer.place.z - 1),
  PageUp: () => goToSlice(viewer.place.z + 10),
  PageDown: () => goToSlice(viewer.place.z - 10),
  "+": () => fade(Number($("opacity").value) + 10),
  "=": () => fade(Number($("opacity").value) + 10),
  "-": () => fade(Number($("opacity").value) - 10),
  m: toggleMasks,
  f: () => { $("follow").click(); },
  v: () => {
    const names = Object.keys(VIEWS);
    const now = document.querySelector("#views input:checked").value;
    show(names[(names.indexOf(now) + 1) % names.length]);
  },
  "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (["range", "radio"].includes(event.target.type) && event.key.startsWith("Arrow")) return;
  const place = "1234".indexOf(event.key);
  const action = event.key.length === 1 && place >= 0
    ? given?.modalities[place] && (() => shade(given.modalities[place]))
    : KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  event.stopPropagation(); // NiiVue has keys of its own
  action();
}, true);

$("opacity").oninput = ({ target }) => fade(Number(target.value));
$("slice").oninput = ({ target }) => goToSlice(Number(target.value));
$("follow").onchange = () => { if ($("follow").checked && newest !== null) follow(newest, areas[newest]); };
$("keys").onclick = () => $("help").showModal();
const point = (event) => {
  if (!given || !(event.buttons & 1)) return;
  const { left, width } = $("profile").getBoundingClientRect();
  goToSlice(Math.floor(((event.clientX - left) / width) * given.grid[2]));
};
$("profile").onpointerdown = point;
$("profile").onpointermove = point;
choices("views", Object.entries(VIEWS), show);
document.querySelector("#views input").checked = true;

// For tests and the curious: what the page holds.
window.glioslice = {
  viewer,
  get numbers() { return numbers; },
  get arrivals() { return arrivals; },
};
connect();
