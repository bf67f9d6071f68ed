// Looks of the front end, in the colours of ComfyUI's theme.

const CSS = `
.oasis-viewer, .oasis-routing { display: flex; flex-direction: column; gap: 4px; width: 100%;
  height: 100%; box-sizing: border-box; padding: 2px 4px; overflow: hidden;
  color: var(--input-text, #ddd); font: 12px/1.3 system-ui, sans-serif; }
.oasis-stage { position: relative; flex: 1 1 auto; min-height: 120px; overflow: hidden;
  background: #000; border-radius: 4px; cursor: ew-resize; touch-action: none; }
.oasis-stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
.oasis-stage video { display: none; }
.oasis-tag { position: absolute; top: 6px; padding: 1px 6px; border-radius: 3px;
  background: rgba(0, 0, 0, 0.6); color: #fff; pointer-events: none; }
.oasis-tag-left { left: 6px; }
.oasis-tag-right { right: 6px; }
.oasis-message { position: absolute; inset: 0; display: grid; place-items: center;
  padding: 12px; text-align: center; color: #ccc; pointer-events: none; }
.oasis-bar { display: flex; flex: 0 0 auto; align-items: center; gap: 3px; flex-wrap: wrap; }
.oasis-bar button { min-width: 26px; height: 24px; padding: 0 5px; cursor: pointer;
  border: 1px solid var(--border-color, #555); border-radius: 4px; font: inherit;
  background: var(--comfy-input-bg, #222); color: inherit; }
.oasis-bar button[aria-pressed="true"] { border-color: #4fa3ff; }
.oasis-bar input[type="range"] { flex: 1 1 60px; min-width: 60px; }
.oasis-count { min-width: 62px; text-align: right; font-variant-numeric: tabular-nums; }
.oasis-numbers { flex: 0 0 auto; font-variant-numeric: tabular-nums; white-space: pre-wrap; }
.oasis-stage:focus-visible, .oasis-bar button:focus-visible, .oasis-cell:focus-visible {
  outline: 2px solid #4fa3ff; outline-offset: -2px; }
.oasis-status { position: relative; width: 100%; height: 22px; max-height: 22px; box-sizing: border-box;
  overflow: hidden; border-radius: 4px; background: var(--comfy-input-bg, #222);
  color: var(--input-text, #ddd); font: 12px/22px system-ui, sans-serif; padding: 0 6px;
  font-variant-numeric: tabular-nums; white-space: nowrap; text-overflow: ellipsis; }
.oasis-status-bar { position: absolute; left: 0; bottom: 0; height: 3px; background: #4fa3ff; }
.oasis-grid { flex: 0 1 auto; overflow: auto; }
.oasis-row { display: flex; gap: 2px; margin-bottom: 2px; align-items: stretch; }
.oasis-layer { flex: 0 0 58px; align-self: center; }
.oasis-cell { flex: 1 1 0; min-width: 26px; padding: 5px 0; border-radius: 3px; color: #202020;
  text-align: center; cursor: default; font-variant-numeric: tabular-nums; }
.oasis-global { background: #f0b562; }
.oasis-intra { background: #7cc4ec; }
.oasis-window { background: #c9c9c9; }
.oasis-legend { display: flex; gap: 6px; }
.oasis-key { padding: 1px 6px; border-radius: 3px; color: #202020; }
.oasis-details { min-height: 2.6em; }
`;

export function addStyles() {
  const style = document.createElement("style");
  style.textContent = CSS;
  document.head.append(style);
}
