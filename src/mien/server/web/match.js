// Match: whom of the people that a head was fitted on a face shows, or resembles.

import { call, form, state } from "./api.js";
import { takePicture } from "./camera.js";
import { $, choices, el, fail, say } from "./page.js";
import { accepts, bitmap, chosen, draw, thumbnail } from "./pictures.js";
import { percent, plural } from "./words.js";

async function match([file]) {
  say(`Looking at ${file.name || "the picture"} …`);
  try {
    const head = encodeURIComponent($("head").value);
    const reply = await call("POST", `/v1/classify/${head}?limit=5`, { body: form([file]) });
    const picture = await bitmap(file);
    say("");
    show(file, picture, reply.images[0].faces);
  } catch (error) { fail(error); }
}

function show(file, picture, faces) {
  const canvas = el("canvas", { role: "img", "aria-label": file.name || "Picture" });
  if (picture) draw(canvas, picture, faces.map((face) => ({ ...face, subject: face.label })));
  $("matches").replaceChildren(el("article", { className: "picture" },
    el("header", {}, el("h2", {}, file.name || "Picture"), el("span", { className: "muted" }, faces.length ? plural(faces.length, "face") : "no face found")),
    picture ? canvas : el("p", { className: "muted" }, "This browser cannot show the picture."),
    el("ol", { className: "faces" }, ...faces.map((face, i) => item(face, i, picture)))));
}

function item(face, i, picture) {
  const [best] = face.top;
  return el("li", { className: "face known" },
    el("div", { className: "lookalike" }, thumbnail(picture, face, 96),
      el("div", {}, el("p", { className: "muted" }, `Face ${i + 1} is most like`), el("div", { className: "who" }, best.label),
        el("p", { className: "muted" }, `with ${percent(best.probability)} of the probability`))),
    bars(face.top));
}

/** The likeliest labels as bars, in a list that is read as words. */
const bars = (top) => el("ol", { className: "bars" }, ...top.map((one) => {
  const bar = el("span", { className: "bar-fill", "aria-hidden": "true" });
  bar.style.width = percent(one.probability, 1);
  return el("li", {}, el("span", { className: "bar-name" }, one.label), el("span", { className: "bar-track" }, bar), el("span", { className: "number" }, percent(one.probability, 1)));
}));

function about() {
  const head = state.heads.find((one) => one.head === $("head").value);
  $("head-about").textContent = head
    ? `Knows ${plural(head.labels.length, "person", "people")}. On pictures held back from it, ${percent(head.accuracy, 1)} got the right one (${head.protocol}). It always answers with somebody it knows: this is a resemblance, not an identification.` : "";
  $("head-labels").replaceChildren(...(head?.labels ?? []).map((label) => el("li", {}, label)));
}

chosen($("match-picture"), match);
accepts($("match-drop"), (files) => files.length && match(files));
$("match-camera").addEventListener("click", () => takePicture((file) => match([file])));
$("head").addEventListener("change", () => { $("matches").replaceChildren(); about(); });

export const view = {
  possible: () => state.heads.length > 0,
  show() {
    choices($("head"), state.heads.map((one) => one.head));
    about();
  },
};
