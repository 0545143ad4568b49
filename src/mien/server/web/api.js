// The REST interface, as this page speaks to it, and what was learnt of the server.

const KEY = "mien-key";

/** Who we are, what is loaded, the quality below which faces are not enrolled, the gallery in use. */
export const state = { me: null, loaded: null, poorest: 0, gallery: null };

/** Kept when all of that is known, which `begun` says. */
let begin;
export const ready = new Promise((resolve) => { begin = resolve; });
export const begun = () => begin();

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (text) => sessionStorage.setItem(KEY, text),
  drop: () => sessionStorage.removeItem(KEY),
};

const ROLES = ["read", "write", "admin"];
export const may = (role) => state.me !== null && ROLES.indexOf(state.me.role) >= ROLES.indexOf(role);

export class Problem extends Error {
  constructor(body, status) {
    super(body.detail ?? `the server answered ${status}`);
    this.status = status;
    this.type = (body.type ?? "").split("/").pop();
    this.body = body;
  }
}

async function ask(method, path, body, headers) {
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  let reply;
  try {
    reply = await fetch(path, { method, body, headers });
  } catch {
    throw new Problem({ detail: "the server cannot be reached" }, 0);
  }
  if (reply.ok) return reply;
  throw new Problem(isJson(reply) ? await reply.json() : {}, reply.status);
}

const isJson = (reply) => (reply.headers.get("content-type") ?? "").includes("json");

/** Ask the server; null for an answer without content. Raises a `Problem` for what is none. */
export async function call(method, path, { body, json } = {}) {
  const reply = json === undefined ? await ask(method, path, body, {})
    : await ask(method, path, JSON.stringify(json), { "Content-Type": "application/json" });
  return isJson(reply) && reply.status !== 204 ? reply.json() : null;
}

/** A picture that the server keeps. */
export const fetchBlob = async (path) => (await ask("GET", path, undefined, {})).blob();

/** Pictures as the parts of a form. */
export function form(files) {
  const data = new FormData();
  for (const file of files) data.append("image", file, file.name || "picture");
  return data;
}

/** An address in the gallery in use: `at("subjects", name, "images")`. */
export const at = (...parts) =>
  `/v1/galleries/${[state.gallery, ...parts].map((part, i) => (i % 2 === 1 ? part : encodeURIComponent(part))).join("/")}`;

/** The middle of a face as the `at` of an enrolment, inside the picture. */
export function pointOf(face, picture) {
  const [left, top, right, bottom] = face.box;
  const clamp = (value, most) => Math.min(Math.max(value, 0), most - 1).toFixed(1);
  return `${clamp((left + right) / 2, picture.width)},${clamp((top + bottom) / 2, picture.height)}`;
}

/** Add one face of a picture to a person; returns the person as enrolled now. */
export const enrolFace = (name, file, face, picture) =>
  call("POST", `${at("subjects", name, "images")}?at=${pointOf(face, picture)}`, { body: form([file]) });
