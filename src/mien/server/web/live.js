// Live: the camera's frames go over a WebSocket, tracks and names come back.

import { at, key, may, Problem, state } from "./api.js";
import { camera, CameraError, release, snapshot } from "./camera.js";
import { enrol } from "./enrol.js";
import { $, button, el, fail, say } from "./page.js";
import { bitmap } from "./pictures.js";
import { meaning, percent } from "./words.js";

const WIDEST = 640; // pixels of a frame that is sent: faces from 16 pixels are found
const UNANSWERED = 2; // frames on their way: one at work, one to follow it
const FASTEST = 40; // milliseconds between frames: no camera is faster than the eye
const KEPT = 6; // lines of what was decided

let session = null; // what runs now, null while stopped

async function start() {
  if (!state.gallery) return say("Make a gallery first.", true);
  $("live-error").textContent = "";
  const mine = { stream: null, socket: null, sent: 0, answered: 0, frames: new Map(), times: [], boxes: new Map() };
  session = mine;
  buttons();
  try {
    mine.stream = await camera(1280);
    if (session !== mine) return release(mine.stream);
    $("live-video").srcObject = mine.stream;
    await $("live-video").play();
    connect(mine);
  } catch (error) {
    if (session !== mine) return; // stopped meanwhile, which interrupts what was starting
    if (!(error instanceof CameraError)) throw error;
    stop(error.message);
  }
}

function connect(mine) {
  const address = new URL(at("live"), location.href);
  address.protocol = address.protocol.replace("http", "ws");
  mine.socket = new WebSocket(address);
  mine.socket.onopen = () => mine.socket.send(JSON.stringify({ key: key.get(), fpir: Number($("live-fpir").value), liveness: $("live-liveness").checked }));
  mine.socket.onmessage = (event) => session === mine && hear(mine, JSON.parse(event.data));
  mine.socket.onclose = () => session === mine && stop("The server ended the connection.");
}

function hear(mine, message) {
  if (message.kind === "ready") return feed(mine);
  if (message.kind === "scene") return show(mine, message);
  if (message.frame !== undefined) { // one frame that was not looked at: others come
    mine.answered = message.frame + 1;
    return;
  }
  const problem = new Problem(message, message.status);
  stop("");
  fail(problem, problem.status === 401 ? null : $("live-error"));
}

/** Send a frame whenever the server has answered enough, until the session is over. */
async function feed(mine) {
  while (session === mine) {
    if (mine.sent - mine.answered < UNANSWERED && !document.hidden) {
      const frame = await snapshot($("live-video"), "camera.jpg", WIDEST, 0.8);
      if (session !== mine) return;
      mine.frames.set(mine.sent, frame);
      mine.sent += 1;
      mine.socket.send(frame);
    }
    await new Promise((done) => setTimeout(done, FASTEST));
  }
}

/** Show the very frame that was answered: its boxes would be late on what the camera sees now. */
async function show(mine, scene) {
  mine.answered = scene.frame + 1; // those before were dropped
  mine.file = mine.frames.get(scene.frame);
  for (const number of mine.frames.keys()) if (number <= scene.frame) mine.frames.delete(number);
  const picture = await bitmap(mine.file);
  if (session !== mine) return;
  const canvas = $("live-frame");
  if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
  canvas.getContext("2d").drawImage(picture, 0, 0);
  picture.close();
  $("live-stage").classList.add("on");
  boxes(mine, scene);
  list(mine, scene);
  for (const event of scene.events) tell(event);
  mine.times = [...mine.times, performance.now()].slice(-12);
  const span = mine.times.length > 1 ? (mine.times.at(-1) - mine.times[0]) / (mine.times.length - 1) : 0;
  $("live-rate").textContent = span
    ? `${(1000 / span).toFixed(1)} frames a second, each answered after ${Math.round(1000 * scene.seconds)} ms; ${scene.dropped.toLocaleString("en")} dropped.` : "";
}

const nameOf = (track) => ({ looking: "Looking …", unknown: "Unknown", named: track.subject })[track.state];

