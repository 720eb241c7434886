// NiiVue with one grey volume and the masks of the slices so far as an overlay.
// Voxels are bytes with X fastest; X grows to the patient's right, Y to the front, Z to the head.

const { Niivue, NVImage, SLICE_TYPE } = window.niivue;
const UINT8 = 2; // NIfTI's code of the data type
const LABEL_OF = { TC: 1, WT: 2, ET: 3 }; // a label is drawn in the colour of the smallest region that contains it

export const VIEWS = { all: "Planes", axial: "Axial", render: "3-D" };
const { AXIAL, CORONAL, SAGITTAL, RENDER } = SLICE_TYPE;
const WEIGHT = { [AXIAL]: 1, [CORONAL]: 0.5, [SAGITTAL]: 0.5, [RENDER]: 0 };
const NARROW = 200; // pixels: a 3-D view that is smaller is left to its own button

// Ways to place the four views in `width` x `height`: [view, left, top, width, height] in pixels.
// The planes of one arrangement share rows and columns so that each gets the shape it has in mm.
function arrangements(width, height, [x, y, z]) {
  const axial = Math.min(width, (height * x) / y); // as wide as its height allows
  const beside = width - axial;
  const row = Math.min(height * 0.6, (beside * z) / (x + y)); // coronal and sagittal side by side
  const left = (beside * x) / (x + y);
  const natural = Math.min(beside, ((height / 2) * Math.max(x, y)) / z); // one over the other
  const column = beside - natural < NARROW ? beside : natural;
  const below = height - Math.min(height, (width * y) / x);
  const lower = Math.min(height * 0.5, Math.max(below, (width * z) / (x + y + y)));
  const third = width / (x + y + y);
  const [half, upper] = [(width * x) / (x + y), (height * y) / (y + z)];
  return [
    [[AXIAL, 0, 0, axial, height], [CORONAL, axial, 0, left, row], [SAGITTAL, axial + left, 0, beside - left, row],
      [RENDER, axial, row, beside, height - row]],
    [[AXIAL, 0, 0, axial, height], [CORONAL, axial, 0, column, height / 2], [SAGITTAL, axial, height / 2, column, height / 2],
      [RENDER, axial + column, 0, beside - column, height]],
    [[AXIAL, 0, 0, width, height - lower], [CORONAL, 0, height - lower, third * x, lower],
      [SAGITTAL, third * x, height - lower, third * y, lower], [RENDER, third * (x + y), height - lower, third * y, lower]],
    [[AXIAL, 0, 0, half, upper], [CORONAL, 0, upper, half, height - upper],
      [RENDER, half, 0, width - half, upper], [SAGITTAL, half, upper, width - half, height - upper]],
  ];
}

// The arrangement whose planes are drawn largest, as shares of the canvas. Logarithms: doubling a small
// plane counts as much as doubling a large one, and none may vanish.
export function arrange(width, height, grid) {
  const [x, y, z] = grid;
  const sides = { [AXIAL]: [x, y], [CORONAL]: [x, z], [SAGITTAL]: [y, z], [RENDER]: [y, y] };
  const drawn = ([view, , , wide, tall]) => {
    const [across, down] = sides[view];
    const scale = Math.min(wide / across, tall / down);
    return WEIGHT[view] * Math.log(Math.max(1, scale * scale * across * down));
  };
  const total = (tiles) => tiles.reduce((sum, tile) => sum + drawn(tile), 0);
  const best = arrangements(width, height, grid).reduce((one, other) => (total(other) > total(one) ? other : one));
  return best
    .filter(([view, , , wide, tall]) => Math.min(wide, tall) > (view === RENDER ? Math.min(NARROW, width / 4) : 1))
    .map(([view, left, top, wide, tall]) => [view, left / width, top / height, wide / width, tall / height]);
}

// The voxels of `labels` with a neighbour of another label: the surfaces of the regions.
function surfaces(labels, [x, y, z]) {
  const found = new Uint8Array(labels.length);
  const layer = x * y;
  for (let at = 0; at < labels.length; at++) {
    const label = labels[at];
    if (!label) continue;
    const [i, j, k] = [at % x, Math.floor(at / x) % y, Math.floor(at / layer)];
    const edge = i === 0 || j === 0 || k === 0 || i === x - 1 || j === y - 1 || k === z - 1;
    if (edge || labels[at - 1] !== label || labels[at + 1] !== label || labels[at - x] !== label
      || labels[at + x] !== label || labels[at - layer] !== label || labels[at + layer] !== label) found[at] = label;
  }
  return found;
}

export class Viewer {
  constructor(canvas) {
    this.canvas = canvas;
    this.nv = new Niivue({
      backColor: [0, 0, 0, 1],
      crosshairColor: [0.49, 0.77, 1, 0.7],
      crosshairWidth: 0.5,
      crosshairGap: 8,
      fontColor: [0.75, 0.8, 0.85, 1],
      isRadiologicalConvention: true, // the patient's left on the right, as in the montage
      sagittalNoseLeft: true,
      isNearestInterpolation: false,
      isOrientationTextVisible: true,
      showAllOrientationMarkers: true, // L and R, A and P, I and S at all sides of the planes
      sliceType: SLICE_TYPE.MULTIPLANAR,
      clipPlaneColor: [0, 0, 0, 0],
      isClipAllVolumes: true, // the 3-D view is cut at the slice, including the tumour
      dragAndDropEnabled: false,
      clipPlaneHotKey: "", // the page has its own keys
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
      loadingText: "",
      logLevel: "error",
    });
    this.nv.onLocationChange = () => this.onMoved?.();
    this.grid = null;
    this.next = 0; // when the overlay may be redrawn
    this.opacity = 0.5;
    this.view = "all";
    this.outlined = false;
    new ResizeObserver(() => this.grid && this.show(this.view)).observe(canvas);
  }

