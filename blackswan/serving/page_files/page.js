// The page: images go in, verdicts and their pictures come out, and a person decides.
"use strict";

const BATCH = 8, BATCH_BYTES = 12e6, MOST_SHOWN = 24, REGIONS = 20;
const $ = (id) => document.getElementById(id);
const items = [];
let chosen = null, waiting = [], working = 0, detector = "", served = null;

// --- the service -----------------------------------------------------------------------------

class Problem extends Error {
  constructor(status, content) {
    super(content.detail || `the service answered ${status}`);
    this.status = status;
    this.content = content;
  }
}

/** Ask the service; a Problem says in a sentence why there is no answer. */
async function ask(path, options = {}) {
  for (;;) {
    const headers = new Headers(options.headers);
    const key = sessionStorage.getItem("key");
    if (key) headers.set("X-API-Key", key);
    let response;
    try {
      response = await fetch(path, { ...options, headers });
    } catch {
      throw new Problem(0, { detail: "the service does not answer; is it still running?" });
    }
    if (response.ok) return response;
    if (response.status === 401) {
      await askForKey();
    } else if (response.status === 429) {
      await pause(1000 * Number(response.headers.get("Retry-After") || 1));
    } else {
      throw new Problem(response.status, await response.json().catch(() => ({})));
    }
  }
}

const askJson = async (path, options) => (await ask(path, options)).json();
const sendJson = (path, content) =>
  askJson(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

let keyAsked = null;
function askForKey() {
  keyAsked ??= new Promise((done) => {
    const dialog = $("ask-key");
    dialog.addEventListener("close", () => {
      sessionStorage.setItem("key", $("key").value);
      $("key").value = "";
      keyAsked = null;
      done();
    }, { once: true });
    dialog.showModal();
  });
  return keyAsked;
}

/** Return the URL of an image of the service, which an <img> could not ask for with a key. */
async function pictureOf(path) {
  return URL.createObjectURL(await (await ask(path)).blob());
}

// --- small things ----------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "polygon", "rect", "line", "text"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.setAttribute("class", value);
    else if (name in element && !svg) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const digits = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(5)).toString());
const verdictOf = (verdict) => make("span", { class: verdict }, verdict);

function fillTable(table, caption, heads, rows) {
  const line = (tag, cells) => make("tr", {}, ...cells.map((cell) => {
    const of = make(tag, tag === "th" ? { scope: "col" } : {}, cell);
    if (tag === "td" && typeof cell === "string" && /^[\d.–-]+( %)?$/.test(cell)) of.className = "number";
    return of;
  }));
  table.replaceChildren(
    make("caption", {}, caption), make("thead", {}, line("th", heads)),
    make("tbody", {}, ...rows.map((cells) => line("td", cells))),
  );
}

const bytesOf = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
const png = (base64) => `data:image/png;base64,${base64}`;
const base64Of = (blob) => new Promise((done, failed) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
  reader.onerror = () => failed(new Error("the file cannot be read any more; choose it again"));
  reader.readAsDataURL(blob);
});

// --- what is dropped -------------------------------------------------------------------------

const isClip = (file) => file.type.startsWith("video/") || /\.(avi|mkv|mov|mp4|mpe?g|webm|wmv|m4v|ts)$/i.test(file.name);

async function take(files) {
  for (const file of files) {
    if (isClip(file)) await takeClip(file);
    else if (file.type.startsWith("image/") || /\.(bmp|tiff?|webp|p[gpn]m|heic|heif)$/i.test(file.name)) add(file, file.webkitRelativePath || file.name);
  }
  if (!items.length && !$("progress").textContent) say("No image and no clip among these files.");
}

