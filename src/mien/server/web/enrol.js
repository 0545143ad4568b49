// The dialog that enrols one face of a picture; several sections open it.

import { at, call, enrolFace, may } from "./api.js";
import { $, el, open, say } from "./page.js";
import { crop } from "./pictures.js";
import { plural, qualityWords } from "./words.js";

/** Ask for a name and enrol a face; `done` is called with the name when it is. */
export function enrol(file, picture, face, done) {
  if (!may("write")) return;
  const { words, good, usable } = qualityWords(face);
  crop($("enrol-crop"), picture, face);
  $("enrol-quality").textContent = words;
  $("enrol-quality").className = good ? "good" : "poor";
  $("enrol-name").value = face.subject ?? "";
  $("enrol-save").disabled = !usable;
  suggestNames();
  open($("enrol"), async () => {
    const name = $("enrol-name").value.trim();
    const reply = await enrolFace(name, file, face, picture);
    say(reply.images[0].status === "present"
      ? `${name} is enrolled with this picture already.`
      : `${name} is enrolled with ${plural(reply.templates.length, "picture")}.`);
    await done(name);
  });
}

/** Names that are enrolled, for fields with list="known". */
export async function suggestNames() {
  const page = await call("GET", `${at("subjects")}?limit=1000`);
  $("known").replaceChildren(...page.subjects.map((row) => el("option", { value: row.subject })));
}
