// Compare: do two pictures show the same person?

import { call, form } from "./api.js";
import { $, el, fail, say } from "./page.js";
import { accepts, bitmap, chosen, draw } from "./pictures.js";
import { meaning, oneIn, percent } from "./words.js";

const slots = [null, null];

async function fill(number, files) {
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
    const worth = meaning(answer.fmr_at_score, answer.fmr_at_score, "", "pairs of different people");
    $("verdict").replaceChildren(el("div", { className: answer.match ? "verdict match" : "verdict" },
      el("h2", {}, answer.match ? "The same person" : "Not shown to be the same person"),
      el("p", {}, `Score ${answer.score.toFixed(3)}, ${answer.threshold.toFixed(3)} is needed. ${worth}`),
      el("p", { className: "muted" }, `At this threshold ${oneIn(answer.fmr) ?? "most"} pairs of different people match, and ${percent(answer.fnmr, 1)} of the same people do not. Measured on: ${answer.protocol}.`)));
  } catch (error) { fail(error); }
}

[$("slot-a"), $("slot-b")].forEach((slot, number) => {
  accepts(slot, (files) => files.length && fill(number, files));
  chosen(slot.querySelector("input"), (files) => fill(number, files));
});
$("fmr").addEventListener("change", compare);

export const view = {};
