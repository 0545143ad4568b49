// People: search, add with quality feedback, look closer, rename, merge, erase.

import { at, call, form, may, Problem, state } from "./api.js";
import { suggestNames } from "./enrol.js";
import { $, button, el, fail, open, say } from "./page.js";
import { bitmap, chosen, crop } from "./pictures.js";
import { percent, plural, qualityWords, when } from "./words.js";

let following = null; // the name after which the list goes on

async function list(after = "") {
  if (!state.gallery) return;
  const query = new URLSearchParams({ limit: "100", after, contains: $("search").value.trim() });
  const page = await call("GET", `${at("subjects")}?${query}`);
  if (!after) $("people-list").replaceChildren();
  $("people-list").append(...page.subjects.map(item));
  $("people-count").textContent = page.total ? plural(page.total, "person", "people")
    : $("search").value ? "Nobody has such a name." : may("write") ? "Nobody is enrolled yet. Add a person here, or click a face of a picture in Recognise." : "Nobody is enrolled yet.";
  $("more").hidden = page.next === null;
  following = page.next;
}

function item(row) {
  const quiet = (words, about, act) => button(words, act, { className: "quiet", "aria-label": `${about} ${row.subject}` });
  return el("li", {},
    el("span", { className: "avatar", "aria-hidden": "true" }, initials(row.subject)),
    el("span", { className: "name" }, row.subject),
    el("span", { className: "muted" }, `${plural(row.templates, "picture")}, since ${when(row.created)}`),
    quiet("Details", "Details of", () => details(row.subject).catch(fail)),
    may("write") ? quiet("Add pictures", "Add pictures of", () => add(row.subject)) : null,
    may("write") ? quiet("Erase", "Erase", () => erase(row.subject, row.templates)) : null,
  );
}

const initials = (name) => name.split(/\s+/).filter(Boolean).map((word) => [...word][0]).filter((_, i, all) => i === 0 || i === all.length - 1).join("").toUpperCase();

// -------------------------------------------------------------------------------------------- add

function add(name = "") {
  const good = [];
  $("person-title").textContent = name ? "Add pictures" : "Add a person";
  $("person-name").value = name;
  $("person-name").readOnly = name !== "";
  $("person-checks").replaceChildren();
  $("person-save").disabled = true;
  $("person-pictures").value = "";
  $("person-pictures").onchange = async (event) => {
    const files = [...event.target.files];
    event.target.value = "";
    for (const file of files) await check(file, good);
  };
  open($("person"), async () => {
    const person = $("person-name").value.trim();
    for (const file of [...good]) {
      await call("POST", at("subjects", person, "images"), { body: form([file]) });
      good.splice(good.indexOf(file), 1); // not sent again if a later one is refused
    }
    await list();
    say(`${person} is enrolled.`);
  });
}

/** Look at a picture before it is enrolled and say what is wrong with it. */
async function check(file, good) {
  const canvas = el("canvas", { width: 144, height: 144, "aria-hidden": "true" });
  const words = el("span", {}, "Looking …");
  const row = el("li", {}, canvas, el("div", {}, el("div", {}, file.name), words), button("Leave out", () => {
    row.remove();
    if (good.includes(file)) good.splice(good.indexOf(file), 1);
    $("person-save").disabled = !good.length;
  }, { className: "quiet", "aria-label": `Leave out ${file.name}` }));
  $("person-checks").append(row);
  const judge = (text, usable, fine) => {
    words.textContent = text;
    words.className = fine ? "good" : "poor";
    if (usable && row.isConnected) good.push(file);
    $("person-save").disabled = !good.length;
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

// ---------------------------------------------------------------------------------------- details

async function details(name) {
  const person = await call("GET", at("subjects", name));
  $("details-title").textContent = name;
  $("details-error").textContent = "";
  $("details-templates").replaceChildren(...person.templates.map((template) => el("li", {},
    el("span", { className: "name" }, template.source.replace(/ sha256:[0-9a-f]+$/, "")),
    el("span", { className: "muted" }, `quality ${percent(template.quality)}, ${when(template.created)}`),
    may("write") && person.templates.length > 1 ? button("Erase", () => eraseTemplate(name, template), { className: "quiet", "aria-label": `Erase ${template.source}` }) : null)));
  $("details-change").hidden = $("details-rename").hidden = !may("write");
  $("details-name").value = name;
  suggestNames();
  if (!$("details").open) $("details").showModal();
}

async function eraseTemplate(name, template) {
  try {
    await call("DELETE", `${at("subjects", name)}/templates/${template.id}`);
    await Promise.all([details(name), list()]);
  } catch (error) {
    fail(error, $("details-error"));
  }
}

/** Give another name; one that somebody has makes the two one, after a question. */
async function rename(event) {
  event.preventDefault();
  const name = $("details-title").textContent, wanted = $("details-name").value.trim();
  if (wanted === name) return $("details").close();
  try {
    await call("POST", `${at("subjects", name)}/rename`, { json: { subject: wanted } });
    $("details").close();
    await list();
    say(`${name} is ${wanted} now.`);
  } catch (error) {
    if (error.status !== 409 || error.type !== "Conflict") return fail(error, $("details-error"));
    $("details").close();
    merge(name, wanted);
  }
}

function merge(name, into) {
  $("merge-words").textContent = `Somebody is enrolled as ${into} already. If that is the same person as ${name}, all pictures become those of ${into}. This cannot be undone.`;
  open($("merge"), async () => {
    const reply = await call("POST", `${at("subjects", name)}/merge`, { json: { subject: into } });
    await list();
    say(`${name} is part of ${into}, who has ${plural(reply.templates.length, "picture")} now.`);
  });
}

// ------------------------------------------------------------------------------------------ erase

function erase(name, templates) {
  $("remove-words").textContent = `${name} and ${plural(templates, "template")} will be erased from every file of the gallery “${state.gallery}”. This cannot be undone.`;
  open($("remove"), async () => {
    const gone = await call("DELETE", at("subjects", name));
    $("receipt").replaceChildren(receipt(gone));
    await list();
  });
}

/** What proves the erasure; a signed receipt can be kept as a file. */
function receipt(gone) {
  const words = `Erased: ${gone.subject}, ${plural(gone.templates, "template")}, at ${gone.erased}.`;
  const file = gone.receipt && new Blob([JSON.stringify(gone.receipt, null, 1)], { type: "application/json" });
  return el("div", { className: "receipt", role: "status" }, el("p", {}, words),
    file ? el("p", {}, el("a", { href: URL.createObjectURL(file), download: "receipt.json" }, "Save the signed receipt"),
      ": it proves the erasure without the name.") : null);
}

$("add").addEventListener("click", () => add());
$("more").addEventListener("click", () => list(following).catch(fail));
$("rename").addEventListener("submit", rename);
let typing;
$("search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => list().catch(fail), 200); });

export const view = {
  show() {
    $("receipt").replaceChildren();
    $("add").hidden = !may("write");
    return list();
  },
};
