// The page is a client of the REST interface like any other. No framework, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const KEY = "mien-key";
const state = { me: null, loaded: null, gallery: null, next: null };

// ------------------------------------------------------------------------------------ small tools

function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function say(words, bad = false) {
  $("status").textContent = words;
  $("status").className = bad ? "bad" : "";
}

function oneIn(rate) {
  if (rate >= 0.5) return null;
  const times = 1 / rate;
  const digits = 10 ** Math.max(0, Math.floor(Math.log10(times)) - 1); // two figures are known
  return `1 in ${(Math.round(times / digits) * digits).toLocaleString("en")}`;
}

const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
const when = (time) => new Date(time).toLocaleDateString(undefined, { dateStyle: "medium" });
const extreme = (fmr) => fmr <= Math.min(...state.loaded.operating_points.map((p) => p.fmr)) * 1.000001;

/** What a score is worth, in words. */
function meaning(fmr, rate, where) {
  const words = oneIn(rate);
  if (words === null) return `Most strangers would score this high ${where}.`;
  return extreme(fmr)
    ? `Fewer than ${words} strangers would score this high ${where}.`
    : `About ${words} strangers would score this high ${where}.`;
}

class Problem extends Error {
  constructor(body, status) {
    super(body.detail ?? `the server answered ${status}`);
    this.status = status;
    this.type = (body.type ?? "").split("/").pop();
    this.body = body;
  }
}

async function call(method, path, { body, headers = {} } = {}) {
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  let reply;
  try {
    reply = await fetch(path, { method, body, headers });
  } catch {
    throw new Problem({ detail: "the server cannot be reached" }, 0);
  }
  const json = (reply.headers.get("content-type") ?? "").includes("json");
  const content = json && reply.status !== 204 ? await reply.json() : null;
  if (!reply.ok) throw new Problem(content ?? {}, reply.status);
  return content;
}

/** Show an error where it belongs; a missing key is asked for. */
function fail(error, place = null) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) return askKey(sessionStorage.getItem(KEY) ? error.message : "");
  const words = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  if (place) place.textContent = words;
  else say(words, true);
}

function form(files) {
  const data = new FormData();
  for (const file of files) data.append("image", file, file.name || "picture");
  return data;
}

const at = (...parts) => `/v1/galleries/${[state.gallery, ...parts].map((part, i) =>
  (i % 2 === 1 ? part : encodeURIComponent(part))).join("/")}`;

// --------------------------------------------------------------------------------------- pictures

async function bitmap(file) {
  try {
    return await createImageBitmap(file); // turned upright by its EXIF, as the server does
  } catch {
    return null; // a format that the server may read and this browser does not, such as HEIC
  }
}

function accepts(element, take) {
  const stop = (event) => { event.preventDefault(); element.classList.toggle("over", event.type === "dragover"); };
  element.addEventListener("dragover", stop);
  element.addEventListener("dragleave", stop);
  element.addEventListener("drop", (event) => { stop(event); take([...event.dataTransfer.files]); });
}

/** A canvas with the picture and a numbered box around each face. */
function draw(canvas, picture, faces, chosen = -1) {
  const scale = Math.min(1, 1600 / Math.max(picture.width, picture.height));
  canvas.width = Math.round(picture.width * scale);
  canvas.height = Math.round(picture.height * scale);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const unit = Math.max(canvas.width, canvas.height) / 100;
  faces.forEach((face, i) => {
    const [left, top, right, bottom] = face.box.map((side) => (side + 0.5) * scale);
    const colour = face.subject ? "#2dd4bf" : "#fbbf24";
    const size = Math.max(11, Math.min(2.6 * unit, (right - left) / 3));
    pen.lineWidth = (i === chosen ? 0.8 : 0.45) * unit;
    pen.strokeStyle = colour;
    pen.strokeRect(left, top, right - left, bottom - top);
    const text = `${i + 1} ${face.subject ?? "unknown"}`;
    pen.font = `600 ${size}px system-ui, sans-serif`;
    const width = pen.measureText(text).width + size * 0.7;
    const x = Math.max(0, Math.min(left - pen.lineWidth / 2, canvas.width - width));
    const y = top > size * 1.5 ? top - size * 1.4 : bottom;
    pen.fillStyle = colour;
    pen.fillRect(x, y, width, size * 1.4);
    pen.fillStyle = "#10201d";
    pen.textBaseline = "middle";
    pen.fillText(text, x + size * 0.35, y + size * 0.72);
  });
}