/** Boxes over the frame; each stays the same element while its person is followed. */
function boxes(mine, scene) {
  const seen = new Set();
  for (const track of scene.tracks) {
    seen.add(track.track);
    let box = mine.boxes.get(track.track);
    if (!box) {
      box = el("div", {}, el("span", {}));
      mine.boxes.set(track.track, box);
      $("live-boxes").append(box);
    }
    const [left, top, right, bottom] = track.box;
    box.className = `box ${track.state}`;
    Object.assign(box.style, {
      left: `${(100 * left) / scene.width}%`, top: `${(100 * top) / scene.height}%`,
      width: `${(100 * (right - left)) / scene.width}%`, height: `${(100 * (bottom - top)) / scene.height}%`,
    });
    box.firstChild.textContent = nameOf(track);
  }
  for (const [number, box] of mine.boxes) if (!seen.has(number)) { box.remove(); mine.boxes.delete(number); }
}

/** Who is in view; a row stays the same element, so that a button can be pressed. */
function list(mine, scene) {
  const rows = new Map([...$("live-tracks").children].map((row) => [Number(row.dataset.track), row]));
  for (const track of scene.tracks) {
    const row = rows.get(track.track) ?? $("live-tracks").appendChild(newRow(mine, track.track));
    rows.delete(track.track);
    row.track = track;
    row.className = track.state === "named" ? "face known" : "face";
    row.querySelector(".who").textContent = nameOf(track);
    row.querySelector(".muted").textContent = words(track);
    row.querySelector(".badge").hidden = track.liveness === null || track.liveness.live;
    const enrolThis = row.querySelector("button");
    if (!enrolThis) continue;
    enrolThis.hidden = track.state === "looking" || track.quality === null;
    enrolThis.textContent = track.state === "named" ? "Add as another picture" : "Enrol this face";
  }
  for (const row of rows.values()) row.remove();
  $("live-nobody").hidden = scene.tracks.length > 0;
}

function words(track) {
  if (track.state === "looking") return `Person ${track.track}: not seen well enough yet.`;
  const live = track.liveness ? liveWords(track.liveness) : "";
  if (!track.candidates.length) return `Person ${track.track}: nobody is enrolled in this gallery.${live}`;
  return `Person ${track.track}: score ${track.score.toFixed(3)}, ${track.threshold.toFixed(3)} is needed. ${meaning(track.fmr_at_score, track.fpir_at_score, "in this gallery")}${live}`;
}

/** Whether it is alive, and how often such an answer is wrong. */
const liveWords = ({ live, apcer, bpcer }) => live
  ? ` It passes for a living face, as ${percent(apcer)} of pictures of faces do.`
  : ` It looks like a picture of a face, as ${percent(bpcer)} of living ones do.`;

function newRow(mine, number) {
  const row = el("li", { className: "face" }, el("div", { className: "row" }, el("div", { className: "who" }), el("span", { className: "badge", hidden: true }, "Not live")),
    el("p", { className: "muted" }),
    may("write") ? button("Enrol this face", () => enrolTrack(mine, row.track)) : null);
  row.dataset.track = number;
  return row;
}

async function enrolTrack(mine, track) {
  const { file } = mine;
  const picture = await bitmap(file);
  if (picture) enrol(file, picture, track, () => {});
}

function tell(event) {
  const who = event.subject ?? (event.event === "ended" ? "Somebody unknown" : "Somebody");
  const what = event.event === "ended" ? "has left" : event.subject ? "is here" : "is here, and unknown";
  const time = new Date().toLocaleTimeString();
  $("live-events").prepend(el("li", {}, el("span", { className: "muted" }, time), ` ${who} ${what}`));
  while ($("live-events").children.length > KEPT) $("live-events").lastChild.remove();
}

function stop(words = "") {
  const mine = session;
  session = null;
  release(mine?.stream);
  if (mine?.socket) { mine.socket.onclose = null; mine.socket.close(); }
  $("live-video").srcObject = null;
  $("live-stage").classList.remove("on");
  $("live-boxes").replaceChildren();
  $("live-tracks").replaceChildren();
  $("live-nobody").hidden = false;
  $("live-rate").textContent = "";
  $("live-error").textContent = words;
  buttons();
}

function buttons() {
  $("live-start").hidden = session !== null;
  $("live-stop").hidden = session === null;
}

$("live-start").addEventListener("click", start);
$("live-stop").addEventListener("click", () => stop());
for (const choice of ["live-fpir", "live-liveness"]) $(choice).addEventListener("change", () => { if (session) { stop(); start(); } });

export const view = { hide: () => { if (session) stop(); } };
