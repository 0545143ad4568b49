// Pictures as the browser has them: dropped, decoded, drawn upon, cropped.

import { el } from "./page.js";

/** A picture that can be drawn, turned upright by its EXIF as the server does it; null for a
 * format that the server may read and this browser does not, such as HEIC. */
export async function bitmap(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    return null;
  }
}

/** Let files be dropped on an element. */
export function accepts(element, take) {
  const stop = (event) => { event.preventDefault(); element.classList.toggle("over", event.type === "dragover"); };
  element.addEventListener("dragover", stop);
  element.addEventListener("dragleave", stop);
  element.addEventListener("drop", (event) => { stop(event); take([...event.dataTransfer.files]); });
}

/** Let an <input type=file> be used, for the same files again too. */
export function chosen(input, take) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = "";
    if (files.length) take(files);
  });
}

/** A canvas with the picture and a numbered box around each face. */
export function draw(canvas, picture, faces, current = -1) {
  const scale = Math.min(1, 1600 / Math.max(picture.width, picture.height));
  canvas.width = Math.round(picture.width * scale);
  canvas.height = Math.round(picture.height * scale);
  const pen = canvas.getContext("2d");
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const unit = Math.max(canvas.width, canvas.height) / 100;
  faces.forEach((face, i) => {
    const [left, top, right, bottom] = face.box.map((side) => (side + 0.5) * scale);
    const colour = face.subject ? "#2dd4bf" : "#fbbf24";
    const size = Math.max(11, Math.min(2.6 * unit, (right - left) / 3));
    pen.lineWidth = (i === current ? 0.8 : 0.45) * unit;
    pen.strokeStyle = colour;
    pen.strokeRect(left, top, right - left, bottom - top);
    const text = `${i + 1} ${face.subject ?? "unknown"}`;
    pen.font = `600 ${size}px system-ui, sans-serif`;
    const width = pen.measureText(text).width + size * 0.7;
    const x = Math.max(0, Math.min(left - pen.lineWidth / 2, canvas.width - width));
    const y = top > size * 1.5 ? top - size * 1.4 : bottom;
    pen.fillStyle = colour;
    pen.fillRect(x, y, width, size * 1.4);
    pen.fillStyle = "#10201d";
    pen.textBaseline = "middle";
    pen.fillText(text, x + size * 0.35, y + size * 0.72);
  });
}

/** Draw the face alone on a square canvas, with some room around. */
export function crop(canvas, picture, face) {
  const [left, top, right, bottom] = face.box;
  const side = 1.5 * Math.max(right - left, bottom - top);
  const x = (left + right - side) / 2, y = (top + bottom - side) / 2;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, x, y, side, side, 0, 0, canvas.width, canvas.height);
}

/** A small picture of a face; decoration, unless it is given a name. */
export function thumbnail(picture, face, side = 144, name = "") {
  const canvas = el("canvas", { width: side, height: side, className: "thumb" });
  if (name) { canvas.setAttribute("role", "img"); canvas.setAttribute("aria-label", name); }
  else canvas.setAttribute("aria-hidden", "true");
  if (picture) crop(canvas, picture, face);
  return canvas;
}