/** The face alone, with some room around. */
function crop(canvas, picture, face) {
  const [left, top, right, bottom] = face.box;
  const side = 1.5 * Math.max(right - left, bottom - top);
  const x = (left + right - side) / 2, y = (top + bottom - side) / 2;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, x, y, side, side, 0, 0, canvas.width, canvas.height);
}

const QUALITY = 0.1; // faces below are refused; see mien.gallery.MIN_QUALITY

function qualityWords(face) {
  const per = `${Math.round(100 * face.quality)}%`;
  const why = face.reasons.length ? `: ${face.reasons.join(", ")}` : "";
  if (face.quality < QUALITY) return { words: `Too poor to enrol (${per})${why}`, good: false, usable: false };
  if (face.reasons.length) return { words: `Usable (${per})${why}`, good: false, usable: true };
  return { words: `Good quality (${per})`, good: true, usable: true };
}

// -------------------------------------------------------------------------------------- recognise

async function recognise(files) {
  const pictures = files.filter((file) => file.size || file.name);
  if (!pictures.length) return;
  if (!state.gallery) return say("Make a gallery first.", true);
  for (const file of pictures) {
    say(`Looking at ${file.name || "the picture"} …`);
    const card = el("article", { className: "picture" });
    try {
      await show(card, file, await bitmap(file));
      $("results").prepend(card);
      $("clear").hidden = false;
      say("");
    } catch (error) {
      fail(error);
      if (error.status === 401) return;
    }
  }
}

async function show(card, file, picture) {
  const reply = await call("POST", `${at("identify")}?fpir=${$("fpir").value}&limit=4`, { body: form([file]) });
  const { faces } = reply.images[0];
  const canvas = el("canvas", { role: "img" });
  const names = faces.map((face) => face.subject ?? "unknown").join(", ");
  canvas.setAttribute("aria-label", `${file.name || "Picture"}: ${faces.length ? names : "no face"}`);
  const items = faces.map((face, i) => faceItem(face, i, reply, picture && (() => enrol(card, file, picture, face))));
  const choose = (chosen) => {
    items.forEach((item, i) => item.classList.toggle("chosen", i === chosen));
    if (picture) draw(canvas, picture, faces, chosen);
  };
  items.forEach((item, i) => item.addEventListener("focusin", () => choose(i)));
  canvas.addEventListener("click", (event) => {
    const x = (event.offsetX / canvas.clientWidth) * reply.images[0].width;
    const y = (event.offsetY / canvas.clientHeight) * reply.images[0].height;
    const hit = faces.findIndex(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3]);
    if (hit >= 0) { choose(hit); enrol(card, file, picture, faces[hit]); }
  });
  if (picture) draw(canvas, picture, faces);
  card.replaceChildren(
    el("header", {}, el("h2", {}, file.name || "Picture"),
      el("span", { className: "muted" }, faces.length ? plural(faces.length, "face", "faces") : "no face found")),
    picture ? canvas : el("p", { className: "muted" }, "This browser cannot show the picture."),
    el("ol", { className: "faces" }, ...items),
  );
}

function faceItem(face, i, reply, enrolThis) {
  const size = plural(reply.gallery_size, "template", "templates");
  const others = face.candidates.filter((candidate) => candidate.subject !== face.subject);
  const where = `in a gallery of ${size}`;
  const words = !face.candidates.length ? "Nobody is enrolled in this gallery yet."
    : `Score ${face.score.toFixed(3)}, ${face.threshold.toFixed(3)} is needed. ${meaning(face.fmr_at_score, face.fpir_at_score, where)}`;
  return el("li", { className: face.subject ? "face known" : "face" },
    el("div", { className: "who" }, el("span", { className: "number" }, String(i + 1)), face.subject ?? "Unknown"),
    el("p", { className: "muted" }, words),
    others.length ? el("details", { open: !face.subject },
      el("summary", {}, face.subject ? "Others who are most alike" : "Most alike"),
      el("ul", { className: "candidates" }, ...others.slice(0, 3).map((candidate) =>
        el("li", {}, el("span", {}, candidate.subject), el("span", {}, candidate.score.toFixed(3)))))) : null,
    enrolThis && may("write") ? el("button", { type: "button", onclick: enrolThis },
      face.subject ? "Add as another picture" : "Enrol this face") : null,
  );
}

const ROLES = ["read", "write", "admin"];
const may = (role) => state.me !== null && ROLES.indexOf(state.me.role) >= ROLES.indexOf(role);

