// Start here: the sections, the gallery in use, the key. The page is a client of the REST interface
// like any other; no framework, nothing from elsewhere.

import { begun, call, key, may, Problem, state } from "./api.js";
import * as compare from "./compare.js";
import * as groups from "./groups.js";
import * as live from "./live.js";
import * as match from "./match.js";
import * as models from "./models.js";
import { $, choices, fail, open, say, whenKeyIsMissing } from "./page.js";
import * as people from "./people.js";
import * as recognise from "./recognise.js";
import * as review from "./review.js";

/** A section may `show` itself, `hide`, and say whether it is `possible` on this server. */
const sections = {
  recognise: recognise.view, people: people.view, live: live.view, compare: compare.view,
  match: match.view, groups: groups.view, review: review.view, models: models.view,
};

let current = null;

async function go() {
  const wanted = location.hash.slice(1);
  if (wanted === "main") return;
  const name = wanted in sections && !linkTo(wanted).hidden ? wanted : "recognise";
  if (current !== name) sections[current]?.hide?.();
  current = name;
  for (const other of Object.keys(sections)) {
    $(`view-${other}`).hidden = other !== name;
    if (other === name) linkTo(other).setAttribute("aria-current", "page");
    else linkTo(other).removeAttribute("aria-current");
  }
  document.title = `mien: ${$(`h-${name}`).textContent}`;
  say("");
  if (!state.me) return;
  try { await sections[name].show?.(); } catch (error) { fail(error); }
}

const linkTo = (name) => document.querySelector(`nav a[href="#${name}"]`);

async function start() {
  try {
    state.me = await call("GET", "/v1/me");
    const { loaded, heads, min_quality: poorest } = await call("GET", "/v1/models");
    Object.assign(state, { loaded, heads, poorest });
    await listGalleries();
  } catch (error) {
    return fail(error);
  }
  $("key").hidden = !state.me.keys;
  $("new-gallery").hidden = !may("admin");
  for (const [name, section] of Object.entries(sections)) linkTo(name).hidden = section.possible ? !section.possible() : false;
  await review.count().catch(fail);
  await go();
  begun();
}

// ---------------------------------------------------------------------------------- gallery, key

const GALLERY = "mien-gallery";

async function listGalleries(chosen = sessionStorage.getItem(GALLERY)) {
  let { galleries } = await call("GET", "/v1/galleries");
  if (!galleries.length && may("admin")) {
    await call("PUT", "/v1/galleries/people");
    galleries = ["people"];
  }
  choices($("gallery"), galleries, chosen);
  state.gallery = $("gallery").value || null;
}

async function use(gallery) {
  sections[current]?.hide?.();
  state.gallery = gallery;
  sessionStorage.setItem(GALLERY, gallery);
  recognise.clear();
  await review.count();
  await go();
}

function askKey(words) {
  if ($("ask-key").open) return;
  $("key-text").value = "";
  open($("ask-key"), async () => {
    key.set($("key-text").value.trim());
    try {
      await call("GET", "/v1/me");
    } catch (error) {
      key.drop();
      throw error.status === 401 ? new Problem({ detail: error.message }, 403) : error;
    }
    await start();
  });
  $("key-error").textContent = words;
}

whenKeyIsMissing(askKey);
$("gallery").addEventListener("change", () => use($("gallery").value));
$("new-gallery").addEventListener("click", () => open($("make-gallery"), async () => {
  const name = $("make-name").value.trim();
  await call("PUT", `/v1/galleries/${encodeURIComponent(name)}`);
  await listGalleries(name);
  await use(name);
}));
$("key").addEventListener("click", () => askKey(""));
for (const one of document.querySelectorAll("[data-close]")) one.addEventListener("click", () => one.closest("dialog").close());
addEventListener("hashchange", go);
go();
start();