  // Make room for a volume of `grid` voxels; another grid means another case.
  async open(grid, regions) {
    if (this.grid && String(this.grid) === String(grid)) {
      this.clear();
      return;
    }
    if (!this.grid) await this.nv.attachToCanvas(this.canvas);
    this.truth = null;
    while (this.nv.volumes.length) this.nv.removeVolumeByIndex(this.nv.volumes.length - 1);
    this.grid = grid;
    this.base = await this.image(grid, "grey.nii", 1);
    this.overlay = await this.image(grid, "masks.nii", this.opacity);
    this.labels = new Uint8Array(grid[0] * grid[1] * grid[2]);
    const table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const [name, label] of Object.entries(LABEL_OF)) {
      const [r, g, b] = regions.find((region) => region.name === name).colour;
      table.R[label] = r; table.G[label] = g; table.B[label] = b;
      table.A[label] = 255; table.I[label] = label; table.labels[label] = name;
    }
    // Without NIfTI's label intent: NiiVue's atlas shader fades the voxels of small regions.
    this.overlay.setColormapLabel(table);
    this.nv.addVolume(this.base);
    this.nv.addVolume(this.overlay);
    this.nv.opts.showLegend = false; // the page has its own
    this.nv.setRenderAzimuthElevation(140, 35);
    this.nv.setScale(1.3); // of the 3-D view
    this.show(this.view);
  }

  async image(grid, name, opacity) {
    const [x, y, z] = grid;
    const affine = [1, 0, 0, -x / 2, 0, 1, 0, -y / 2, 0, 0, 1, -z / 2, 0, 0, 0, 1];
    const file = NVImage.createNiftiArray(grid, [1, 1, 1], affine, UINT8, new Uint8Array(x * y * z));
    return NVImage.new(file.buffer, name, "gray", opacity, null, 0, 255);
  }

  // Put another modality under the masks.
  shade(bytes) {
    this.base.img.set(bytes);
    this.nv.updateGLVolume();
  }

  // Draw the ground truth as a white surface over the masks.
  async addTruth(bytes) {
    this.truth = await this.image(this.grid, "truth.nii", 0);
    this.truth.img.set(surfaces(bytes, this.grid).map((label) => (label ? 1 : 0)));
    this.truth.setColormapLabel({ R: [0, 255], G: [0, 255], B: [0, 255], A: [0, 255], I: [0, 1], labels: ["", "truth"] });
    this.nv.addVolume(this.truth);
  }

  showTruth(shown) {
    this.truth.opacity = shown ? 1 : 0;
    this.nv.updateGLVolume();
  }

  // Greys from black at `low` to white at `high`, 0 to 255.
  setContrast(low, high) {
    this.base.cal_min = low;
    this.base.cal_max = Math.max(high, low + 1);
    this.nv.updateGLVolume();
  }

  setOutline(outlined) {
    this.outlined = outlined;
    if (!this.grid) return;
    this.overlay.img.set(outlined ? surfaces(this.labels, this.grid) : this.labels);
    this.redraw(true);
  }

  clear() {
    this.labels.fill(0);
    this.overlay.img.fill(0);
    this.redraw(true);
  }

  // Add the labels of one slice; they are drawn when the machine has time.
  put(index, labels) {
    this.labels.set(labels, index * labels.length);
    this.overlay.img.set(labels, index * labels.length);
    this.redraw(true);
  }

  // Redraw soon, with the masks if `masks`; frequent calls must not make the page unusable.
  redraw(masks) {
    this.stale ||= masks;
    if (this.waiting) return;
    this.waiting = true;
    const wait = Math.max(0, this.next - performance.now());
    setTimeout(() => requestAnimationFrame(() => {
      const began = performance.now();
      if (this.stale && this.outlined) this.overlay.img.set(surfaces(this.labels, this.grid));
      if (this.stale) this.nv.refreshLayers(this.overlay, 1);
      this.stale = this.waiting = false;
      const depth = (this.place.z + 0.5) / this.grid[2] - 0.5; // of the cut, from the centre
      this.nv.setClipPlanes([[depth, 0, 90]]); // draws
      // Where WebGL is slow, a frame is late: drawing must not use the whole machine.
      requestAnimationFrame(() => { this.next = 2 * performance.now() - began; });
    }), wait);
  }

  setOpacity(share) {
    this.opacity = share;
    if (!this.grid) return;
    this.overlay.opacity = share;
    this.redraw(true);
  }

  show(view) {
    this.view = view;
    const { width, height } = this.canvas.getBoundingClientRect();
    const whole = { axial: [[AXIAL, 0, 0, 1, 1]], render: [[RENDER, 0, 0, 1, 1]] };
    const tiles = whole[view] ?? arrange(width, height, this.grid);
    this.nv.setCustomLayout(tiles.map(([sliceType, ...position]) => ({ sliceType, position })));
  }

  // The crosshair's voxel.
  get place() {
    const [x, y, z] = this.nv.frac2vox(this.nv.scene.crosshairPos);
    return { x, y, z };
  }

  goTo({ x, y, z }) {
    const here = this.place;
    this.sent = z ?? here.z;
    this.nv.scene.crosshairPos = this.nv.vox2frac([x ?? here.x, y ?? here.y, z ?? here.z]);
    this.redraw(false);
  }
}
