/** The signs of cells as pictures: each is drawn once, in the colours of the page, and copied from then on.
 *
 *  As shapes of the document a thousand of them took half of the time of a frame.
 */
import { signal } from "@preact/signals";
import { SHAPES } from "../ui/parts";

export const CELL = 26;
const EDGE = 5; // around a sign, which is drawn on 16 × 16
const MOST_SPARE = 60;
const FOOT = "M6 23.5H20"; // under what stands for several

/** Grows when colours or pixels are others: then what was drawn is drawn anew. */
export const drawings = signal(0);

const sprites = new Map<string, Uint32Array>();
const spare: HTMLCanvasElement[] = []; // of rows that are gone: to make one takes a hundred times as long as to fill it
let ratio = devicePixelRatio;

function forget(): void {
  ratio = devicePixelRatio;
  sprites.clear();
  drawings.value++;
}

for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) {
  matchMedia(query).addEventListener("change", forget);
}
new MutationObserver(forget).observe(document.documentElement, { attributeFilter: ["data-theme"] });
addEventListener("resize", () => {
  if (devicePixelRatio !== ratio) forget();
});

/** Draw the signs of a row of cells, the first of which is at the left; several: each stands for several tasks. */
export function drawSigns(place: HTMLElement, states: readonly (string | undefined)[], several: boolean): void {
  const size = Math.round(CELL * ratio);
  const width = states.length * size;
  const canvas = (place.firstElementChild as HTMLCanvasElement | null) ?? spare.pop() ?? document.createElement("canvas");
  if (!width) return;
  if (canvas.width !== width || canvas.height !== size) {
    canvas.width = width;
    canvas.height = size;
    canvas.style.width = `${states.length * CELL}px`;
    canvas.style.height = `${CELL}px`;
  }
  const image = new ImageData(width, size);
  const pixels = new Uint32Array(image.data.buffer);
  states.forEach((state, column) => {
    if (state === undefined) return;
    const sprite = spriteOf(state, several, size);
    for (let y = 0; y < size; y++) pixels.set(sprite.subarray(y * size, (y + 1) * size), y * width + column * size);
  });
  contextOf(canvas).putImageData(image, 0, 0);
  if (!canvas.parentElement) place.append(canvas);
}

/** Take back what a row that goes was drawn on. */
export function releaseSigns(place: HTMLElement): void {
  const canvas = place.firstElementChild as HTMLCanvasElement | null;
  if (!canvas) return;
  canvas.remove();
  if (spare.length < MOST_SPARE) spare.push(canvas);
}

function contextOf(canvas: HTMLCanvasElement): CanvasRenderingContext2D {
  // Small pictures are copied sooner than they are brought to a graphics card.
  return canvas.getContext("2d", { willReadFrequently: true }) as CanvasRenderingContext2D;
}

function spriteOf(state: string, several: boolean, size: number): Uint32Array {
  const key = `${state} ${several}`;
  let found = sprites.get(key);
  if (!found) sprites.set(key, (found = drawn(state, several, size)));
  return found;
}

function drawn(state: string, several: boolean, size: number): Uint32Array {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = contextOf(canvas);
  const { ring, mark, opacity } = looksOf(state);
  context.scale(size / CELL, size / CELL);
  context.globalAlpha = opacity;
  context.lineCap = context.lineJoin = "round";
  const disc = new Path2D();
  disc.arc(CELL / 2, CELL / 2, 7, 0, 2 * Math.PI);
  if (ring.fill !== "none") {
    context.fillStyle = ring.fill;
    context.fill(disc);
  }
  context.strokeStyle = ring.stroke;
  context.lineWidth = 1.2;
  if (several) context.stroke(new Path2D(FOOT));
  context.setLineDash(ring.dashes);
  context.stroke(disc);
  context.setLineDash([]);
  context.strokeStyle = mark;
  context.lineWidth = 2;
  context.translate(EDGE, EDGE);
  context.stroke(new Path2D(SHAPES[state] ?? "M8 8h.01"));
  return new Uint32Array(context.getImageData(0, 0, size, size).data.buffer);
}

/** Return the colours of a state, which the style sheet has. */
function looksOf(state: string) {
  const within = (parent: Element, name: string) => parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  const probe = within(document.body, "svg");
  probe.setAttribute("class", "signs");
  const group = within(probe, "g");
  group.setAttribute("class", `s-${state}`);
  const ring = within(group, "path");
  ring.setAttribute("class", "rings");
  const mark = within(group, "path");
  const { fill, stroke, strokeDasharray } = getComputedStyle(ring);
  const dashes = strokeDasharray === "none" ? [] : strokeDasharray.split(/[ ,]+/).map(Number.parseFloat);
  const found = { ring: { fill, stroke, dashes }, mark: getComputedStyle(mark).stroke, opacity: Number(getComputedStyle(group).opacity) };
  probe.remove();
  return found;
}
