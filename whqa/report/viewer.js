// The interactive viewer of a report. Everything it needs stands in the page: #niivue (the module as base64 of gzip)
// and #volumes (JSON: volumes as base64 of .nii.gz, labels, places). Nothing is fetched.
"use strict";
(() => {
  const box = document.getElementById("viewer");
  const status = document.getElementById("viewer-status");
  const say = (text, state) => { status.textContent = text; box.dataset.state = state; };
  const text = (id) => document.getElementById(id).textContent;
  const control = (id) => document.getElementById("viewer-" + id);
  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

  async function moduleOf(base64) {
    const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
    const source = await new Response(stream).arrayBuffer();
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    try { return await import(url); } finally { URL.revokeObjectURL(url); }
  }

  // The image is opaque in the slices, whose shader ignores alpha, and a mist in the 3-D view.
  const greys = (mist) => ({ R: [0, 255], G: [0, 255], B: [0, 255], A: [0, Math.round(90 * mist)], I: [0, 255] });

  // A probability has one colour wherever the errors shown begin: the scale is cut there, not stretched.
  function errorColours(scale, from) {
    const rgba = (probability) => {
      const next = Math.max(1, scale.findIndex((knot) => knot.probability >= probability));
      const [low, high] = [scale[next - 1], scale[next]];
      const share = (probability - low.probability) / (high.probability - low.probability);
      return low.rgba.map((value, i) => Math.round(value + share * (high.rgba[i] - value)));
    };
    const between = scale.map((knot) => knot.probability).filter((probability) => probability > from && probability < 1);
    const shown = [from, ...between, 1];
    const of = (i) => [0, ...shown.map((probability) => rgba(probability)[i])];
    const I = [0, 1, ...between.map((probability) => 1 + Math.round((254 * (probability - from)) / (1 - from))), 255];
    return { R: of(0), G: of(1), B: of(2), A: of(3), I };
  }

  function labelColours(labels, shown) {
    const of = (i) => [0, ...labels.map((label) => label.colour[i])];
    return {
      R: of(0), G: of(1), B: of(2), I: [0, ...labels.map((_, i) => i + 1)],
      A: [0, ...labels.map((label) => (shown.has(label.key) ? 255 : 0))],
      labels: ["background", ...labels.map((label) => label.title)],
    };
  }

  async function start() {
    say("Loading the viewer …", "loading");
    const data = JSON.parse(text("volumes"));
    const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER, cmapper } = await moduleOf(text("niivue").trim());
    const nv = new Niivue({
      logLevel: "error", isRadiologicalConvention: true, dragAndDropEnabled: false, scrollRequiresFocus: true,
      multiplanarLayout: 2, multiplanarShowRender: SHOW_RENDER.ALWAYS, show3Dcrosshair: true, crosshairWidth: 0.5,
      crosshairColor: [1, 1, 1, 0.8], fontColor: [1, 1, 1, 1], backColor: [0, 0, 0, 1],
    });
    cmapper.addColormap("whqa-grey", greys(0));
    cmapper.addColormap("whqa-error", errorColours(data.error_scale, 0));
    await nv.attachToCanvas(control("canvas"));
    const load = async (name, options) => {
      const base64 = data.volumes[name];
      nv.addVolume(await NVImage.loadFromBase64({ base64, name: name + ".nii.gz", colorbarVisible: false, ...options }));
      return nv.volumes[nv.volumes.length - 1];
    };
    const image = await load("image", { colormap: "whqa-grey", cal_min: data.window[0], cal_max: data.window[1] });
    const masks = [await load("mask")];
    if (data.corrected) masks.push(await load("corrected"));
    const error = await load("error", { colormap: "whqa-error", cal_max: 100 });
    connect(nv, data, { image, masks, error }, { SLICE_TYPE, cmapper });
    for (const part of box.querySelectorAll("[hidden]")) part.hidden = false;
    nv.resizeListener();
    say("", "ready");
    return nv;
  }

  function connect(nv, data, { image, masks, error }, { SLICE_TYPE, cmapper }) {
    const number = (id) => Number(control(id).value);
    const shown = () => new Set([...box.querySelectorAll("input[name=structure]:checked")].map((i) => i.value));

    function update() {
      const chosen = control("corrected")?.checked ? 1 : 0;
      masks.forEach((mask, i) => {
        mask.setColormapLabel(labelColours(data.labels, shown()));
        mask.opacity = i === chosen ? number("mask") : 0;
      });
      error.opacity = control("show-error").checked ? number("error") : 0;
      cmapper.addColormap("whqa-error", errorColours(data.error_scale, number("threshold")));
      error.colormap = "whqa-error";
      // after the colours, which set a range of their own; half a percent less, as probabilities are whole percents here
      // and the first one counts
      error.cal_min = Math.max(0.5, 100 * number("threshold") - 0.5);
      error.cal_max = 100;
      cmapper.addColormap("whqa-grey", greys(number("mist")));
      image.colormap = "whqa-grey";
      for (const slider of box.querySelectorAll("input[type=range]")) {
        if (slider.dataset.unit) slider.nextElementSibling.value = Math.round(100 * slider.value) + slider.dataset.unit;
      }
      nv.updateGLVolume();
    }

    // Sliders fire faster than volumes can be coloured: at most one update a frame.
    let waiting = false;
    const soon = (work) => () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; work(); });
    };
    for (const input of box.querySelectorAll(".layers input")) input.addEventListener("input", soon(update));
    for (const all of box.querySelectorAll("button[data-all]")) {
      all.addEventListener("click", () => {
        for (const input of box.querySelectorAll("input[name=structure]")) input.checked = all.dataset.all === "1";
        update();
      });
    }
    control("view").addEventListener("change", () => nv.setSliceType(SLICE_TYPE[control("view").value]));
    const turn = soon(() => nv.setRenderAzimuthElevation(number("azimuth"), number("elevation")));
    control("azimuth").addEventListener("input", turn);
    control("elevation").addEventListener("input", turn);

    const planes = ["x", "y", "z"].map((axis) => control(axis));
    planes.forEach((slider, i) => {
      slider.max = image.dimsRAS[i + 1] - 1;
      slider.addEventListener("input", () => {
        const now = nv.frac2vox(nv.scene.crosshairPos);
        const step = [0, 0, 0];
        step[i] = Number(slider.value) - now[i];
        nv.moveCrosshairInVox(...step);
      });
    });
    nv.onLocationChange = ({ mm }) => {
      const voxel = nv.frac2vox(nv.scene.crosshairPos);
      planes.forEach((slider, i) => {
        slider.value = voxel[i];
        // slices are counted as in the pictures: in the whole scan, at its own resolution
        const slice = data.start[i] + Math.floor((voxel[i] + 0.5) * data.factors[i]);
        slider.nextElementSibling.value = `${Math.min(slice, data.whole[i] - 1) + 1} of ${data.whole[i]}`;
      });
      const at = (volume) => volume.getValue(...volume.mm2vox(mm));
      const label = (mask) => ["background", ...data.labels.map((l) => l.title)][Math.round(at(mask))];
      const words = [`mask: ${label(masks[0])}`, `error probability ${Math.round(at(error))} %`, `intensity ${at(image).toFixed(0)}`];
      if (masks[1]) words.splice(1, 0, `corrected: ${label(masks[1])}`);
      control("place").value = "At the cross: " + words.join(", ");
    };
    const place = control("goto");
    data.places.forEach(({ title }, i) => place.add(new Option(title, i)));
    const go = () => {
      nv.scene.crosshairPos = nv.mm2frac(data.places[Number(place.value)].mm);
      nv.createOnLocationChange();
      nv.drawScene();
    };
    place.addEventListener("change", go);
    update();
    nv.setRenderAzimuthElevation(number("azimuth"), number("elevation"));
    go();
  }

  if (!box) return;
  if (!document.createElement("canvas").getContext("webgl2")) {
    say("The interactive viewer needs WebGL 2, which this browser does not offer. The pictures above show the same data, and the NIfTI files beside this page open in any viewer.", "unavailable");
    return;
  }
  say("", "waiting");
  const begin = () => start().catch((error) => {
    say(`The interactive viewer could not start (${error.message}). The pictures above show the same data.`, "failed");
  });
  // Not before somebody scrolls near: the verdict is there at once, even on a slow machine.
  const near = new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting)) { near.disconnect(); begin(); }
  }, { rootMargin: "400px" });
  near.observe(box);
})();
