// Before and after in one picture with a line to drag. Both come from one video file, side by side,
// so that the two halves always show the same frame.

import { text } from "./text.js";

const MAX_ZOOM = 16;
const SPLIT_STEP = 0.01;
const PAN_STEP_PX = 40;

export class CompareViewer {
  /** @param {(file: object) => string} viewUrl The address of a file of ComfyUI's folders. */
  constructor(viewUrl) {
    this.viewUrl = viewUrl;
    this.split = 0.5;
    this.isSwapped = false;
    this.frame = 0;
    this.facts = null;
    this.resetZoom();
    this.build();
    this.listen();
  }

  build() {
    this.element = make("div", "oasis-viewer", null, { role: "group", "aria-label": text("viewer") });
    this.stage = make("div", "oasis-stage", this.element, {
      tabindex: "0",
      role: "slider",
      "aria-label": text("split"),
      "aria-valuemin": "0",
      "aria-valuemax": "100",
      "data-capture-wheel": "true", // Nodes 2.0 lets the focused element have the wheel
    });
    this.canvas = make("canvas", "", this.stage);
    this.video = make("video", "", this.stage, { playsinline: "", preload: "auto" });
    this.video.muted = true;
    this.video.loop = true;
    this.left = make("span", "oasis-tag oasis-tag-left", this.stage);
    this.right = make("span", "oasis-tag oasis-tag-right", this.stage);
    this.message = make("div", "oasis-message", this.stage);
    this.message.textContent = text("empty");
    this.buildBar();
    this.numbers = make("div", "oasis-numbers", this.element);
    this.setSplit(this.split);
    this.nameSides();
  }

  buildBar() {
    const bar = make("div", "oasis-bar", this.element);
    const button = (glyph, key, action) => {
      const element = make("button", "", bar, { type: "button" });
      element.textContent = glyph;
      label(element, text(key));
      element.addEventListener("click", action);
      return element;
    };
    this.playButton = button("\u25b6", "play", () => this.togglePlay());
    this.stepButtons = [
      button("\u2039", "previous", () => this.step(-1)),
      button("\u203a", "next", () => this.step(1)),
    ];
    this.slider = make("input", "", bar, { type: "range", min: "0", max: "0", value: "0" });
    label(this.slider, text("frame"));
    this.slider.addEventListener("input", () => this.seek(Number(this.slider.value)));
    this.count = make("span", "oasis-count", bar);
    this.loopButton = button("\u21bb", "loop", () => this.setLoop(!this.video.loop));
    this.loopButton.setAttribute("aria-pressed", "true");
    button("\u21c4", "swap", () => this.swap());
    button("\u2212", "zoomOut", () => this.zoomBy(1 / 1.5));
    button("1:1", "zoomReset", () => this.fit());
    button("+", "zoomIn", () => this.zoomBy(1.5));
    button("\u2197", "fullscreen", () => this.toggleFullscreen());
    this.transport = [this.playButton, ...this.stepButtons, this.slider, this.count];
    this.transport.push(this.loopButton);
  }

  listen() {
    const { stage, video } = this;
    stage.addEventListener("pointerdown", (event) => this.startDrag(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, () => (this.dragging = null));
    }
    stage.addEventListener("contextmenu", swallow);
    stage.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    this.element.addEventListener("keydown", (event) => this.key(event));
    for (const name of ["loadeddata", "seeked", "timeupdate"]) {
      video.addEventListener(name, () => this.draw());
    }
    for (const name of ["play", "pause", "ended"]) {
      video.addEventListener(name, () => this.playChanged());
    }
    video.addEventListener("error", () => {
      if (this.facts) this.message.textContent = text("failed");
    });
    this.resized = new ResizeObserver(() => this.draw());
    this.resized.observe(stage);
  }

  /** Shows {filename, subfolder, type, width, height, frames, fps, metrics}. */
  show(facts) {
    this.facts = facts;
    this.message.textContent = "";
    this.video.src = this.viewUrl(facts);
    this.slider.max = String(facts.frames - 1);
    for (const element of this.transport) element.hidden = facts.frames < 2;
    this.numbers.textContent = describe(facts.metrics);
    this.frame = 0;
    this.writeCount();
  }

