// Models and health: what is loaded, its licence, and what was measured of it.

import { call, state } from "./api.js";
import { $, el, facts, table } from "./page.js";
import { oneIn, percent } from "./words.js";

const USE = { yes: "allowed", no: "not allowed", unclear: "unclear" };

async function show() {
  const [{ version, loaded, heads = [], models }, ready, sizes] = await Promise.all([
    call("GET", "/v1/models"),
    call("GET", "/readyz").then(() => "ready", (error) => error.message),
    state.gallery ? call("GET", `/v1/galleries/${encodeURIComponent(state.gallery)}`) : null,
  ]);
  const parts = [loaded.detector, loaded.embedder].map((id) => models.find((model) => model.id === id)).filter(Boolean);
  $("models").replaceChildren(
    el("div", { className: "card" }, el("h2", {}, "This server"), facts([
      ["State", ready], ["mien", version], ["Recogniser", `${loaded.id}: ${loaded.title}`],
      ...parts.map((part) => [part.task === "detection" ? "Detector" : "Embedder", `${part.id}: ${part.licence}, commercial use ${USE[part.commercial]}`]),
      ...(sizes ? [["Gallery", `${sizes.gallery}: ${sizes.subjects.toLocaleString("en")} people, ${sizes.templates.toLocaleString("en")} templates, ${(sizes.bytes / 1e6).toFixed(1)} MB`]] : []),
      ["Contract", loaded.contract],
      ...Object.entries(loaded.figures)])),
    el("div", { className: "card narrow" }, el("h2", {}, "What its scores are worth"),
      el("p", { className: "muted" }, loaded.protocol ? `Measured on ${loaded.protocol}.` : "Nothing was measured of this recogniser."),
      table("Operating points", [["Different people that match"], ["Score needed", true], ["Same person missed", true]],
        loaded.operating_points.map((p) => [oneIn(p.fmr) ?? "most", p.threshold.toFixed(4), percent(p.fnmr, 2)]))),
    ...(heads.length ? [el("div", { className: "card" }, el("h2", {}, "Heads"),
      table("Heads", [["Head"], ["Kind"], ["People", true], ["Pictures", true], ["Right, of pictures held back", true]],
        heads.map((h) => [h.head, h.kind, h.labels.length.toLocaleString("en"), h.pictures.toLocaleString("en"), percent(h.accuracy, 1)])))] : []),
    el("details", { className: "card" }, el("summary", {}, `All ${models.length} networks that are known`),
      table("Networks", [["Network"], ["Task"], ["Licence"], ["Commercial use"], ["Size", true], ["Here"]],
        models.map((m) => [m.id, m.task, m.licence, USE[m.commercial], size(m.bytes), m.present ? "yes" : "no"]))));
}

const size = (bytes) => (bytes ? `${(bytes / 1e6).toFixed(1)}\u00a0MB` : "");

export const view = { show };