async function takeClip(clip) {
  say(`${clip.name} is cut into frames`);
  try {
    const every = encodeURIComponent($("every").value || "0.5");
    const response = await ask(`v1/frames?every=${every}`, {
      method: "POST", body: clip,
      headers: { "Content-Type": "application/octet-stream", "X-File-Name": clip.name.replace(/[^\x20-\x7e]/g, "_") },
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + (value || "")).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        const frame = JSON.parse(line);
        if (frame.image) add(new File([bytesOf(frame.image)], frame.name, { type: "image/png" }), frame.name);
        else if (frame.detail) say(frame.detail);
      }
      if (done) break;
    }
  } catch (error) {
    say(`${clip.name}: ${error.message}`);
  }
}

function add(file, name) {
  const item = { file, name, url: URL.createObjectURL(file), version: 0 };
  item.button = make("button", { type: "button" },
    make("img", { src: item.url, alt: "", loading: "lazy" }),
    make("span", { class: "name" }, name, make("small", {}, "waits")), make("span", {}));
  item.button.addEventListener("click", () => choose(item));
  item.line = make("li", {}, item.button);
  items.push(item);
  waiting.push(item);
  $("images").append(item.line);
  $("bench").hidden = false;
  work();
}

async function work() {
  if (working >= 2 || !waiting.length) return;
  working += 1;
  try {
    while (waiting.length) {
      let size = 0;
      const batch = [];
      while (waiting.length && batch.length < BATCH && (!batch.length || size + waiting[0].file.size < BATCH_BYTES)) {
        size += waiting[0].file.size;
        batch.push(waiting.shift());
      }
      await scoreAll(batch);
      told();
    }
  } finally {
    working -= 1;
  }
}

async function scoreAll(batch) {
  const camera = $("camera").value.trim();
  try {
    const { cameras } = await whatIsServed();  // photos may come before the service said which it knows
    for (const item of batch) item.camera = cameras.includes(camera) ? camera : "";
    (await score(batch, {})).forEach((result, number) => judged(batch[number], result));
  } catch (error) {
    if (batch.length > 1) for (const item of batch) await scoreAll([item]);  // one of them is at fault
    else failed(batch[0], error);
  }
}

async function score(batch, asked) {
  const form = new FormData();
  batch.forEach((item) => form.append("images", item.file, item.name));
  for (const [name, value] of Object.entries({ camera: batch[0].camera, ...asked })) form.append(name, value);
  return (await askJson("v1/score", { method: "POST", body: form })).results;
}

function judged(item, result) {
  item.result = result;
  const [, name, verdict] = item.button.children;
  name.querySelector("small").textContent = `${result.confidence.toFixed(2)} · p = ${digits(result.p_value)}`;
  verdict.replaceChildren(verdictOf(result.verdict));
  item.line.hidden = $("only-flagged").checked && result.verdict !== "anomalous";
  if (!chosen) choose(item, false);
}

function failed(item, error) {
  item.failed = error.message;
  item.button.querySelector("small").textContent = error.message;
}

function told() {
  const done = items.filter((item) => item.result || item.failed).length;
  const flagged = items.filter((item) => item.result?.verdict === "anomalous").length;
  const wrong = items.filter((item) => item.failed).length;
  say(`${done} of ${items.length} images judged, ${flagged} anomalous${wrong ? `, ${wrong} refused` : ""}`);
}

const say = (text) => { $("progress").textContent = text; };

// --- one image -------------------------------------------------------------------------------