async function enrol(card, file, picture, face) {
  if (!may("write")) return;
  const { words, good, usable } = qualityWords(face);
  crop($("enrol-crop"), picture, face);
  $("enrol-quality").textContent = words;
  $("enrol-quality").className = good ? "good" : "poor";
  $("enrol-name").value = face.subject ?? "";
  $("enrol-save").disabled = !usable;
  suggestNames();
  open($("enrol"), async () => {
    const [left, top, right, bottom] = face.box;
    const clamp = (value, most) => Math.min(Math.max(value, 0), most - 1).toFixed(1);
    const point = `${clamp((left + right) / 2, picture.width)},${clamp((top + bottom) / 2, picture.height)}`;
    const name = $("enrol-name").value.trim();
    const reply = await call("POST", `${at("subjects")}/${encodeURIComponent(name)}/images?at=${point}`, { body: form([file]) });
    say(reply.images[0].status === "present"
      ? `${name} is enrolled with this picture already.`
      : `${name} is enrolled with ${plural(reply.templates.length, "picture", "pictures")}.`);
    await show(card, file, picture);
  });
}

async function suggestNames() {
  const page = await call("GET", `${at("subjects")}?limit=1000`);
  $("known").replaceChildren(...page.subjects.map((row) => el("option", { value: row.subject })));
}

// ----------------------------------------------------------------------------------------- people

async function listPeople(after = "") {
  if (!state.gallery) return;
  const query = new URLSearchParams({ limit: "100", after, contains: $("search").value.trim() });
  const page = await call("GET", `${at("subjects")}?${query}`);
  if (!after) $("people-list").replaceChildren();
  $("people-list").append(...page.subjects.map(personItem));
  $("people-count").textContent = page.total ? plural(page.total, "person", "people")
    : $("search").value ? "Nobody has such a name." : "Nobody is enrolled yet.";
  $("more").hidden = page.next === null;
  state.next = page.next;
}

function personItem(row) {
  return el("li", {},
    el("span", { className: "name" }, row.subject),
    el("span", { className: "muted" }, `${plural(row.templates, "picture", "pictures")}, since ${when(row.created)}`),
    may("write") ? el("button", { type: "button", className: "quiet", "aria-label": `Add pictures of ${row.subject}`, onclick: () => addPerson(row.subject) }, "Add pictures") : null,
    may("write") ? el("button", { type: "button", className: "quiet", "aria-label": `Erase ${row.subject}`, onclick: () => remove(row) }, "Erase") : null,
  );
}

function addPerson(name = "") {
  const chosen = [];
  $("person-title").textContent = name ? "Add pictures" : "Add a person";
  $("person-name").value = name;
  $("person-name").readOnly = name !== "";
  $("person-checks").replaceChildren();
  $("person-save").disabled = true;
  $("person-pictures").value = "";
  $("person-pictures").onchange = async (event) => {
    for (const file of [...event.target.files]) await check(file, chosen);
    event.target.value = "";
  };
  open($("person"), async () => {
    const person = $("person-name").value.trim();
    for (const file of [...chosen]) {
      await call("POST", `${at("subjects")}/${encodeURIComponent(person)}/images`, { body: form([file]) });
      chosen.splice(chosen.indexOf(file), 1); // not sent again if a later one is refused
    }
    say(`${person} is enrolled.`);
    await listPeople();
  });
}

/** Look at a picture before it is enrolled and say what is wrong with it. */
async function check(file, chosen) {
  const canvas = el("canvas", { width: 144, height: 144, "aria-hidden": "true" });
  const words = el("span", {}, "Looking …");
  const drop = el("button", { type: "button", className: "quiet", "aria-label": `Leave out ${file.name}`, onclick: () => {
    item.remove();
    if (chosen.includes(file)) chosen.splice(chosen.indexOf(file), 1);
    $("person-save").disabled = !chosen.length;
  } }, "Leave out");
  const item = el("li", {}, canvas, el("div", {}, el("div", {}, file.name), words), drop);
  $("person-checks").append(item);
  const judge = (text, usable, good) => {
    words.textContent = text;
    words.className = good ? "good" : "poor";
    if (usable) chosen.push(file);
    $("person-save").disabled = !chosen.length;
  };
  try {
    const { faces } = (await call("POST", "/v1/detect", { body: form([file]) })).images[0];
    const picture = await bitmap(file);
    if (faces.length !== 1) return judge(faces.length ? `${faces.length} faces: use a picture of one person` : "No face found", false, false);
    if (picture) crop(canvas, picture, faces[0]);
    const quality = qualityWords(faces[0]);
    judge(quality.words, quality.usable, quality.good);
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    judge(error.message, false, false);
  }
}

