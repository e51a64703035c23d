"use strict";
// Draws the zones of the page's data over its imagery, and answers questions about them.
// Lengths: "units" are those of the data, y down; pixels are CSS pixels of the canvas.
(() => {
  const find = (selector) => document.querySelector(selector);
  const data = JSON.parse(find("#data").textContent);
  const canvas = find("canvas");
  const context = canvas.getContext("2d");
  const imagery = find("#imagery");
  const popup = find("#popup");
  const opacity = find("#opacity");
  const boxes = [...document.querySelectorAll("input[data-class]")];

  const view = { scale: 1, x: 0, y: 0 }; // pixels per unit, and the pixel of the map's corner
  let size = { width: 0, height: 0 }; // of the canvas
  let fitted = true; // nobody has moved the map
  let asked = null; // the zone in the pop-up
  let pinned = false; // the pop-up stays
  let waiting = false; // a frame is asked for

  // --- zones -------------------------------------------------------------------------------

  const zones = data.zones.map(([label, confidence, gain, area, rings]) => {
    const path = new Path2D();
    const box = [Infinity, Infinity, -Infinity, -Infinity];
    for (const ring of rings) {
      let x = 0;
      let y = 0;
      for (let i = 0; i < ring.length; i += 2) {
        x += ring[i];
        y += ring[i + 1];
        if (i === 0) path.moveTo(x, y);
        else path.lineTo(x, y);
        box[0] = Math.min(box[0], x);
        box[1] = Math.min(box[1], y);
        box[2] = Math.max(box[2], x);
        box[3] = Math.max(box[3], y);
      }
      path.closePath();
    }
    return { label, confidence, gain, area, path, box };
  });

  // One path per class makes a frame few calls.
  const classes = new Map(boxes.map((box) => [+box.dataset.class, { path: new Path2D(), box }]));
  for (const zone of zones) classes.get(zone.label).path.addPath(zone.path);
  const isShown = (label) => classes.get(label).box.checked;

  // A context of its own, since paths are tested under the transform of their context.
  const tester = document.createElement("canvas").getContext("2d");

  function zoneAt(pixel) {
    const x = (pixel.x - view.x) / view.scale;
    const y = (pixel.y - view.y) / view.scale;
    return zones.find(
      ({ label, path, box }) =>
        x >= box[0] && y >= box[1] && x <= box[2] && y <= box[3] &&
        isShown(label) && tester.isPointInPath(path, x, y, "evenodd"),
    );
  }

  // --- drawing -----------------------------------------------------------------------------

  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  }

  function draw() {
    const ratio = canvas.width / size.width;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.scale(ratio, ratio);
    context.translate(view.x, view.y);
    context.scale(view.scale, view.scale);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, data.width, data.height);
    if (imagery && imagery.naturalWidth) {
      context.drawImage(imagery, 0, 0, +imagery.dataset.width, +imagery.dataset.height);
    }
    context.lineJoin = "round";
    context.strokeStyle = "#0009";
    context.lineWidth = 0.8 / view.scale;
    for (const [label, { path }] of classes) {
      if (!isShown(label)) continue;
      context.fillStyle = data.colors[label];
      context.globalAlpha = opacity.value / 100;
      context.fill(path, "evenodd");
      context.globalAlpha = 1;
      context.stroke(path);
    }
    if (asked) outline(asked.path);
    drawScale();
  }

  function outline(path) {
    for (const [color, width] of [["#fff", 5], ["#111", 2.5]]) {
      context.strokeStyle = color;
      context.lineWidth = width / view.scale;
      context.stroke(path);
    }
  }

  // The largest of 1, 2, 5 times a power of ten of metres that takes at most 140 pixels.
  function drawScale() {
    const perPixel = data.metres / view.scale;
    const power = 10 ** Math.floor(Math.log10(140 * perPixel));
    const metres = Math.max(...[1, 2, 5].map((n) => n * power).filter((m) => m <= 140 * perPixel));
    const words = metres >= 1000 ? `${metres / 1000} km` : `${+metres.toPrecision(1)} m`;
    find("#scale span").textContent = words;
    find("#scale i").style.width = `${metres / perPixel}px`;
  }

  // --- the view ----------------------------------------------------------------------------

  const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
  const fitting = () => 0.96 * Math.min(size.width / data.width, size.height / data.height);
  const middle = () => ({ x: size.width / 2, y: size.height / 2 });

  function fit() {
    view.scale = fitting();
    view.x = (size.width - data.width * view.scale) / 2;
    view.y = (size.height - data.height * view.scale) / 2;
    fitted = true;
    moved();
  }

  // The middle of the canvas never leaves the map.
  function pan(x, y) {
    view.x = clamp(view.x + x, size.width / 2 - data.width * view.scale, size.width / 2);
    view.y = clamp(view.y + y, size.height / 2 - data.height * view.scale, size.height / 2);
    fitted = false;
    moved();
  }

  // The place under the pixel `at` stays there; a metre gets at most 40 pixels.
  function zoom(factor, at = middle()) {
    const closest = Math.max(40 * data.metres, fitting());
    const scale = clamp(view.scale * factor, fitting() / 2, closest);
    const change = scale / view.scale;
    view.scale = scale;
    pan((at.x - view.x) * (1 - change), (at.y - view.y) * (1 - change));
  }

  function moved() {
    if (asked) ask(null);
    redraw();
  }

  new ResizeObserver(() => {
    const before = middle();
    size = { width: canvas.clientWidth, height: canvas.clientHeight };
    canvas.width = Math.round(size.width * devicePixelRatio);
    canvas.height = Math.round(size.height * devicePixelRatio);
    if (size.width === 0 || size.height === 0) return;
    if (fitted) fit();
    else pan(middle().x - before.x, middle().y - before.y);
    draw(); // at once: a new size has cleared the canvas
  }).observe(canvas);

  // --- the pop-up --------------------------------------------------------------------------

  function ask(zone, at = null, pin = false) {
    pinned = Boolean(zone) && pin;
    if (asked !== (zone || null)) {
      asked = zone || null;
      popup.replaceChildren(...(asked ? describe(asked) : []));
      redraw();
    }
    if (asked) place(at);
  }

  // Text only: names come from outside.
  function describe({ label, confidence, gain, area }) {
    const element = (tag, ...content) => {
      const made = document.createElement(tag);
      made.append(...content);
      return made;
    };
    const swatch = element("span");
    swatch.className = "swatch";
    swatch.style.background = data.colors[label];
    const facts = [
      ["area", area],
      ["confidence", confidence === null ? "unknown" : `${Math.round(100 * confidence)} %`],
      ["OSM gain", gain === null ? "unknown" : `${gain < 0 ? "−" : "+"}${Math.abs(gain).toFixed(2)}`],
    ];
    const terms = facts.flatMap(([name, value]) => [element("dt", name), element("dd", value)]);
    return [element("b", swatch, data.names[label]), element("dl", ...terms)];
  }

  // Beside the pixel `at`, inside the map.
  function place(at) {
    const right = at.x + 14 + popup.offsetWidth > size.width;
    const left = right ? at.x - 14 - popup.offsetWidth : at.x + 14;
    popup.style.left = `${Math.max(left, 0)}px`;
    popup.style.top = `${clamp(at.y + 14, 0, size.height - popup.offsetHeight)}px`;
  }

  // --- pointers and keys -------------------------------------------------------------------

  const pointers = new Map(); // those that are down, by id
  let travelled = 0; // pixels since the first went down

  function pixelOf(event) {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  }

  const between = ([a, b]) => ({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
  const apart = ([a, b]) => Math.max(Math.hypot(a.x - b.x, a.y - b.y), 1);

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (pointers.size === 0) travelled = 0;
    pointers.set(event.pointerId, pixelOf(event));
  });

  canvas.addEventListener("pointermove", (event) => {
    const now = pixelOf(event);
    if (!pointers.has(event.pointerId)) {
      if (!pinned) ask(zoneAt(now), now);
      return;
    }
    const before = [...pointers.values()];
    const last = pointers.get(event.pointerId);
    pointers.set(event.pointerId, now);
    travelled += Math.hypot(now.x - last.x, now.y - last.y);
    if (travelled < 4) return; // a click of an unsteady hand
    if (pointers.size === 1) pan(now.x - last.x, now.y - last.y);
    if (pointers.size === 2) {
      const after = [...pointers.values()];
      pan(between(after).x - between(before).x, between(after).y - between(before).y);
      zoom(apart(after) / apart(before), between(after));
    }
  });

  canvas.addEventListener("pointerup", (event) => {
    const at = pixelOf(event);
    if (pointers.size === 1 && travelled < 4) ask(zoneAt(at), at, true);
    pointers.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
  canvas.addEventListener("pointerleave", () => pinned || ask(null));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(Math.exp(-0.0015 * event.deltaY), pixelOf(event));
  }, { passive: false });

  const keys = {
    "+": () => zoom(1.4),
    "=": () => zoom(1.4),
    "-": () => zoom(1 / 1.4),
    0: fit,
    ArrowLeft: () => pan(60, 0),
    ArrowRight: () => pan(-60, 0),
    ArrowUp: () => pan(0, 60),
    ArrowDown: () => pan(0, -60),
    Enter: () => ask(zoneAt(middle()), middle(), true),
    Escape: () => ask(null),
  };
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  find("#in").addEventListener("click", () => zoom(1.4));
  find("#out").addEventListener("click", () => zoom(1 / 1.4));
  find("#fit").addEventListener("click", fit);
  opacity.addEventListener("input", redraw);
  for (const box of boxes) {
    box.addEventListener("change", () => {
      ask(null);
      redraw();
    });
  }
  if (imagery) imagery.addEventListener("load", redraw);
})();