async function choose(item, focus = true) {
  if (!item.result) return;
  chosen = item;
  for (const other of items) other.button.toggleAttribute("aria-current", other === item);
  const { result } = item;
  $("viewer").hidden = false;
  $("viewer-title").textContent = item.name;
  $("verdict").replaceChildren(verdictOf(result.verdict));
  $("confidence").textContent = result.confidence.toFixed(3);
  $("meter").value = result.confidence;
  $("why").textContent = `0.5 is the threshold. p = ${digits(result.p_value)}: so large a share of normal images, at most, scores as high; `
    + `score ${digits(result.image_score)}, threshold ${digits(result.threshold)}.`;
  $("kept").textContent = item.kept || "";
  $("similar").hidden = true;
  for (const radio of $("decide").elements.label) radio.checked = radio.value === (item.label || result.verdict);
  $("defect").value = item.defect || "";
  $("note").value = item.note || "";
  $("to-bank").checked = false;
  labelChanged();
  draw(item, null);
  if (focus) $("viewer").scrollIntoView({ block: "nearest" });
  try {
    item.detail ??= (await score([item], { layer: "true", regions: String(REGIONS) }))[0];
  } catch (error) {
    $("why").textContent += ` No heatmap: ${error.message}`;
    return;
  }
  if (chosen === item) draw(item, item.detail);
}

function draw(item, detail) {
  for (const stack of [$("stack-photo"), $("stack-heatmap")]) {
    const photo = make("img", { src: item.url, alt: stack.id === "stack-photo" ? `Photo ${item.name}` : `Photo ${item.name} under its heatmap` });
    photo.addEventListener("error", () => showOverlay(item), { once: true });
    stack.replaceChildren(photo);
  }
  drawIgnored(item.result);
  if (!detail) return;
  const layer = make("img", { src: png(detail.layer), alt: "", class: "over", id: "layer" });
  $("stack-heatmap").append(layer);
  const outlines = make("svg", { class: "over", viewBox: `0 0 ${detail.width} ${detail.height}`, preserveAspectRatio: "none", "aria-hidden": "true", id: "outlines" });
  for (const region of detail.regions) {
    const points = region.polygon.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" ");
    outlines.append(make("polygon", { points }), make("polygon", { points, class: "inner" }));
  }
  $("stack-photo").append(outlines);
  fillTable($("regions"), "Where the heatmap passes its threshold", ["left", "top", "width", "height", "share of the area", "peak"],
    detail.regions.map(({ box, area_share, peak }) => [String(box.left), String(box.top), String(box.width), String(box.height), percent(area_share), digits(peak)]));
  look();
}

