// What a loaded model is: size, licence, and the start of its hash.

import { text } from "./text.js";

export class ModelFacts {
  static height = 34; // its own 22 and margins

  constructor() {
    this.element = document.createElement("div");
    this.element.className = "oasis-status oasis-facts";
    this.element.setAttribute("role", "status");
    this.element.textContent = text("notLoaded");
  }

  /** Shows {parameters, licence, sha256, source}. */
  show({ parameters, licence, sha256, source }) {
    const count = parameters.toLocaleString("en", { notation: "compact" });
    const parts = [`${count} ${text("parameters")}`, licence, sha256.slice(0, 12)];
    this.element.textContent = parts.join(" \u00b7 ");
    this.element.title = `SHA-256 ${sha256}\n${source}`;
  }

  dispose() {}
}
