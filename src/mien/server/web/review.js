// Review: faces close to the threshold, to be confirmed or rejected. They wait on the server, in its
// memory: those of pictures that this page, or another client, asked about with `review`.

import { at, call, fetchBlob, may, state } from "./api.js";
import { $, button, el, fail, say } from "./page.js";
import { bitmap } from "./pictures.js";
import { meaning, qualityWords } from "./words.js";

/** Show how many wait beside the name of the section. */
export async function count() {
  if (!may("write") || !state.gallery) return [];
  const { kept, reviews } = await call("GET", at("reviews"));
  document.querySelector('nav a[href="#review"]').textContent = reviews.length ? `Review (${reviews.length})` : "Review";
  $("review-none").textContent = kept ? "Nothing waits to be reviewed." : "This server keeps no close calls: it was started with --reviews 0.";
  return reviews;
}

async function show() {
  const reviews = await count();
  $("review-none").hidden = reviews.length > 0;
  $("review-list").replaceChildren(...reviews.map(item));
}

async function draw(canvas, review) {
  const picture = await bitmap(await fetchBlob(at("reviews", review.review, "crop")));
  if (picture) canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
}

function item(one) {
  const canvas = el("canvas", { width: 192, height: 192, role: "img", className: "thumb large" });
  canvas.setAttribute("aria-label", `A face in ${one.image}`);
  draw(canvas, one).catch(fail);
  const error = el("p", { className: "error", role: "alert" });
  const decide = (method, path, words) => async () => {
    try {
      await call(method, at("reviews", one.review, ...path));
      await show();
      say(words);
    } catch (problem) { fail(problem, error); }
  };
  const { usable, words } = qualityWords(one);
  const how = one.named ? `It was named ${one.subject}, not by much.` : "It was called unknown, not by much.";
  return el("li", { className: "card" }, canvas,
    el("div", { className: "grow" }, el("h2", {}, `Is this ${one.subject}?`),
      el("p", {}, how), el("p", { className: "muted" }, `${one.image}: score ${one.score.toFixed(3)}. ${meaning(one.fpir_at_score, one.fpir_at_score, "in this gallery")}`),
      usable ? null : el("p", { className: "poor" }, words), error,
      el("div", { className: "row" },
        button("Yes", decide("POST", ["confirm"], `${one.subject} has another picture now.`), { className: "primary", disabled: !usable, "aria-label": `Yes, this is ${one.subject}` }),
        button("No, somebody else", decide("POST", ["reject"], `Faces like this one are no longer taken for ${one.subject}.`), { disabled: !usable, "aria-label": `No, this is not ${one.subject}` }),
        button("Skip", decide("DELETE", [], ""), { className: "quiet", "aria-label": `Leave out this face in ${one.image}` }))));
}

export const view = { possible: () => may("write"), show };