  dispose() {
    this.resized.disconnect();
    this.facts = null;
    this.video.removeAttribute("src");
    this.video.load();
  }

  // Time

  get isPlaying() {
    return !this.video.paused && !this.video.ended;
  }

  togglePlay() {
    if (!this.facts) return;
    if (this.isPlaying) this.video.pause();
    else this.video.play().catch(() => {}); // a pause right after; other errors have an event
  }

  playChanged() {
    this.playButton.textContent = this.isPlaying ? "\u275a\u275a" : "\u25b6";
    label(this.playButton, text(this.isPlaying ? "pause" : "play"));
    if (this.isPlaying) this.followVideo();
    else this.draw();
  }

  followVideo() {
    const next = () => {
      this.draw();
      if (this.isPlaying) this.followVideo();
    };
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(next);
    else requestAnimationFrame(next);
  }

  step(by) {
    this.video.pause();
    this.seek(this.frame + by);
  }

  seek(frame) {
    if (!this.facts) return;
    const last = this.facts.frames - 1;
    this.frame = this.video.loop ? (frame + last + 1) % (last + 1) : clamp(frame, 0, last);
    // The middle of a frame: times of frames are rounded in files.
    this.video.currentTime = (this.frame + 0.5) / this.facts.fps;
    this.writeCount();
  }

  setLoop(isOn) {
    this.video.loop = isOn;
    this.loopButton.setAttribute("aria-pressed", String(isOn));
  }

  writeCount() {
    this.slider.value = String(this.frame);
    this.count.textContent = `${this.frame + 1}/${this.facts?.frames ?? 0}`;
  }

  // Place

  setSplit(share) {
    this.split = clamp(share, 0, 1);
    this.stage.setAttribute("aria-valuenow", String(Math.round(100 * this.split)));
    this.draw();
  }

  swap() {
    this.isSwapped = !this.isSwapped;
    this.nameSides();
    this.draw();
  }

  nameSides() {
    this.left.textContent = text(this.isSwapped ? "after" : "before");
    this.right.textContent = text(this.isSwapped ? "before" : "after");
  }

  resetZoom() {
    this.zoom = 1;
    this.pan = { x: 0, y: 0 };
  }

  fit() {
    this.resetZoom();
    this.draw();
  }

  /** Zooms about a point of the stage, by default its centre. */
  zoomBy(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    const zoom = clamp(this.zoom * factor, 1, MAX_ZOOM);
    const ratio = zoom / this.zoom;
    const from = { x: x - this.stage.clientWidth / 2, y: y - this.stage.clientHeight / 2 };
    this.zoom = zoom;
    this.panTo(from.x - ratio * (from.x - this.pan.x), from.y - ratio * (from.y - this.pan.y));
  }

  panTo(x, y) {
    const reach = (this.zoom - 1) / 2;
    const { clientWidth, clientHeight } = this.stage;
    this.pan.x = clamp(x, -reach * clientWidth, reach * clientWidth);
    this.pan.y = clamp(y, -reach * clientHeight, reach * clientHeight);
    this.draw();
  }

  toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.element.requestFullscreen?.();
  }

  // Input

  /** Where on the stage, in its own pixels: the canvas of ComfyUI scales whole nodes. */
  place(event) {
    const box = this.stage.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.stage.clientWidth,
      y: ((event.clientY - box.top) / box.height) * this.stage.clientHeight,
    };
  }

  startDrag(event) {
    swallow(event);
    this.stage.focus({ preventScroll: true });
    this.stage.setPointerCapture(event.pointerId);
    const isPan = event.button !== 0 || event.shiftKey;
    this.dragging = { isPan, from: this.place(event), pan: { ...this.pan } };
    this.drag(event);
  }

  drag(event) {
    if (!this.dragging) return;
    event.stopPropagation();
    const { x, y } = this.place(event);
    const { isPan, from, pan } = this.dragging;
    if (isPan) this.panTo(pan.x + x - from.x, pan.y + y - from.y);
    else this.setSplit(x / this.stage.clientWidth);
  }

  wheel(event) {
    if (document.activeElement !== this.stage) return; // the wheel is the canvas's
    swallow(event);
    const { x, y } = this.place(event);
    this.zoomBy(event.deltaY < 0 ? 1.2 : 1 / 1.2, x, y);
  }

  key(event) {
    // The frame slider has its own arrows, buttons their own space bar.
    if (event.target !== this.stage && event.key !== "Escape") {
      event.stopPropagation();
      return;
    }
    const step = event.shiftKey ? 10 * SPLIT_STEP : SPLIT_STEP;
    const move = (x, y) => this.panTo(this.pan.x + x * PAN_STEP_PX, this.pan.y + y * PAN_STEP_PX);
    const sideways = (sign) => (event.altKey ? move(-sign, 0) : this.setSplit(this.split + sign * step));
    const actions = {
      ArrowLeft: () => sideways(-1),
      ArrowRight: () => sideways(1),
      ArrowUp: () => event.altKey && move(0, 1),
      ArrowDown: () => event.altKey && move(0, -1),
      " ": () => this.togglePlay(),
      ",": () => this.step(-1),
      ".": () => this.step(1),
      Home: () => this.seek(0),
      End: () => this.seek((this.facts?.frames ?? 1) - 1),
      "+": () => this.zoomBy(1.5),
      "=": () => this.zoomBy(1.5),
      "-": () => this.zoomBy(1 / 1.5),
      0: () => this.fit(),
      x: () => this.swap(),
      l: () => this.setLoop(!this.video.loop),
      f: () => this.toggleFullscreen(),
    };
    const action = event.ctrlKey || event.metaKey ? null : actions[event.key];
    if (!action) return;
    swallow(event);
    action();
  }

  // Picture

  draw() {
    const { canvas, stage, video, facts } = this;
    if (!facts || video.readyState < 2) return;
    if (this.isPlaying) {
      this.frame = clamp(Math.floor(video.currentTime * facts.fps), 0, facts.frames - 1);
      this.writeCount();
    }
    const width = stage.clientWidth;
    const height = stage.clientHeight;
    const sharpness = window.devicePixelRatio * Math.max(1, this.canvasScale());
    canvas.width = Math.max(1, Math.round(width * sharpness));
    canvas.height = Math.max(1, Math.round(height * sharpness));
    const context = canvas.getContext("2d");
    context.scale(sharpness, sharpness);
    const scale = Math.min(width / facts.width, height / facts.height) * this.zoom;
    context.imageSmoothingEnabled = scale * sharpness < 3; // far in, pixels are what is looked at
    const shown = { width: facts.width * scale, height: facts.height * scale };
    const x = (width - shown.width) / 2 + this.pan.x;
    const y = (height - shown.height) / 2 + this.pan.y;
    const line = this.split * width;
    const half = (side, from, to) => {
      context.save();
      context.beginPath();
      context.rect(from, 0, to - from, height);
      context.clip();
      const left = side * facts.width;
      context.drawImage(video, left, 0, facts.width, facts.height, x, y, shown.width, shown.height);
      context.restore();
    };
    half(this.isSwapped ? 1 : 0, 0, line);
    half(this.isSwapped ? 0 : 1, line, width);
    context.fillStyle = "#fff";
    context.fillRect(line - 1, 0, 2, height);
  }

  /** How much larger than its own pixels the stage is on the screen. */
  canvasScale() {
    return this.stage.getBoundingClientRect().width / Math.max(1, this.stage.clientWidth);
  }
}

function make(tag, className, parent, attributes = {}) {
  const element = document.createElement(tag);
  element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

function label(element, words) {
  element.setAttribute("aria-label", words);
  element.title = words;
}

function clamp(value, least, most) {
  return Math.min(most, Math.max(least, value));
}

function swallow(event) {
  event.preventDefault();
  event.stopPropagation();
}

function describe(metrics) {
  if (!metrics) return "";
  const line = (name) => {
    const { psnr_db: psnr, ssim, warping_error: flicker } = metrics[name];
    const parts = [];
    if (psnr !== null) parts.push(`PSNR ${psnr.toFixed(2)} dB`);
    if (ssim !== null) parts.push(`SSIM ${ssim.toFixed(4)}`);
    if (flicker !== null) parts.push(`warping error ${flicker.toFixed(3)}`);
    return parts.length ? `${text(name)}: ${parts.join(", ")}` : "";
  };
  return [line("before"), line("after")].filter(Boolean).join("\n");
}
