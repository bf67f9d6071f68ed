// Words of the front end. English is here; translations are in locales/<language>/main.json.

const ENGLISH = {
  viewer: "Before and after",
  empty: "Run the workflow to compare.",
  split: "Line between before and after",
  before: "before",
  after: "after",
  play: "Play",
  pause: "Pause",
  previous: "Previous frame",
  next: "Next frame",
  frame: "Frame",
  loop: "Loop",
  swap: "Swap sides",
  zoomIn: "Zoom in",
  zoomOut: "Zoom out",
  zoomReset: "Fit",
  fullscreen: "Full screen",
  failed: "The comparison cannot be played; it was removed from the temporary folder. Run again.",
  routing: "Attention routing",
  routingEmpty: "Run the workflow to see the map.",
  routingHint: "Point at a head, or walk with the arrow keys.",
  routingScale: "Intra-frame / window: 0, all a head looks at lies inside; 1, as much outside as of attention spread evenly; above 1, even more.",
  layer: "layer",
  head: "head",
  global: "global",
  intra: "intra-frame",
  window: "window",
  loses: "outside",
  parameters: "parameters",
  notLoaded: "facts appear when it runs",
  idle: "press Run to start",
  kept: "unchanged since an earlier run",
  frames: "frames",
  tiles: "tiles",
  steps: "steps",
  clips: "clips",
  megabytes: "MB",
  stage_start: "starting",
  stage_work: "at work",
  stage_convert: "converting public files, once",
  stage_load: "loading the model",
  stage_precision: "trying arithmetic",
  stage_plan: "measuring memory",
  stage_open: "opening the input",
  stage_read: "reading",
  stage_shots: "finding cuts",
  stage_resize: "resizing",
  stage_motion: "finding motion",
  stage_model: "model at work",
  stage_blend: "blending",
  stage_encode: "encoding",
  stage_mux: "writing the file",
  stage_measure: "measuring",
  left: "left",
  stopped: "stopped",
  took: "in",
  shot: "shot",
  segment: "segment",
};

let words = ENGLISH;

/** The word for a key in the language of the page. */
export function text(key) {
  return words[key] ?? ENGLISH[key] ?? key;
}

export async function loadTranslations(api, app) {
  const language = app.extensionManager?.setting?.get("Comfy.Locale") ?? "en";
  if (language === "en") return;
  try {
    const all = await (await api.fetchApi("/i18n")).json();
    words = { ...ENGLISH, ...all[language]?.oasis };
  } catch (error) {
    console.warn("OASIS: no translations", error);
  }
}
