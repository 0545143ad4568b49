// Review: faces close to the threshold, to be confirmed or rejected. A server that keeps such faces
// (it does not unless told to) gives its list; otherwise those that this tab recognised wait in it.

import { at, call, enrolFace, fetchBlob, form, may, pointOf } from "./api.js";
import { $, button, el, fail, say } from "./page.js";
import { bitmap, crop } from "./pictures.js";
import { meaning, qualityWords } from "./words.js";

const NEAR = 30; // how many times rarer or more frequent than asked for still is borderline
const MOST = 50;

let mine = []; // what this tab has recognised

/** Keep a face for review if its best candidate is neither clearly the person nor clearly not. */
export function consider(file, picture, face, fpir) {
  const best = face.candidates[0];
  const rate = face.fpir_at_score;
  if (!best || !picture || rate < fpir / NEAR || rate > Math.min(0.5, fpir * NEAR)) return;
  if (mine.some((one) => one.image === file.name && one.subject === best.subject && one.score === face.score)) return;
  const size = { width: picture.width, height: picture.height };
  const point = pointOf(face, size);
  const one = {
    ...face, image: file.name, subject: best.subject, named: face.subject !== null,
    draw: (canvas) => crop(canvas, picture, face),
    confirm: () => enrolFace(best.subject, file, face, size),
    reject: () => call("POST", `${at("subjects", best.subject, "negatives")}?at=${point}`, { body: form([file]) }),
    dismiss: async () => {},
  };
  mine = [one, ...mine].slice(0, MOST);
  count();
}

export function forget() {
  mine = [];
  count();
}

function count(number = mine.length) {
  document.querySelector('nav a[href="#review"]').textContent = number ? `Review (${number})` : "Review";
}

async function show() {
  const { kept, reviews } = await call("GET", at("reviews"));
  const cases = kept ? reviews.map(ofServer) : mine;
  count(cases.length);
  $("review-where").textContent = kept
    ? "Faces close to the threshold, of everybody who asks this server."
    : "Faces close to the threshold, of what this tab has recognised.";
  $("review-none").hidden = cases.length > 0;
  $("review-list").replaceChildren(...cases.map(item));
}

function ofServer(review) {
  const act = (method, ...more) => () => call(method, at("reviews", review.review, ...more));
  return {
    ...review,
    draw: async (canvas) => {
      const picture = review.crop && await bitmap(await fetchBlob(at("reviews", review.review, "crop")));
      if (picture) canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    },
    confirm: act("POST", "confirm"), reject: act("POST", "reject"), dismiss: act("DELETE"),
  };
}

function item(one) {
  const canvas = el("canvas", { width: 192, height: 192, role: "img", className: "thumb large" });
  canvas.setAttribute("aria-label", `A face in ${one.image}`);
  Promise.resolve(one.draw(canvas)).catch(fail);
  const error = el("p", { className: "error", role: "alert" });
  const decide = (act, words) => async () => {
    try {
      await act();
      mine = mine.filter((other) => other !== one);
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
        button("Yes", decide(one.confirm, `${one.subject} has another picture now.`), { className: "primary", disabled: !usable, "aria-label": `Yes, this is ${one.subject}` }),
        button("No, somebody else", decide(one.reject, `Faces like this one are no longer taken for ${one.subject}.`), { disabled: !usable, "aria-label": `No, this is not ${one.subject}` }),
        button("Skip", decide(one.dismiss, ""), { className: "quiet", "aria-label": `Leave out this face in ${one.image}` }))));
}

export const view = { possible: () => may("write"), show };
