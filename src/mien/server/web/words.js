// Numbers in words: what a score is worth, how good a face is.

import { state } from "./api.js";

export function oneIn(rate) {
  if (rate >= 0.5) return null;
  const times = 1 / rate;
  const digits = 10 ** Math.max(0, Math.floor(Math.log10(times)) - 1); // two figures are known
  return `1 in ${(Math.round(times / digits) * digits).toLocaleString("en")}`;
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}%`;
export const plural = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
export const when = (time) => new Date(time).toLocaleDateString(undefined, { dateStyle: "medium" });
const rarest = (fmr) => fmr <= Math.min(...state.loaded.operating_points.map((p) => p.fmr)) * 1.000001;

/** What a score is worth: how many of `whom` score this high. */
export function meaning(fmr, rate, where = "", whom = "strangers") {
  const words = oneIn(rate);
  const place = where ? ` ${where}` : "";
  if (words === null) return `Most ${whom} would score this high${place}.`;
  return `${rarest(fmr) ? "Fewer than" : "About"} ${words} ${whom} would score this high${place}.`;
}

/** The score of a face against a gallery, in words. */
export function scoreWords(face, size) {
  if (!face.candidates.length) return "Nobody is enrolled in this gallery yet.";
  const where = size === undefined ? "in this gallery" : `in a gallery of ${plural(size, "template")}`;
  return `Score ${face.score.toFixed(3)}, ${face.threshold.toFixed(3)} is needed. ${meaning(face.fmr_at_score, face.fpir_at_score, where)}`;
}

export function qualityWords(face) {
  const reasons = face.reasons ?? [];
  const why = reasons.length ? `: ${reasons.join(", ")}` : "";
  if (face.quality < state.poorest) return { words: `Too poor to enrol (${percent(face.quality)})${why}`, good: false, usable: false };
  if (reasons.length) return { words: `Usable (${percent(face.quality)})${why}`, good: false, usable: true };
  return { words: `Good quality (${percent(face.quality)})`, good: true, usable: true };
}
