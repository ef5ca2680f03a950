// The interactive viewer of a report. Everything it needs stands in the page: #niivue (the module as base64 of gzip)
// and #volumes (JSON: volumes as base64 of .nii.gz, labels, places). Nothing is fetched.
"use strict";
(() => {
  const box = document.getElementById("viewer");
  const status = document.getElementById("viewer-status");
  const say = (text, state) => { status.textContent = text; box.dataset.state = state; };
  const text = (id) => document.getElementById(id).textContent;
  const control = (id) => document.getElementById("viewer-" + id);
  const WORDS = { mask: "mask", corrected: "corrected", opinion: "second opinion" };
  const LABELS = Object.keys(WORDS);
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
    const niivue = await moduleOf(text("niivue").trim());
    niivue.cmapper.addColormap("whqa-grey", greys(0));
    niivue.cmapper.addColormap("whqa-error", errorColours(data.error_scale, 0));
    const first = await panel(data, niivue, "");
    for (const part of box.querySelectorAll(".controls, .stage")) part.hidden = false;
    connect(data, niivue, first);
    first.nv.resizeListener();
    say("", "ready");
  }

  // One picture with all layers; the second one is made when somebody wants both side by side.
  async function panel(data, { Niivue, NVImage, SHOW_RENDER }, side) {
    const nv = new Niivue({
      logLevel: "error", isRadiologicalConvention: true, dragAndDropEnabled: false, scrollRequiresFocus: true,
      multiplanarLayout: 2, multiplanarShowRender: SHOW_RENDER.ALWAYS, show3Dcrosshair: true, crosshairWidth: 0.5,
      crosshairColor: [1, 1, 1, 0.8], fontColor: [1, 1, 1, 1], backColor: [0, 0, 0, 1],
      clipPlaneHotKey: "", cycleClipPlaneHotKey: "", viewModeHotKey: "",
    });
    await nv.attachToCanvas(control("canvas" + side));
    const load = async (name, options) => {
      const base64 = data.volumes[name];
      nv.addVolume(await NVImage.loadFromBase64({ base64, name: name + ".nii.gz", colorbarVisible: false, ...options }));
      return nv.volumes[nv.volumes.length - 1];
    };
    const image = await load("image", { colormap: "whqa-grey", cal_min: data.window[0], cal_max: data.window[1] });
    const labels = {};
    for (const name of LABELS) if (name in data.volumes) labels[name] = await load(name);
    const error = await load("error", { colormap: "whqa-error", cal_max: 100 });
    return { nv, image, labels, error, chosen: control("labels" + side), showError: control("show-error" + side) };
  }

  function connect(data, niivue, first) {
    const { SLICE_TYPE, cmapper } = niivue;
    const panels = [first];
    const all = (work) => panels.forEach(work);
    const number = (id) => Number(control(id).value);
    const shown = () => new Set([...box.querySelectorAll("input[name=structure]:checked")].map((i) => i.value));

    function paint({ nv, image, labels, error, chosen, showError }) {
      for (const [name, volume] of Object.entries(labels)) {
        volume.setColormapLabel(labelColours(data.labels, shown()));
        volume.opacity = name === chosen.value ? number("mask") : 0;
      }
      error.opacity = showError.checked ? number("error") : 0;
      error.colormap = "whqa-error";
      // after the colours, which set a range of their own; half a percent less, as probabilities are whole percents here
      // and the first one counts
      error.cal_min = Math.max(0.5, 100 * number("threshold") - 0.5);
      error.cal_max = 100;
      image.colormap = "whqa-grey";
      nv.updateGLVolume();
    }

    function update() {
      cmapper.addColormap("whqa-error", errorColours(data.error_scale, number("threshold")));
      cmapper.addColormap("whqa-grey", greys(number("mist")));
      for (const slider of box.querySelectorAll("input[type=range]")) {
        if (slider.dataset.unit) slider.nextElementSibling.value = Math.round(100 * slider.value) + slider.dataset.unit;
      }
      all(paint);
    }

    // Sliders fire faster than volumes can be coloured: at most one update a frame.
    let waiting = false;
    const soon = (work) => () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; work(); });
    };
    for (const input of box.querySelectorAll(".layers input, .panels input, .panels select")) {
      input.addEventListener("input", soon(update));
    }
    for (const every of box.querySelectorAll("button[data-all]")) {
      every.addEventListener("click", () => {
        for (const input of box.querySelectorAll("input[name=structure]")) input.checked = every.dataset.all === "1";
        update();
      });
    }
    const view = control("view");
    const setView = (name) => { view.value = name; all(({ nv }) => nv.setSliceType(SLICE_TYPE[name])); };
    view.addEventListener("change", () => setView(view.value));
    const turned = () => all(({ nv }) => nv.setRenderAzimuthElevation(number("azimuth"), number("elevation")));
    control("azimuth").addEventListener("input", soon(turned));
    control("elevation").addEventListener("input", soon(turned));

    const planes = ["x", "y", "z"].map((axis) => control(axis));
    const step = (i, by) => {
      const now = first.nv.frac2vox(first.nv.scene.crosshairPos);
      const steps = [0, 0, 0];
      steps[i] = Math.min(Math.max(now[i] + by, 0), first.image.dimsRAS[i + 1] - 1) - now[i];
      first.nv.moveCrosshairInVox(...steps);
    };
    planes.forEach((slider, i) => {
      slider.max = first.image.dimsRAS[i + 1] - 1;
      slider.addEventListener("input", () => step(i, Number(slider.value) - first.nv.frac2vox(first.nv.scene.crosshairPos)[i]));
    });

    function tell(mm) {
      const voxel = first.nv.frac2vox(first.nv.scene.crosshairPos);
      planes.forEach((slider, i) => {
        slider.value = voxel[i];
        // slices are counted as in the pictures: in the whole scan, at its own resolution
        const slice = data.start[i] + Math.floor((voxel[i] + 0.5) * data.factors[i]);
        slider.nextElementSibling.value = `${Math.min(slice, data.whole[i] - 1) + 1} of ${data.whole[i]}`;
      });
      const at = (volume) => volume.getValue(...volume.mm2vox(mm));
      const label = (volume) => ["background", ...data.labels.map((l) => l.title)][Math.round(at(volume))];
      const words = Object.entries(first.labels).map(([name, volume]) => `${WORDS[name]}: ${label(volume)}`);
      words.push(`error probability ${Math.round(at(first.error))} %`, `intensity ${at(first.image).toFixed(0)}`);
      control("place").value = "At the cross: " + words.join(", ");
    }

    // Both pictures show one place, whichever was clicked.
    function follow(from) {
      from.nv.onLocationChange = ({ mm }) => {
        all(({ nv }) => {
          if (nv === from.nv) return;
          nv.scene.crosshairPos = nv.mm2frac(mm);
          nv.scene.pan2Dxyzmm = [...from.nv.scene.pan2Dxyzmm];
          nv.drawScene();
        });
        tell(mm);
      };
      from.nv.scene.onAzimuthElevationChange = (azimuth, elevation) => {
        all(({ nv }) => {
          if (nv === from.nv) return;
          // its setters would answer
          Object.assign(nv.scene.sceneData, { azimuth, elevation });
          nv.drawScene();
        });
      };
    }
    follow(first);

    const goTo = (mm) => {
      first.nv.scene.crosshairPos = first.nv.mm2frac(mm);
      first.nv.createOnLocationChange();
      first.nv.drawScene();
    };
    const place = control("goto");
    data.places.forEach(({ title }, i) => place.add(new Option(title, i)));
    const go = () => goTo(data.places[Number(place.value)].mm);
    place.addEventListener("change", go);

    const stage = box.querySelector(".stage");
    const second = control("canvas-2");
    const side = control("side");
    let viewAlone = view.value;
    async function sideBySide() {
      const on = side.checked;
      second.hidden = control("second").hidden = !on;
      stage.classList.toggle("side", on);
      if (on) viewAlone = view.value;
      const wanted = !on ? viewAlone : view.value === "MULTIPLANAR" ? "AXIAL" : view.value;
      if (on && panels.length === 1) {
        side.disabled = true;
        const other = await panel(data, niivue, "-2");
        side.disabled = false;
        panels.push(other);
        follow(other);
        turned();
        update();
      }
      setView(wanted);
      all(({ nv }) => nv.resizeListener());
      first.nv.createOnLocationChange();
    }
    side.addEventListener("change", sideBySide);

    let piece = -1;
    function show(i) {
      if (!data.pieces.length) return;
      piece = (i + data.pieces.length) % data.pieces.length;
      document.querySelectorAll("#piece-list tr.shown").forEach((row) => row.classList.remove("shown"));
      document.getElementById(`piece-${piece + 1}`).classList.add("shown");
      goTo(data.pieces[piece]);
    }
    for (const button of document.querySelectorAll("button[data-piece]")) {
      button.hidden = false;
      button.addEventListener("click", () => {
        show(Number(button.dataset.piece));
        stage.scrollIntoView({ block: "nearest" });
        control("canvas").focus({ preventScroll: true });
      });
    }

    const tick = (input) => { input.checked = !input.checked; input.dispatchEvent(new Event("change")); };
    const labels = (name) => { first.chosen.value = name; update(); };
    const views = [...view.options].map((option) => option.value);
    const keys = {
      n: () => show(piece + 1), p: () => show(piece < 0 ? -1 : piece - 1),
      0: () => labels("none"), e: () => { all(({ showError }) => tick(showError)); update(); },
      s: () => tick(side), v: () => setView(views[(views.indexOf(view.value) + 1) % views.length]),
    };
    Object.keys(first.labels).forEach((name, i) => { keys[i + 1] = () => labels(name); });
    // radiological: the patient's right is on the left
    const arrows = {
      ArrowUp: [2, 1], ArrowDown: [2, -1], ArrowLeft: [0, 1], ArrowRight: [0, -1], PageUp: [1, 1], PageDown: [1, -1],
    };
    for (const part of [box, document.getElementById("piece-list")]) {
      part?.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("select")) return;
        const arrow = event.target.matches("canvas") ? arrows[event.key] : undefined;
        const work = arrow ? () => step(...arrow) : keys[event.key.toLowerCase()];
        if (!work) return;
        event.preventDefault();
        // before the viewer's own keys
        event.stopPropagation();
        work();
      }, { capture: true });
    }

    update();
    turned();
    const asked = () => /^#piece-(\d+)$/.exec(location.hash);
    addEventListener("hashchange", () => { if (asked()) show(asked()[1] - 1); });
    if (asked() && data.pieces.length >= asked()[1]) show(asked()[1] - 1);
    else go();
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
  if (/^#piece-\d+$/.test(location.hash)) { near.disconnect(); begin(); }
})();