/** What does not count of the photo, by the regions of its camera. */
function drawIgnored({ ignored, width, height }) {
  const polygons = ignored.flatMap((regions) => regions.polygons);
  $("ignored-note").hidden = !polygons.length;
  if (!polygons.length) return;
  $("ignored-note").textContent = `Grey does not count: regions of ${ignored.map(({ camera }) => camera).join(", ")}.`;
  const svg = make("svg", { class: "over", viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true", id: "ignored" });
  for (const polygon of polygons) svg.append(make("polygon", { class: "ignored", points: polygon.map(([x, y]) => `${x + 0.5},${y + 0.5}`).join(" ") }));
  $("stack-photo").append(svg);
}

/** A browser shows no TIFF: then the picture that the service made stands for both. */
async function showOverlay(item) {
  const [result] = await score([item], { heatmap: "true" });
  if (chosen !== item) return;
  for (const stack of [$("stack-photo"), $("stack-heatmap")]) {
    stack.replaceChildren(make("img", { src: png(result.heatmap), alt: `${item.name} as the detector saw it, under its heatmap` }));
  }
}

function look() {
  const layer = $("layer"), outlines = $("outlines");
  if (layer) layer.style.opacity = $("opacity").value / 100;
  if (outlines) outlines.toggleAttribute("hidden", !$("show-regions").checked);
  for (const stack of [$("stack-photo"), $("stack-heatmap")]) stack.style.width = `${$("zoom").value}%`;
}

function scrollTogether(one, other) {
  one.addEventListener("scroll", () => {
    if (Math.abs(other.scrollTop - one.scrollTop) > 1) other.scrollTop = one.scrollTop;
    if (Math.abs(other.scrollLeft - one.scrollLeft) > 1) other.scrollLeft = one.scrollLeft;
  }, { passive: true });
}

// --- a decision ------------------------------------------------------------------------------

const labelOf = () => $("decide").elements.label.value;

function labelChanged() {
  const normal = labelOf() === "normal";
  $("defect").disabled = normal;
  if (normal) $("defect").value = "";
  $("bank-choice").hidden = !(normal && ["patchcore", "dino_memory"].includes(detector));
}

async function keep(event) {
  event.preventDefault();
  const item = chosen;
  if (!item) return;
  if (!$("user").value.trim()) {
    $("kept").textContent = "Say who you are first: fill in your name above.";
    $("user").focus();
    return;
  }
  item.label = labelOf();
  item.defect = $("defect").value.trim();
  item.note = $("note").value.trim();
  try {
    const kept = await sendJson("v1/decisions", {
      image: await base64Of(item.file), name: item.name, camera: $("camera").value.trim(), user: $("user").value.trim(),
      label: item.label, defect: item.defect, note: item.note, seen: item.version,
      add_to_bank: item.label === "normal" && $("to-bank").checked,
    });
    item.version = kept.version;
    item.kept = `Kept: ${kept.label}${kept.defect ? ` (${kept.defect})` : ""}${kept.override ? ", against the detector" : ", as the detector"}`
      + `${kept.added_to_bank ? ", and the detector knows it now" : ""}.`;
    if (kept.defect) {
      know(kept.defect);
      item.kept += await remember(item);
    }
  } catch (error) {
    if (error.status === 409 && error.content.latest) item.version = error.content.latest.version;
    item.kept = error.status === 404 ? "This service keeps no decisions; start it with --decisions FOLDER."
      : error.status === 409 ? `${error.message}. Keep again to decide otherwise.` : error.message;
  }
  if (chosen === item) $("kept").textContent = item.kept;
}

function know(defect) {
  if (![...$("defects").options].some((option) => option.value === defect)) $("defects").append(make("option", { value: defect }));
}

async function findSimilar() {
  const item = chosen;
  $("similar").hidden = false;
  $("neighbours").replaceChildren();
  $("vote").textContent = "…";
  try {
    const form = new FormData();
    form.append("images", item.file, item.name);
    form.append("taken_by", item.camera);
    const { memory, results: [found] } = await askJson("v1/similar", { method: "POST", body: form });
    if (chosen === item) showSimilar(memory, found.regions);
  } catch (error) {
    $("vote").textContent = error.status === 404 ? "This service has no memory of defects; start it with --memory." : error.message;
  }
}

function showSimilar(memory, regions) {
  const [region] = regions;  // the one with the highest peak
  if (!memory.available) $("vote").textContent = memory.detail;
  else if (!region) $("vote").textContent = "Nothing of this image lies above the threshold of the heatmap.";
  else {
    $("vote").textContent = region.type ? `Looks like ${region.type} (${percent(region.confidence)} sure).`
      : `Of no known type for sure${region.why_unknown ? `: ${region.why_unknown}` : ""}.`;
    if (region.type && !$("defect").value && labelOf() === "anomalous") $("defect").value = region.type;
    for (const neighbour of region.neighbors) {
      know(neighbour.type);
      $("neighbours").append(make("li", {},
        make("img", { src: png(neighbour.crop), alt: `${neighbour.type} of ${neighbour.image}` }),
        make("strong", {}, neighbour.type), ` ${neighbour.similarity.toFixed(3)} alike, ${neighbour.image}`));
    }
  }
}

/** A defect whose type a person confirmed joins the memory, where the service has one. */
async function remember(item) {
  try {
    await sendJson("v1/defects", { image: await base64Of(item.file), name: item.name, type: item.defect, camera: $("camera").value.trim() });
    return " It joined the memory of defects.";
  } catch (error) {
    return error.status === 404 ? "" : ` It did not join the memory: ${error.message}.`;
  }
}

// --- the evaluation --------------------------------------------------------------------------

let evaluation = null, shownAt = 0;

async function openEvaluation() {
  try {
    evaluation = await askJson("v1/evaluation");
  } catch (error) {
    $("no-evaluation").textContent = error.message;
    $("evaluated").hidden = true;
    return;
  }
  $("no-evaluation").textContent = "";
  $("evaluated").hidden = false;
  const tables = [...new Set(evaluation.images.map((image) => image.table))].filter(Boolean);
  $("table").replaceChildren(make("option", { value: "" }, "all"), ...tables.map((name) => make("option", { value: name }, name)));
  moveTo(evaluation.threshold);
}

/** The images of a kind of anomaly, and all the normal ones. */
function evaluated() {
  const table = $("table").value;
  const normalTables = new Set(evaluation.images.filter((image) => !image.label).map((image) => image.table));
  return evaluation.images.filter((image) => !table || image.table === table || (!image.label && !normalTables.has(table)));
}

/** Thresholds that differ: one between any two scores that follow each other, and the one in force. */
function stops() {
  const scores = [...new Set(evaluated().map((image) => image.image_score))].sort((a, b) => a - b);
  const between = scores.slice(1).map((score, number) => (score + scores[number]) / 2);
  return [...new Set([scores[0] - 1e-6 * Math.abs(scores[0]) - 1e-12, ...between, scores.at(-1), evaluation.threshold])].sort((a, b) => a - b);
}

function moveTo(threshold) {
  const all = stops();
  $("threshold").max = all.length - 1;
  let nearest = 0;
  all.forEach((value, number) => { if (Math.abs(value - threshold) < Math.abs(all[nearest] - threshold)) nearest = number; });
  $("threshold").value = nearest;
  evaluate();
}

function evaluate() {
  const threshold = stops()[Number($("threshold").value)], images = evaluated();
  const of = (label, flagged) => images.filter((image) => image.label === label && image.image_score > threshold === flagged);
  const [trueNormal, falseAlarms, misses, hits] = [of(0, false), of(0, true), of(1, false), of(1, true)];
  const inForce = threshold === evaluation.threshold;
  $("threshold-value").textContent = `${digits(threshold)}${inForce ? ", in force" : ""}`;
  $("threshold").setAttribute("aria-valuetext", $("threshold-value").textContent);
  for (const [id, list] of Object.entries({ "true-normal": trueNormal, "false-alarm": falseAlarms, miss: misses, hit: hits })) $(id).textContent = list.length;
  const rate = (part, rest) => (part.length + rest.length ? percent(part.length / (part.length + rest.length)) : "–");
  $("false-rate").textContent = `${rate(falseAlarms, trueNormal)} false alarms`;
  $("recall").textContent = `${rate(hits, misses)} found`;
  drawHistogram(images, threshold);
  shownAt += 1;
  showGallery($("false-alarms"), falseAlarms.sort((a, b) => b.image_score - a.image_score), shownAt);
  showGallery($("misses"), misses.sort((a, b) => a.image_score - b.image_score), shownAt);
}

function drawHistogram(images, threshold) {
  const scores = images.map((image) => image.image_score), low = Math.min(...scores), high = Math.max(...scores, threshold);
  const bins = 40, width = 800, height = 180, span = high - low || 1;
  const counts = [0, 1].map((label) => {
    const filled = new Array(bins).fill(0);
    images.filter((image) => image.label === label).forEach((image) => { filled[Math.min(bins - 1, Math.floor(bins * (image.image_score - low) / span))] += 1; });
    return filled;
  });
  const most = Math.max(...counts.flat(), 1), svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  counts.forEach((filled, label) => filled.forEach((count, bin) => {
    const tall = count / most * (height - 10), step = width / bins;
    if (count) svg.append(make("rect", { class: label ? "bar-anomalous" : "bar-normal", x: bin * step + label * step * 0.45 + 1, width: step * 0.45, y: height - tall, height: tall }));
  }));
  const at = width * (threshold - low) / span;
  svg.append(make("line", { x1: at, x2: at, y1: 0, y2: height }));
  $("histogram").replaceChildren(svg);
  $("histogram").setAttribute("aria-label", `Scores of ${images.length} test images from ${digits(low)} to ${digits(high)}; blue: normal, orange: anomalous, the line: the threshold at ${digits(threshold)}`);
}

const pictures = new Map();

async function showGallery(list, images, at) {
  const entries = images.slice(0, MOST_SHOWN).map((image) => {
    const picture = make("img", { alt: image.path, loading: "lazy" });
    return [image, picture, make("li", {}, picture, `${image.defect || "normal"}, ${digits(image.image_score)}`)];
  });
  list.replaceChildren(...entries.map(([, , line]) => line));
  if (!images.length) list.append(make("li", {}, "none"));
  if (images.length > MOST_SHOWN) list.append(make("li", {}, `and ${images.length - MOST_SHOWN} more`));
  for (const [image, picture] of entries) {
    if (at !== shownAt) return;
    if (!pictures.has(image.number)) {
      try {
        pictures.set(image.number, await pictureOf(`v1/evaluation/${image.number}`));
      } catch (error) {
        picture.alt = error.message;
        continue;
      }
    }
    picture.src = pictures.get(image.number);
  }
}

// --- decisions -------------------------------------------------------------------------------

let older = null, listed = [];

async function openDecisions() {
  listed = [];
  try {
    const { rates } = await askJson("v1/decisions/rates");
    fillTable($("rates"), "How often people decide against the detector", ["day", "camera", "decided", "overrides", "rate"],
      rates.map((rate) => [rate.day, rate.camera || "–", String(rate.decided), String(rate.overrides), percent(rate.rate)]));
    await listDecisions("v1/decisions?limit=50");
    $("no-decisions").textContent = listed.length ? "" : "Nothing was decided yet.";
    $("decided").hidden = !listed.length;
  } catch (error) {
    $("decided").hidden = true;
    $("no-decisions").textContent = error.status === 404 ? "This service keeps no decisions; start it with --decisions FOLDER." : error.message;
  }
}

async function listDecisions(path) {
  const answer = await askJson(path);
  older = answer.before;
  listed.push(...answer.decisions);
  fillTable($("latest"), "Latest decisions", ["time (UTC)", "image", "camera", "who", "detector", "decision", "type", "note"],
    listed.map((one) => [one.time.slice(0, 19).replace("T", " "), one.name, one.camera || "–", one.user, verdictOf(one.verdict),
      make("span", { class: one.override ? "anomalous" : "" }, one.label), one.defect, one.note]));
  $("more").hidden = older === null;
}

// --- cameras ---------------------------------------------------------------------------------

let nextLook = 0;

async function openCameras() {
  let streams = [];
  try {
    ({ streams } = await askJson("v1/streams"));
    $("no-cameras").textContent = streams.length ? "" : "No camera was watched yet.";
  } catch (error) {
    $("no-cameras").textContent = error.status === 404 ? "This service shows no cameras; start it with --streams FOLDER." : error.message;
  }
  const shown = [];
  for (const stream of streams) {
    const state = !stream.running ? "not watched" : !stream.connected ? "no frames come" : stream.alarm ? "ALARM" : "quiet";
    shown.push(make("li", {}, make("strong", {}, stream.camera), " ", make("span", { class: stream.alarm ? "anomalous" : "normal" }, state),
      make("small", {}, ` ${stream.alarms} alarms; frames: ${stream.scored} judged, ${stream.dropped} dropped`)));
    for (const alarm of stream.recent.slice(0, 6)) shown.push(await alarmOf(stream.camera, alarm));
  }
  $("streams").replaceChildren(...shown);
  clearTimeout(nextLook);
  nextLook = setTimeout(() => { if (!$("cameras").hidden) openCameras(); }, 5000);
}

async function alarmOf(camera, alarm) {
  const path = `v1/streams/${camera}/alarms/${alarm.alarm}/overlay.png`;
  if (!pictures.has(path)) pictures.set(path, await pictureOf(path).catch(() => ""));
  return make("li", {}, make("img", { src: pictures.get(path), alt: `Overlay of the alarm ${alarm.alarm}` }),
    `${alarm.alarm}${alarm.ended === undefined ? ", goes on" : ""}`);
}

// --- the parts of the page -------------------------------------------------------------------

const PARTS = { inspect: null, evaluation: openEvaluation, decisions: openDecisions, cameras: openCameras };

async function openPart() {
  const name = location.hash.slice(1) in PARTS ? location.hash.slice(1) : "inspect";
  for (const part of Object.keys(PARTS)) $(part).hidden = part !== name;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `Blackswan: ${name}`;
  if (PARTS[name]) await PARTS[name]();
}

async function openReport(event) {
  event.preventDefault();
  try {
    location.href = await pictureOf("report");
  } catch (error) {
    say(error.message);
    location.hash = "#inspect";
  }
}

/** The detector and its cameras, asked once, or again where the service gave no answer. */
function whatIsServed() {
  served ??= askJson("v1/detectors").then(({ detectors: [one] }) => one, (error) => { served = null; throw error; });
  return served;
}

async function begin() {
  for (const name of ["user", "camera", "every"]) {
    $(name).value = localStorage.getItem(name) ?? $(name).value;
    $(name).addEventListener("change", () => localStorage.setItem(name, $(name).value));
  }
  $("who").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["files", "folder"]) {
    $(id).addEventListener("change", () => { take([...$(id).files]).finally(() => { $(id).value = ""; }); });
  }
  const drop = document.body;
  drop.addEventListener("dragover", (event) => { event.preventDefault(); $("drop").classList.add("over"); });
  drop.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  drop.addEventListener("drop", async (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    location.hash = "#inspect";
    take(entries.length ? (await Promise.all(entries.map(filesBelow))).flat() : [...event.dataTransfer.files]);
  });
  for (const id of ["opacity", "zoom", "show-regions"]) $(id).addEventListener("input", look);
  scrollTogether($("window-photo"), $("window-heatmap"));
  scrollTogether($("window-heatmap"), $("window-photo"));
  $("only-flagged").addEventListener("change", () => {
    for (const item of items) item.line.hidden = $("only-flagged").checked && item.result?.verdict !== "anomalous";
  });
  $("decide").addEventListener("submit", keep);
  $("decide").addEventListener("change", labelChanged);
  $("find-similar").addEventListener("click", findSimilar);
  $("threshold").addEventListener("input", evaluate);
  $("table").addEventListener("change", () => moveTo(evaluation.threshold));
  $("reset").addEventListener("click", () => moveTo(evaluation.threshold));
  $("more").addEventListener("click", () => listDecisions(`v1/decisions?limit=50&before=${older}`));
  $("open-report").addEventListener("click", openReport);
  addEventListener("hashchange", () => { openPart(); $("main").focus({ preventScroll: true }); scrollTo(0, 0); });
  openPart();
  const { name, cameras, hash, alpha, threshold_from } = await whatIsServed();
  detector = name;
  $("cameras-known").replaceChildren(...cameras.map((camera) => make("option", { value: camera })));
  $("detector").textContent = `${name} ${hash.slice(0, 8)}, alpha ${alpha}; threshold from ${threshold_from}`;
}

/** The files of what was dropped, also of folders in folders. */
async function filesBelow(entry) {
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    return [file];
  }
  const reader = entry.createReader(), found = [];
  for (;;) {  // at most 100 come at once
    const some = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (!some.length) break;
    found.push(...some);
  }
  found.sort((a, b) => (a.name < b.name ? -1 : 1));
  return (await Promise.all(found.map(filesBelow))).flat();
}

begin().catch((error) => say(error.message));
