// The page: messages from the WebSocket, and the controls.

import { showBoards } from "./boards.js";
import { drawLatency, drawProfile, showCase, showLookAt, showNumbers, showState } from "./panel.js";
import { VIEWS, Viewer } from "./viewer.js";

const $ = (id) => document.getElementById(id);
const NAMES = { flair: "FLAIR", t1: "T1", t1ce: "T1ce", t2: "T2" };
const HEAD = 8; // bytes before a slice's labels: u32 index, f32 milliseconds
const RECONNECT = 1500; // milliseconds until a lost host is tried again

const viewer = new Viewer($("volume"));
let given = null; // the case shown
let numbers = { state: "waiting", message: "" };
let areas = []; // pixels of each region in each slice that has arrived
const times = new Map(); // device milliseconds by slice, in the order of arrival
let newest = null;
let modality = null;
const volumes = new Map(); // grey volumes by modality, as promises

// Messages are handled in order: a case must be open before its slices are added.
let queue = Promise.resolve();
let arrivals = 0;

function connect() {
  const socket = new WebSocket(new URL("feed", location.href.replace(/^http/, "ws")));
  socket.binaryType = "arraybuffer";
  socket.onmessage = ({ data }) => { queue = queue.then(() => handle(data)).catch(console.error); };
  socket.onclose = () => {
    queue = queue.then(() => {
      const over = ["complete", "ended", "finished"].includes(numbers.state);
      showState("lost", over ? `${numbers.message} The page keeps its contents until it is closed.`.trim()
        : "The program on the host has ended or cannot be reached. Reconnecting.");
    });
    setTimeout(connect, RECONNECT);
  };
}

async function handle(data) {
  if (data instanceof ArrayBuffer) return addSlice(data);
  const message = JSON.parse(data);
  if (message.kind === "case") return openCase(message);
  numbers = message;
  showState(numbers.state, numbers.message, unsure().length);
  showBoards(numbers.boards);
  if (given) {
    showNumbers(numbers);
    showLookAt(unsure(), given.first, goToSlice);
  } else if (numbers.state === "waiting") showHint("Waiting for the board.");
  if (!["waiting", "running"].includes(numbers.state) && $("follow").checked) showLargest();
  paint();
}

async function openCase(message) {
  given = message;
  [areas, newest, arrivals] = [[], null, 0];
  times.clear();
  volumes.clear();
  showCase(given);
  await viewer.open(given.grid, given.regions);
  $("slice").max = given.grid[2] - 1;
  $("follow").parentElement.hidden = given.mode === "finished case";
  $("truth").hidden = !given.truth;
  if (given.truth) loadTruth().catch(console.error);
  $("hint").hidden = true;
  choices("modalities", given.modalities.map((name) => [name, NAMES[name]]), shade);
  $("modalities").hidden = !given.modalities.length;
  if (given.modalities.length) shade(modality ?? given.modalities[0]).then(fetchAll).catch(console.error);
  else showHint("The images are not on this host: only masks are shown.");
  viewer.goTo({ x: given.grid[0] / 2, y: given.grid[1] / 2, z: Math.floor(given.grid[2] / 2) });
}

function addSlice(data) {
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

// The indices of the slices to look at, the worst first; the page counts slices from 1.
function unsure() {
  return (numbers.quality?.unsure ?? []).map((number) => number - 1 - (given?.first ?? 0));
}

// Pixels of each region, and the centre of the whole tumour.
function measure(labels) {
  const width = given.grid[0];
  const area = { WT: 0, TC: 0, ET: 0 };
  let [x, y] = [0, 0];
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at];
    if (!label) continue;
    area.WT += 1;
    area.TC += label !== 2;
    area.ET += label === 3;
    x += at % width;
    y += Math.floor(at / width);
  }
  if (area.WT) area.middle = { x: Math.round(x / area.WT), y: Math.round(y / area.WT) };
  return area;
}

function follow(index, area) {
  viewer.goTo({ ...(area.middle ?? {}), z: index });
}

// At the end, show the slice with most tumour rather than the last one.
function showLargest() {
  let best = -1;
  areas.forEach((area, index) => { if (area.WT > (areas[best]?.WT ?? 0)) best = index; });
  if (best >= 0) follow(best, areas[best]);
}

function showHint(text) {
  $("hint").textContent = text;
  $("hint").hidden = false;
}

function grey(name) {
  if (!volumes.has(name)) {
    volumes.set(name, fetch(`volume/${name}`).then((response) => {
      if (!response.ok) throw new Error(`volume ${name}: ${response.status}`);
      return response.arrayBuffer();
    }));
  }
  return volumes.get(name);
}

async function loadTruth() {
  const response = await fetch("volume/truth");
  if (response.ok) await viewer.addTruth(new Uint8Array(await response.arrayBuffer()));
  viewer.showTruth($("truth").firstElementChild.checked);
}

async function shade(name) {
  modality = name;
  showHint(`Loading ${NAMES[name]}.`);
  const chosen = document.querySelector(`#modalities input[value="${name}"]`);
  if (chosen) chosen.checked = true;
  const bytes = await grey(name);
  if (modality !== name) return;
  viewer.shade(new Uint8Array(bytes));
  $("hint").hidden = true;
}

// So that the page has every modality when the host has disconnected.
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
    drawLatency($("latency"), [...times.values()], numbers.state === "finished" ? 0 : given?.grid[2] ?? 1);
    if (!given) return;
    const { z } = viewer.place;
    const rank = unsure().indexOf(z) + 1;
    $("slice").value = z;
    $("where").textContent = `${z + given.first + 1} of ${given.deep}`
      + (rank ? `, look (${rank})` : z === newest && numbers.state === "running" ? ", newest" : "");
    const failed = new Set(numbers.failed ?? []);
    drawProfile($("profile"), given.grid[2], areas, failed, unsure(), given.regions, z);
  });
}
viewer.onMoved = () => {
  if (given && viewer.place.z !== viewer.sent) unfollow(); // moved by the user; rotating the 3-D view does not move it
  paint();
};
new ResizeObserver(paint).observe(document.body);

function unfollow() {
  $("follow").checked = false;
}

function goToSlice(z) {
  if (!given) return;
  unfollow();
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

let hidden = null; // opacity to restore
function toggleMasks() {
  const now = Number($("opacity").value);
  fade(now ? 0 : hidden ?? 50);
  hidden = now || null;
}

// Window and level of the greys; 255 and 128 show everything.
function contrast(window = Number($("window").value), level = Number($("level").value)) {
  $("window").value = window;
  $("level").value = level;
  if (given) viewer.setContrast(level - window / 2, level + window / 2);
}

function nextToLookAt() {
  const listed = unsure();
  if (listed.length) goToSlice(listed[(listed.indexOf(viewer.place.z) + 1) % listed.length]);
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
  o: () => $("outline").click(),
  g: () => { if (!$("truth").hidden) $("truth").firstElementChild.click(); },
  n: nextToLookAt,
  "[": () => contrast(Number($("window").value) + 24),
  "]": () => contrast(Number($("window").value) - 24),
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
$("outline").onchange = ({ target }) => viewer.setOutline(target.checked);
$("truth").firstElementChild.onchange = ({ target }) => viewer.truth && viewer.showTruth(target.checked);
$("window").oninput = () => contrast();
$("level").oninput = () => contrast();
$("reset").onclick = () => contrast(255, 128);
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

// For tests and debugging.
window.glioslice = {
  viewer,
  get numbers() { return numbers; },
  get arrivals() { return arrivals; },
};
connect();