function remove(row) {
  $("remove-words").textContent = `${row.subject} and ${plural(row.templates, "template", "templates")} will be erased from every file of the gallery “${state.gallery}”. This cannot be undone.`;
  open($("remove"), async () => {
    const gone = await call("DELETE", `${at("subjects")}/${encodeURIComponent(row.subject)}`);
    $("receipt").replaceChildren(el("p", { className: "receipt", role: "status" },
      `Erased: ${gone.subject}, ${plural(gone.templates, "template", "templates")}, at ${gone.erased}.`));
    await listPeople();
  });
}

// ---------------------------------------------------------------------------------------- compare

const slots = [null, null];

async function fill(number, files) {
  if (!files.length) return;
  slots[number] = files[0];
  const picture = await bitmap(files[0]);
  const shown = $(number ? "slot-b" : "slot-a").querySelector(".shown");
  if (picture) {
    const canvas = el("canvas", { role: "img", "aria-label": files[0].name });
    draw(canvas, picture, []);
    shown.replaceChildren(canvas);
  } else shown.replaceChildren(files[0].name);
  await compare();
}

async function compare() {
  $("verdict").replaceChildren();
  if (!slots[0] || !slots[1]) return;
  say("Comparing …");
  try {
    const answer = await call("POST", `/v1/verify?fmr=${$("fmr").value}&choose=largest`, { body: form(slots) });
    say("");
    const rate = oneIn(answer.fmr_at_score);
    const worth = rate === null ? "Most pairs of different people score this high."
      : `${extreme(answer.fmr_at_score) ? "Fewer than" : "About"} ${rate} pairs of different people score this high.`;
    $("verdict").replaceChildren(el("div", { className: answer.match ? "verdict match" : "verdict" },
      el("h2", {}, answer.match ? "The same person" : "Not shown to be the same person"),
      el("p", {}, `Score ${answer.score.toFixed(3)}, ${answer.threshold.toFixed(3)} is needed. ${worth}`),
      el("p", { className: "muted" }, `At this threshold ${oneIn(answer.fmr) ?? "most"} pairs of different people match, and ${(100 * answer.fnmr).toFixed(1)}% of the same people do not. Measured on: ${answer.protocol}.`)));
  } catch (error) { fail(error); }
}

// ----------------------------------------------------------------------------------------- models

async function showModels() {
  const [{ version, loaded, models }, ready] = await Promise.all([
    call("GET", "/v1/models"),
    call("GET", "/readyz").then(() => "ready", (error) => error.message),
  ]);
  const facts = (pairs) => el("dl", {}, ...pairs.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
  const table = (name, head, rows) => el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": name }, el("table", {},
    el("thead", {}, el("tr", {}, ...head.map(([text, number]) => el("th", { scope: "col", className: number ? "number" : "" }, text)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text, i) => el("td", { className: head[i][1] ? "number" : "" }, text)))))));
  $("models").replaceChildren(
    el("div", { className: "card" }, el("h2", {}, "This server"), facts([
      ["State", ready], ["mien", version], ["Recogniser", `${loaded.id}: ${loaded.title}`],
      ["Detector", loaded.detector], ["Embedder", loaded.embedder], ["Contract", loaded.contract],
      ...Object.entries(loaded.figures)])),
    el("div", { className: "card" }, el("h2", {}, "What its scores are worth"),
      el("p", { className: "muted" }, loaded.protocol ? `Measured on ${loaded.protocol}.` : "Nothing was measured of this recogniser."),
      table("Operating points", [["Different people that match"], ["Score needed", true], ["Same person missed", true]],
        loaded.operating_points.map((p) => [oneIn(p.fmr) ?? "most", p.threshold.toFixed(4), `${(100 * p.fnmr).toFixed(2)}%`]))),
    el("div", { className: "card" }, el("h2", {}, "Networks"),
      table("Networks", [["Network"], ["Task"], ["Licence"], ["Commercial use"], ["Size", true], ["Here"]],
        models.map((m) => [m.id, m.task, m.licence, m.commercial, `${(m.bytes / 1e6).toFixed(1)} MB`, m.present ? "yes" : "no"]))));
}

// ----------------------------------------------------------------------------- dialogs and camera

