// What a running node is doing: how far it is, speed, time left.

import { text } from "./text.js";

function clock(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}

export class StatusLine {
  static height = 34; // its own 22 and margins

  constructor() {
    this.element = document.createElement("div");
    this.element.className = "oasis-status";
    this.element.setAttribute("role", "progressbar");
    this.element.setAttribute("aria-valuemin", "0");
    this.bar = this.element.appendChild(document.createElement("div"));
    this.bar.className = "oasis-status-bar";
    this.label = this.element.appendChild(document.createElement("span"));
    this.isIdle = true;
    this.write(text("idle"), 0);
  }

  write(line, share) {
    this.label.textContent = line;
    this.element.title = line;
    this.element.setAttribute("aria-valuetext", line);
    this.bar.style.width = `${100 * share}%`;
  }

  /** Shows {unit, done, total, seconds, fps?, eta_s?, shot?, segment?}; unit is a key of text.js. */
  show({ unit, done, total, seconds, fps, eta_s: left, shot, segment }) {
    this.isIdle = false;
    const parts = [`${Math.floor(done)}/${Math.ceil(total)} ${text(unit)}`];
    // What matters most comes first: narrow nodes cut the end off.
    if (done >= total) parts.push(`${text("took")} ${clock(seconds)}`);
    else if (left !== undefined) parts.push(`${clock(left)} ${text("left")}`);
    if (fps && unit === "frames") parts.push(`${fps.toPrecision(3)} fps`);
    if (shot !== undefined) parts.push(`${text("shot")} ${shot}`);
    if (segment !== undefined) parts.push(`${text("segment")} ${segment}`);
    this.element.setAttribute("aria-valuemax", String(Math.ceil(total)));
    this.element.setAttribute("aria-valuenow", String(Math.floor(done)));
    this.write(parts.join(" \u00b7 "), total > 0 ? done / total : 0);
  }

  /** The result is that of an earlier run. */
  kept() {
    this.write(text("kept"), 1);
  }

  stop() {
    this.label.textContent += ` \u00b7 ${text("stopped")}`;
    this.element.setAttribute("aria-valuetext", this.label.textContent);
  }
}
