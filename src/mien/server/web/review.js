// Review: faces close to the threshold, to be confirmed or rejected. They wait in this tab only: the
// server keeps no pictures.

import { at, call, enrolFace, form, may, pointOf } from "./api.js";
import { $, button, el, fail, say } from "./page.js";
import { crop } from "./pictures.js";
import { qualityWords, scoreWords } from "./words.js";

const NEAR = 30; // how many times rarer or more frequent than asked for still is borderline
const MOST = 50;

let cases = [];

/** Keep a face for review if its best candidate is neither clearly the person nor clearly not. */
export function consider(file, picture, face, fpir) {
  const best = face.candidates[0];
  const rate = face.fpir_at_score;
  if (!best || !picture || rate < fpir / NEAR || rate > Math.min(0.5, fpir * NEAR)) return;
  if (cases.some((one) => one.file.name === file.name && one.best === best.subject && one.face.score === face.score)) return;
  cases = [{ file, face, best: best.subject, picture, size: { width: picture.width, height: picture.height } }, ...cases].slice(0, MOST);
  count();
}

export function forget() {
  cases = [];
  count();
}

function count() {
  document.querySelector('nav a[href="#review"]').textContent = cases.length ? `Review (${cases.length})` : "Review";
}

function show() {
  $("review-none").hidden = cases.length > 0;
  $("review-list").replaceChildren(...cases.map(item));
}

function item(one) {
  const canvas = el("canvas", { width: 192, height: 192, role: "img", className: "thumb large" });
  canvas.setAttribute("aria-label", `A face in ${one.file.name}`);
  crop(canvas, one.picture, one.face);
  const error = el("p", { className: "error", role: "alert" });
  const decide = (act, words) => async () => {
    try {
      await act();
      cases = cases.filter((other) => other !== one);
      count();
      show();
      say(words);
    } catch (problem) { fail(problem, error); }
  };
  const { usable, words } = qualityWords(one.face);
  const confirm = () => enrolFace(one.best, one.file, one.face, one.size);
  const reject = () => call("POST", `${at("subjects", one.best, "negatives")}?at=${pointOf(one.face, one.size)}`, { body: form([one.file]) });
  return el("li", { className: "card" }, canvas,
    el("div", { className: "grow" }, el("h2", {}, `Is this ${one.best}?`),
      el("p", {}, one.face.subject ? `It was named ${one.best}, not by much.` : "It was called unknown, not by much."),
      el("p", { className: "muted" }, scoreWords(one.face)),
      usable ? null : el("p", { className: "poor" }, words), error,
      el("div", { className: "row" },
        button("Yes", decide(confirm, `${one.best} has another picture now.`), { className: "primary", disabled: !usable, "aria-label": `Yes, this is ${one.best}` }),
        button("No, somebody else", decide(reject, `Faces like this one are no longer taken for ${one.best}.`), { disabled: !usable, "aria-label": `No, this is not ${one.best}` }),
        button("Skip", decide(async () => {}, ""), { className: "quiet", "aria-label": `Leave out this face of ${one.file.name}` }))));
}

export const view = { possible: () => may("write"), show };
