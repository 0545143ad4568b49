// Groups: the faces of many pictures by person, to be named and enrolled. Nothing is kept before.

import { call, enrolFace, form, may, Problem, state } from "./api.js";
import { suggestNames } from "./enrol.js";
import { $, button, el, fail, say } from "./page.js";
import { accepts, bitmap, chosen, thumbnail } from "./pictures.js";
import { plural } from "./words.js";

const AT_ONCE = 2; // pictures of a request, so that progress is seen
const SHOWN = 12; // faces of a group that are drawn

let run = 0; // a newer choice of pictures ends an older one

async function group(files) {
  const pictures = files.filter((file) => file.type.startsWith("image/") || /\.(jpe?g|png|webp|heic|avif|tiff?|bmp|gif)$/i.test(file.name));
  if (!pictures.length) return say("There are no pictures in it.", true);
  const mine = ++run;
  const faces = [], refused = [];
  let contract = null;
  $("groups").replaceChildren();
  $("group-progress").max = pictures.length;
  $("group-work").hidden = false;
  try {
    for (let i = 0; i < pictures.length; i += AT_ONCE) {
      $("group-progress").value = i;
      $("group-words").textContent = `${i} of ${plural(pictures.length, "picture")}, ${plural(faces.length, "face")} so far`;
      contract = await look(pictures.slice(i, i + AT_ONCE), faces, refused) ?? contract;
      if (mine !== run) return;
    }
    const numbers = faces.length ? (await call("POST", "/v1/group/vectors", { json: {
      contract, vectors: faces.map((face) => face.vector), pictures: faces.map((face) => face.place), qualities: faces.map((face) => face.quality),
    } })).numbers : [];
    if (mine === run) show(faces, numbers, pictures.length, refused);
  } catch (error) {
    fail(error);
  } finally {
    if (mine === run) $("group-work").hidden = true;
  }
}

/** Describe the faces of a few pictures; one that cannot be used is noted and passed. */
async function look(files, faces, refused) {
  try {
    const reply = await call("POST", "/v1/embed", { body: form(files) });
    for (const [i, image] of reply.images.entries()) {
      const picture = image.faces.length ? await bitmap(files[i]) : null;
      for (const face of image.faces) faces.push({ ...face, file: files[i], place: files[i].webkitRelativePath || files[i].name, ...drawn(picture, face) });
      picture?.close();
    }
    return reply.contract;
  } catch (error) {
    if (!(error instanceof Problem) || ![413, 415, 422].includes(error.status)) throw error;
    if (files.length === 1) { refused.push(files[0].name); return null; }
    let contract = null;
    for (const file of files) contract = await look([file], faces, refused) ?? contract;
    return contract;
  }
}

/** What is kept of a picture: its size and the face; not all of its pixels. */
const drawn = (picture, face) => picture
  ? { size: { width: picture.width, height: picture.height }, thumb: thumbnail(picture, face, 112) }
  : { size: { width: face.box[2] + 1, height: face.box[3] + 1 }, thumb: el("span", { className: "thumb" }) };

function show(faces, numbers, pictures, refused) {
  const groups = new Map();
  faces.forEach((face, i) => { if (numbers[i] >= 0) groups.set(numbers[i], [...(groups.get(numbers[i]) ?? []), face]); });
  const alone = faces.filter((_, i) => numbers[i] < 0);
  const count = [...groups.keys()].sort((a, b) => a - b);
  const words = `${plural(faces.length, "face")} in ${plural(pictures, "picture")}: ${plural(groups.size, "person", "people")} seen more than once, ${plural(alone.length, "face")} seen once.`;
  $("groups").replaceChildren(
    el("p", { role: "status" }, words, refused.length ? ` ${plural(refused.length, "picture")} could not be used: ${refused.join(", ")}.` : ""),
    ...count.map((number) => card(`Group ${number + 1}`, groups.get(number))),
    ...(alone.length ? [el("details", { className: "card" }, el("summary", {}, `Seen once: ${plural(alone.length, "face")}`), el("div", { className: "grid" }, ...alone.map((face, i) => card(`Face ${i + 1}`, [face]))))] : []),
  );
  suggestNames();
}

function card(title, faces) {
  const more = faces.length > SHOWN ? el("span", { className: "muted" }, `and ${faces.length - SHOWN} more`) : null;
  const place = el("article", { className: "card group" }, el("h2", {}, title, " ", el("span", { className: "muted" }, plural(faces.length, "picture"))),
    el("div", { className: "thumbs" }, ...faces.slice(0, SHOWN).map((face) => face.thumb), more));
  if (!may("write") || !state.gallery) return place;
  const name = el("input", { required: true, maxLength: 200, autocomplete: "off", placeholder: "Who is this?", "aria-label": `Name of ${title}` });
  name.setAttribute("list", "known");
  const words = el("p", { className: "error", role: "alert" });
  const form_ = el("form", { className: "row" }, name, el("button", { type: "submit", className: "primary" }, "Enrol"));
  form_.addEventListener("submit", async (event) => {
    event.preventDefault();
    form_.querySelector("button").disabled = true;
    try {
      const done = await enrolAll(name.value.trim(), faces);
      form_.replaceWith(el("p", { className: "good" }, done));
      words.textContent = "";
      suggestNames();
    } catch (error) {
      form_.querySelector("button").disabled = false;
      fail(error, words);
    }
  });
  place.append(form_, words);
  return place;
}

/** Enrol the faces of a group that are good enough; says how many. */
async function enrolAll(name, faces) {
  let enrolled = 0, poor = 0;
  for (const face of faces) {
    try {
      await enrolFace(name, face.file, face, face.size);
      enrolled += 1;
    } catch (error) {
      if (!(error instanceof Problem) || error.type !== "LowQuality") throw error;
      poor += 1;
    }
  }
  if (!enrolled) throw new Problem({ detail: "none of these faces is good enough to be enrolled" }, 422);
  return `${name} is enrolled with ${plural(enrolled, "picture")}${poor ? `; ${plural(poor, "face")} too poor` : ""}.`;
}

chosen($("group-folder"), group);
chosen($("group-pictures"), group);
accepts($("group-drop"), group);

export const view = {};
