// What a node is doing: its stage, how far it is, speed, time left; and how it ended.

import { text } from "./text.js";

const SEPARATOR = " \u00b7 ";

function clock(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  const whole = Math.max(0, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (parts[0] === 0) parts.shift();
  return parts.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
}

/** The words for {unit, done, total, seconds, stage?, step?, steps?, fps?, eta_s?, shot?, segment?, finished?}. */
export function describe(facts) {
  const { unit, done, total, seconds, stage, step, steps, eta_s: left } = facts;
  const parts = [];
  const counted = `${Math.floor(done)}/${Math.ceil(total)} ${text(unit)}`;
  if (facts.finished) {
    if (total) parts.push(counted);
    parts.push(`${text("took")} ${clock(seconds)}`);
    if (facts.fps && unit === "frames") parts.push(`${facts.fps.toPrecision(3)} fps`);
    return parts.join(SEPARATOR);
  }
  // What matters most comes first: narrow nodes cut the end off.
  if (stage) parts.push(text(`stage_${stage}`) + (steps ? ` ${step}/${steps}` : ""));
  if (total && done > 0) parts.push(counted);
  if (left !== undefined) parts.push(`${clock(left)} ${text("left")}`);
  if (facts.shot !== undefined) parts.push(`${text("shot")} ${facts.shot}`);
  if (facts.segment !== undefined) parts.push(`${text("segment")} ${facts.segment}`);
  return parts.join(SEPARATOR);
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
    this.isRunning = false;
    this.write(text("idle"), 0);
  }

  write(line, share) {
    this.label.textContent = line;
    this.element.title = line;
    this.element.setAttribute("aria-valuetext", line);
    this.bar.style.width = `${100 * share}%`;
  }

  /** The node has begun: whatever stands here is of another run. */
  start() {
    this.isIdle = false;
    this.isRunning = true;
    this.element.setAttribute("aria-valuenow", "0");
    this.write(text("stage_start"), 0);
  }

  /** Shows what the server says of the node. */
  show(facts) {
    const { done, total } = facts;
    this.isIdle = false;
    this.isRunning = !facts.finished;
    this.element.setAttribute("aria-valuemax", String(Math.ceil(total)));
    this.element.setAttribute("aria-valuenow", String(Math.floor(done)));
    this.write(describe(facts), facts.finished ? 1 : total > 0 ? done / total : 0);
  }

  /** The result is that of an earlier run. */
  kept() {
    this.isIdle = false;
    this.isRunning = false;
    this.write(text("kept"), 1);
  }

  /** The run ended before the node had done its work. */
  stop() {
    if (!this.isRunning) return;
    this.isRunning = false;
    this.write(`${text("stopped")}${SEPARATOR}${this.label.textContent}`, 0);
  }
}
