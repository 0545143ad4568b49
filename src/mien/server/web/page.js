// What every section builds with: elements, the status line, dialogs, tables.

import { key, Problem } from "./api.js";

export const $ = (id) => document.getElementById(id);

/** An element with properties or attributes, and its children; null children are left out. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export const button = (words, onclick, properties = {}) => el("button", { type: "button", onclick, ...properties }, words);

export function say(words, bad = false) {
  $("status").textContent = words;
  $("status").className = bad ? "bad" : "";
}

const asking = { key: () => {} };

/** Who asks for a key when the server wants one. */
export const whenKeyIsMissing = (ask) => { asking.key = ask; };

/** Show an error where it belongs; a missing key is asked for. */
export function fail(error, place = null) {
  if (!(error instanceof Problem)) throw error;
  if (error.status === 401) return asking.key(key.get() ? error.message : "");
  const words = error.message.charAt(0).toUpperCase() + error.message.slice(1);
  if (place) place.textContent = words;
  else say(words, true);
}

/** Open a dialog; `save` runs when its form is sent, and closes it unless it fails. */
export function open(dialog, save) {
  const error = dialog.querySelector(".error");
  const send = dialog.querySelector("[type=submit]");
  error.textContent = "";
  dialog.querySelector("form").onsubmit = async (event) => {
    event.preventDefault();
    if (send.disabled) return;
    send.disabled = true;
    error.textContent = "";
    try {
      await save();
      dialog.close();
    } catch (problem) {
      if (problem.status === 401) dialog.close();
      fail(problem, error);
    } finally {
      send.disabled = false;
    }
  };
  dialog.showModal();
}

/** Terms and what they are here. */
export const facts = (pairs) => el("dl", {}, ...pairs.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));

/** A table that scrolls by itself; `head` has [words, whether numbers]. */
export function table(name, head, rows) {
  const cell = (content, i) => el("td", { className: head[i][1] ? "number" : "" }, content);
  return el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": name },
    el("table", {},
      el("thead", {}, el("tr", {}, ...head.map(([words, number]) => el("th", { scope: "col", className: number ? "number" : "" }, words)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map(cell))))));
}

/** A list of choices replaces that of a <select>; the one in use stays if it is still there. */
export function choices(select, names, chosen = select.value) {
  select.replaceChildren(...names.map((name) => el("option", { value: name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}
