// NiiVue with one grey volume and the masks of the slices so far as an overlay.
// Voxels are bytes with X fastest; X grows to the patient's right, Y to the front, Z to the head.

const { Niivue, NVImage, SLICE_TYPE } = window.niivue;
const UINT8 = 2; // NIfTI's code of the data type
const LABEL_OF = { TC: 1, WT: 2, ET: 3 }; // a label is drawn in the colour of the smallest region that contains it

export const VIEWS = { all: "All", axial: "Axial", render: "3-D" };
const { AXIAL, CORONAL, SAGITTAL, RENDER } = SLICE_TYPE;
// Left, top, width and height of each view as shares of the canvas; the axial slice is the largest.
const TILES = {
  all: [[AXIAL, 0, 0, 0.5, 1], [CORONAL, 0.5, 0, 0.25, 0.4], [SAGITTAL, 0.75, 0, 0.25, 0.4], [RENDER, 0.5, 0.4, 0.5, 0.6]],
  tall: [[AXIAL, 0, 0, 1, 0.6], [CORONAL, 0, 0.6, 0.3, 0.4], [SAGITTAL, 0.3, 0.6, 0.35, 0.4], [RENDER, 0.65, 0.6, 0.35, 0.4]],
  axial: [[AXIAL, 0, 0, 1, 1]],
  render: [[RENDER, 0, 0, 1, 1]],
};

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
    new ResizeObserver(() => this.grid && this.show(this.view)).observe(canvas);
  }

  // Make room for a volume of `grid` voxels; another grid means another case.
  async open(grid, regions) {
    if (this.grid && String(this.grid) === String(grid)) {
      this.clear();
      return;
    }
    if (!this.grid) await this.nv.attachToCanvas(this.canvas);
    while (this.nv.volumes.length) this.nv.removeVolumeByIndex(this.nv.volumes.length - 1);
    this.grid = grid;
    this.base = await this.image(grid, "grey.nii", 1);
    this.overlay = await this.image(grid, "masks.nii", this.opacity);
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

  clear() {
    this.overlay.img.fill(0);
    this.redraw(true);
  }

  // Add the labels of one slice; they are drawn when the machine has time.
  put(index, labels) {
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
    const tiles = TILES[view === "all" && height > width ? "tall" : view];
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
