// The camera: asked for, shown, released; one picture of it.

import { $, el, open } from "./page.js";

const WHY = {
  NotFoundError: "No camera was found.",
  NotAllowedError: "The camera was not allowed.",
  NotReadableError: "The camera is in use by another program.",
  SecurityError: "Browsers give the camera only to https addresses and to localhost.",
};

/** A stream of the camera. Raises an Error that says in words why there is none. */
export async function camera(width) {
  try {
    if (!navigator.mediaDevices) throw new DOMException("", "SecurityError");
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: width } } });
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    throw new CameraError(WHY[error.name] ?? `The camera cannot be used (${error.name}).`);
  }
}

export class CameraError extends Error {}

export const release = (stream) => stream?.getTracks().forEach((track) => track.stop());

/** What a video shows now, as a JPEG file; `widest` reduces it. */
export async function snapshot(video, name, widest = Infinity, quality = 0.92) {
  const scale = Math.min(1, widest / video.videoWidth);
  const canvas = el("canvas", { width: Math.round(video.videoWidth * scale), height: Math.round(video.videoHeight * scale) });
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", quality));
  return new File([blob], name, { type: "image/jpeg" });
}

/** Show the camera in a dialog and hand over the picture taken. */
export async function takePicture(take) {
  const video = $("video");
  let stream = null;
  $("shoot-take").disabled = true;
  $("shoot").addEventListener("close", () => { release(stream); video.srcObject = null; }, { once: true });
  open($("shoot"), async () => take(await snapshot(video, "camera.jpg")));
  try {
    stream = await camera(1280);
    if (!$("shoot").open) return release(stream);
    video.srcObject = stream;
    await video.play();
    $("shoot-take").disabled = false;
  } catch (error) {
    if (!$("shoot").open) return; // closed meanwhile, which interrupts what was starting
    if (!(error instanceof CameraError)) throw error;
    $("shoot-error").textContent = error.message;
  }
}