/** Open a dialog; `save` runs when its form is sent, and closes it unless it fails. */
function open(dialog, save) {
  const error = dialog.querySelector(".error");
  const send = dialog.querySelector("[type=submit]");
  error.textContent = "";
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    error.textContent = "";
    try {
      await save();
      dialog.close();
    } catch (problem) {
      if (problem.status === 401) dialog.close();
      fail(problem, error);
    } finally {
      send.disabled = false;
    }
  };
  dialog.showModal();
}

async function takePicture() {
  const video = $("video");
  let stream = null;
  $("shoot-take").disabled = true;
  $("shoot").addEventListener("close", () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }, { once: true });
  open($("shoot"), async () => {
    const canvas = el("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
    recognise([new File([blob], "camera.jpg", { type: "image/jpeg" })]);
  });
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
    if (!$("shoot").open) return stream.getTracks().forEach((track) => track.stop());
    video.srcObject = stream;
    await video.play();
    $("shoot-take").disabled = false;
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    $("shoot-error").textContent = { NotFoundError: "No camera was found.", NotAllowedError: "The camera was not allowed.",
      SecurityError: "Browsers give the camera only to https addresses and to localhost." }[error.name] ?? `The camera cannot be used (${error.name}).`;
  }
}

function askKey(words) {
  if ($("ask-key").open) return;
  $("key-text").value = "";
  open($("ask-key"), async () => {
    sessionStorage.setItem(KEY, $("key-text").value.trim());
    try {
      await call("GET", "/v1/me");
    } catch (error) {
      sessionStorage.removeItem(KEY);
      $("key-error").textContent = error.message;
      throw error.status === 401 ? new Problem({ detail: error.message }, 403) : error;
    }
    await start();
  });
  $("key-error").textContent = words;
}

// ------------------------------------------------------------------------------------------ start

const views = { recognise: () => {}, people: listPeople, compare: () => {}, models: showModels };

async function go() {
  const wanted = location.hash.slice(1);
  if (wanted === "main") return;
  const view = wanted in views ? wanted : "recognise";
  for (const name of Object.keys(views)) $(`view-${name}`).hidden = name !== view;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `mien: ${$(`h-${view}`).textContent}`;
  $("receipt").replaceChildren();
  say("");
  if (!state.me) return;
  try { await views[view](); } catch (error) { fail(error); }
}

async function start() {
  try {
    state.me = await call("GET", "/v1/me");
    state.loaded = (await call("GET", "/v1/models")).loaded;
    await listGalleries();
  } catch (error) {
    return fail(error);
  }
  $("key").hidden = !state.me.keys;
  $("new-gallery").hidden = !may("admin");
  $("add").hidden = !may("write");
  await go();
}

async function listGalleries(chosen = sessionStorage.getItem("mien-gallery")) {
  let { galleries } = await call("GET", "/v1/galleries");
  if (!galleries.length && may("admin")) {
    await call("PUT", "/v1/galleries/people");
    galleries = ["people"];
  }
  $("gallery").replaceChildren(...galleries.map((name) => el("option", { value: name }, name)));
  state.gallery = galleries.includes(chosen) ? chosen : galleries[0] ?? null;
  if (state.gallery) $("gallery").value = state.gallery;
}

$("gallery").addEventListener("change", () => {
  state.gallery = $("gallery").value;
  sessionStorage.setItem("mien-gallery", state.gallery);
  $("results").replaceChildren();
  go();
});
$("new-gallery").addEventListener("click", () => open($("make-gallery"), async () => {
  const name = $("make-name").value.trim();
  await call("PUT", `/v1/galleries/${encodeURIComponent(name)}`);
  sessionStorage.setItem("mien-gallery", name);
  await listGalleries(name);
  await go();
}));
$("key").addEventListener("click", () => askKey(""));
$("camera").addEventListener("click", takePicture);
$("clear").addEventListener("click", () => { $("results").replaceChildren(); $("clear").hidden = true; });
$("pictures").addEventListener("change", async (event) => { const files = [...event.target.files]; event.target.value = ""; await recognise(files); });
accepts($("drop"), recognise);
[$("slot-a"), $("slot-b")].forEach((slot, number) => {
  accepts(slot, (files) => fill(number, files));
  slot.querySelector("input").addEventListener("change", (event) => fill(number, [...event.target.files]));
});
$("fmr").addEventListener("change", compare);
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length && !$("view-recognise").hidden) recognise(files);
});
$("add").addEventListener("click", () => addPerson());
$("more").addEventListener("click", () => listPeople(state.next).catch(fail));
let typing;
$("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => listPeople().catch(fail), 200); });
for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
addEventListener("hashchange", go);
go();
start();
