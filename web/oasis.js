// The OASIS front end: a before/after viewer, a map of the routing, and a status line while nodes run.
// None of its widgets is serialised: a value in the prompt would make ComfyUI run heavy nodes again.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

import { CompareViewer } from "./compare_viewer.js";
import { ModelFacts } from "./model_facts.js";
import { RoutingMap } from "./routing_map.js";
import { StatusLine } from "./status_line.js";
import { addStyles } from "./styles.js";
import { loadTranslations } from "./text.js";

const RUNNING_NODES = [
  "OASISUpscaleVideo",
  "OASISUpscaleImages",
  "OASISUpscaleTiles",
  "OASISDenoiseToLatent",
  "OASISDegrade",
  "OASISCompare",
  "OASISCalibrateRouting",
  "OASISSplitTiles",
  "OASISStitchTiles",
];
const PANELS = {
  OASISLoadModel: {
    key: "oasis_model",
    make: () => new ModelFacts(),
    minHeight: ModelFacts.height,
    maxHeight: ModelFacts.height,
  },
  OASISCompare: { key: "oasis_compare", make: () => new CompareViewer(viewUrl), minHeight: 320 },
  OASISCalibrateRouting: { key: "oasis_routing", make: () => new RoutingMap(), minHeight: 190 },
};
const MARGIN = 6;
const RESTORE_EVERY_MS = 100;
const RESTORE_TRIES = 30;
const HISTORY_ITEMS = 20;
const statusLines = new WeakMap();

function viewUrl({ filename, subfolder, type }) {
  return api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`);
}

/** Adds an element to a node without any trace in saved workflows and prompts. */
function addPanel(node, name, element, minHeight, maxHeight) {
  const options = {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => minHeight,
    getMaxHeight: () => maxHeight,
    getValue: () => "",
    setValue: () => {},
  };
  const widget = node.addDOMWidget(name, "oasis", element, options);
  widget.serialize = false; // the option keeps it out of the prompt, this out of the workflow
  return widget;
}

function chain(node, method, after) {
  const before = node[method];
  node[method] = function (...args) {
    const result = before?.apply(this, args);
    after.apply(this, args);
    return result;
  };
}

function addResultPanel(node, { key, make, minHeight, maxHeight }) {
  const panel = make();
  addPanel(node, key, panel.element, minHeight, maxHeight);
  node.oasisPanel = { key, panel };
  chain(node, "onExecuted", (output) => show(node.oasisPanel, output));
  chain(node, "onRemoved", () => panel.dispose());
  if (maxHeight) return; // one line: the node is wide enough
  const [width, height] = node.computeSize();
  node.setSize?.([Math.max(node.size[0], width, 420), Math.max(node.size[1], height)]);
}

function show(shown, output) {
  const facts = output?.[shown.key]?.[0];
  if (!facts) return;
  shown.isFilled = true;
  shown.panel.show(facts);
}

/** Another tab of the page was open: the page finds old outputs again, a moment after the nodes. */
function restore(node, tries = RESTORE_TRIES) {
  const { oasisPanel: shown, graph, id } = node;
  if (!graph || shown.isFilled) return;
  const place = graph.isRootGraph === false ? `${graph.id}:${id}` : id;
  show(shown, app.nodeOutputs?.[place]);
  if (shown.isFilled) return;
  if (tries) setTimeout(() => restore(node, tries - 1), RESTORE_EVERY_MS);
  else restoreFromHistory(node);
}

let history;

/** The page was loaded anew: the server still knows what it showed last. */
async function restoreFromHistory(node) {
  const { oasisPanel: shown, graph, id } = node;
  history ??= api.fetchApi(`/history?max_items=${HISTORY_ITEMS}`).then((reply) => reply.json());
  try {
    for (const { prompt, outputs } of Object.values(await history).reverse()) {
      const workflow = prompt[3]?.extra_pnginfo?.workflow;
      const isSame = workflow?.id !== undefined && workflow.id === app.rootGraph?.id;
      if (!isSame || graph.isRootGraph === false || shown.isFilled) continue;
      if (prompt[2][id]?.class_type === node.comfyClass) show(shown, outputs[id]);
    }
  } catch (error) {
    console.warn("OASIS: no history", error);
  }
}

function addStatusLine(node) {
  const line = new StatusLine();
  line.element.dataset.node = node.comfyClass;
  const height = StatusLine.height;
  addPanel(node, "oasis_status", line.element, height, height);
  statusLines.set(node, line);
}

/** The node of an execution id such as 7, or 12:3 for a node within a subgraph. */
function findNode(executionId) {
  let graph = app.rootGraph ?? app.graph?.rootGraph ?? app.graph;
  let node;
  for (const part of String(executionId).split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part);
    graph = node?.subgraph;
  }
  return node;
}

const running = new Set();

/** ComfyUI begins a node, or is done with all of them. */
function onExecuting({ detail: node }) {
  const line = node && statusLines.get(findNode(node));
  if (!line) return;
  running.add(line);
  line.start();
}

function onProgress({ detail }) {
  const line = statusLines.get(findNode(detail.node));
  if (!line) return;
  if (detail.kept) line.kept();
  else line.show(detail);
  if (line.isRunning) running.add(line);
  else running.delete(line);
}

function onCached({ detail }) {
  for (const node of detail.nodes) {
    const line = statusLines.get(findNode(node));
    if (line?.isIdle) line.kept(); // else what the page saw of that run stays
  }
}

/** Everything ended, well or not: no line may go on saying that it works. */
function onStopped() {
  for (const line of running) line.stop();
  running.clear();
}

app.registerExtension({
  name: "oasis.video-upscaler",
  settings: [
    {
      id: "OASIS.keptResults",
      name: "OASIS: upscaled videos kept in the temporary folder",
      tooltip: "Of earlier runs; older ones are removed. Files saved by name or by Save Video stay.",
      type: "number",
      defaultValue: 5,
      attrs: { min: 0, max: 1000, step: 1 },
    },
  ],
  async setup() {
    addStyles();
    api.addEventListener("oasis.progress", onProgress);
    api.addEventListener("executing", onExecuting);
    api.addEventListener("execution_cached", onCached);
    for (const name of ["execution_success", "execution_error", "execution_interrupted"]) {
      api.addEventListener(name, onStopped);
    }
    await loadTranslations(api, app);
  },
  nodeCreated(node) {
    if (node.comfyClass in PANELS) addResultPanel(node, PANELS[node.comfyClass]);
    if (RUNNING_NODES.includes(node.comfyClass)) addStatusLine(node);
  },
  loadedGraphNode(node) {
    if (node.oasisPanel) restore(node);
  },
});
