// Layers x heads as a grid that can be pointed at or walked through with the arrow keys.

import { text } from "./text.js";

const PATTERNS = ["global", "intra", "window"];
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function create(tag, className, parent, content) {
  const element = parent.appendChild(document.createElement(tag));
  element.className = className;
  if (content !== undefined) element.textContent = content;
  return element;
}

export class RoutingMap {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "oasis-routing";
    this.grid = create("div", "oasis-grid", this.element);
    this.grid.setAttribute("role", "grid");
    this.grid.setAttribute("aria-label", text("routing"));
    this.grid.addEventListener("keydown", (event) => this.walk(event));
    this.legend = create("div", "oasis-legend", this.element);
    this.details = create("div", "oasis-details", this.element, text("routingEmpty"));
    this.details.setAttribute("aria-live", "polite");
    this.cells = [];
  }

  /** Shows the JSON form of a routing. */
  show({ patterns, distances }) {
    this.grid.replaceChildren();
    this.cells = patterns.map((row, layer) => {
      const line = create("div", "oasis-row", this.grid);
      line.setAttribute("role", "row");
      create("span", "oasis-layer", line, `${text("layer")} ${layer}`).setAttribute(
        "role",
        "rowheader",
      );
      return row.map((pattern, head) =>
        this.cell(line, layer, head, pattern, distances?.normalized[layer][head]),
      );
    });
    this.cells[0][0].tabIndex = 0;
    this.legend.replaceChildren();
    for (const pattern of PATTERNS) {
      const count = patterns.flat().filter((name) => name === pattern).length;
      create("span", `oasis-key oasis-${pattern}`, this.legend, `${text(pattern)}: ${count}`);
    }
    this.details.textContent = distances ? text("routingScale") : text("routingHint");
  }

  cell(line, layer, head, pattern, distance) {
    const cell = create("div", `oasis-cell oasis-${pattern}`, line);
    const [intra, window] = distance ?? [];
    if (distance) cell.textContent = `${intra.toFixed(2)} / ${window.toFixed(2)}`;
    let words = `${text("layer")} ${layer}, ${text("head")} ${head}: ${text(pattern)}`;
    if (distance) {
      words += ` (${text("loses")} ${text("intra")} ${intra.toFixed(3)}, `;
      words += `${text("window")} ${window.toFixed(3)})`;
    }
    cell.tabIndex = -1;
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-label", words);
    const explain = () => (this.details.textContent = words);
    cell.addEventListener("pointerenter", explain);
    cell.addEventListener("focus", explain);
    return cell;
  }

  walk(event) {
    const step = STEPS[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const layer = this.cells.findIndex((row) => row.includes(event.target));
    const head = this.cells[layer]?.indexOf(event.target);
    const next = this.cells[layer + step[0]]?.[head + step[1]];
    if (!next) return;
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  dispose() {}
}
