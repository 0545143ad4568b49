// Recognise: who is in a picture; a click on a face enrols it.

import { at, call, form, may, ready, state } from "./api.js";
import { takePicture } from "./camera.js";
import { enrol } from "./enrol.js";
import { $, button, el, fail, say } from "./page.js";
import { accepts, bitmap, chosen, draw } from "./pictures.js";
import { count } from "./review.js";
import { plural, scoreWords } from "./words.js";

async function recognise(files) {
  const pictures = files.filter((file) => file.size || file.name);
  if (!pictures.length) return;
  await ready; // a picture may be dropped on the page before the server has answered
  if (!state.gallery) return say("Make a gallery first.", true);
  for (const file of pictures) {
    say(`Looking at ${file.name || "the picture"} …`);
    const card = el("article", { className: "picture" });
    try {
      await fill(card, file, await bitmap(file));
      $("results").prepend(card);
      $("clear").hidden = false;
      say("");
    } catch (error) {
      fail(error);
      if (error.status === 401) return;
    }
  }
}

/** Fill a card with a picture and what was found in it. */
async function fill(card, file, picture) {
  const reply = await call("POST", `${at("identify")}?fpir=${$("fpir").value}&limit=4&review=${may("write")}`, { body: form([file]) });
  const { faces } = reply.images[0];
  if (faces.some((face) => face.review)) count().catch(fail);
  const canvas = el("canvas", { role: "img" });
  const names = faces.map((face) => face.subject ?? "unknown").join(", ");
  canvas.setAttribute("aria-label", `${file.name || "Picture"}: ${faces.length ? names : "no face"}`);
  const ask = (face) => enrol(file, picture, face, async () => { await fill(card, file, picture); await show(); });
  const items = faces.map((face, i) => faceItem(face, i, reply.gallery_size, picture && (() => ask(face))));
  const choose = (current) => {
    items.forEach((item, i) => item.classList.toggle("chosen", i === current));
    if (picture) draw(canvas, picture, faces, current);
  };
  items.forEach((item, i) => item.addEventListener("focusin", () => choose(i)));
  canvas.addEventListener("click", (event) => {
    const x = (event.offsetX / canvas.clientWidth) * reply.images[0].width;
    const y = (event.offsetY / canvas.clientHeight) * reply.images[0].height;
    const hit = faces.findIndex(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3]);
    if (hit >= 0) { choose(hit); ask(faces[hit]); }
  });
  if (picture) draw(canvas, picture, faces);
  card.replaceChildren(
    el("header", {}, el("h2", {}, file.name || "Picture"),
      el("span", { className: "muted" }, faces.length ? plural(faces.length, "face") : "no face found")),
    picture ? canvas : el("p", { className: "muted" }, "This browser cannot show the picture."),
    el("ol", { className: "faces" }, ...items),
  );
}

function faceItem(face, i, size, enrolThis) {
  const others = face.candidates.filter((candidate) => candidate.subject !== face.subject);
  return el("li", { className: face.subject ? "face known" : "face" },
    el("div", { className: "who" }, el("span", { className: "number" }, String(i + 1)), face.subject ?? "Unknown"),
    el("p", { className: "muted" }, scoreWords(face, size)),
    others.length ? el("details", { open: !face.subject },
      el("summary", {}, face.subject ? "Others who are most alike" : "Most alike"),
      el("ul", { className: "candidates" }, ...others.slice(0, 3).map((candidate) =>
        el("li", {}, el("span", {}, candidate.subject), el("span", {}, candidate.score.toFixed(3)))))) : null,
    enrolThis && may("write") ? button(face.subject ? "Add as another picture" : "Enrol this face", enrolThis) : null,
  );
}

$("camera").addEventListener("click", () => takePicture((file) => recognise([file])));
$("clear").addEventListener("click", clear);
chosen($("pictures"), recognise);
accepts($("drop"), recognise);
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length && !$("view-recognise").hidden) recognise(files);
});

/** Forget the pictures shown. */
export function clear() {
  $("results").replaceChildren();
  $("clear").hidden = true;
}

/** Say what to do first, while nobody is enrolled. */
async function show() {
  if (!state.gallery) return;
  const { subjects } = await call("GET", at());
  $("nobody-yet").hidden = subjects > 0;
  $("nobody-yet").textContent = `Nobody is enrolled in “${state.gallery}” yet, so everybody is unknown. ${may("write") ? "Choose a picture and click a face to give it a name." : "Somebody with a key that may write can enrol people."}`;
}

export const view = { show };
