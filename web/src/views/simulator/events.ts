/** Events of a simulation as text: `TIME URI [PARTITION] [JSON]`, as `--event` takes them. */

export interface Invented {
  time: string;
  dataset: string;
  partition?: string;
  extra?: Record<string, unknown>;
}

/** Return what a text says; undefined if it is not an event. */
export function readEvent(text: string): Invented | undefined {
  const found = /^(\S+)\s+(\S+)\s*([^{]*?)\s*(\{.*\})?\s*$/s.exec(text.trim());
  if (!found || Number.isNaN(Date.parse(found[1]!))) return undefined;
  const event: Invented = { time: found[1]!, dataset: found[2]! };
  if (found[3]) event.partition = found[3];
  if (found[4]) {
    try {
      event.extra = JSON.parse(found[4]) as Record<string, unknown>;
    } catch {
      return undefined;
    }
  }
  return event;
}

export function writeEvent(event: Invented): string {
  const extra = event.extra && Object.keys(event.extra).length ? JSON.stringify(event.extra) : "";
  return [event.time, event.dataset, event.partition, extra].filter(Boolean).join(" ");
}

/** Return a moment in ISO 8601, in UTC and to the second. */
export function iso(time: number): string {
  return new Date(time).toISOString().replace(/\.\d+Z$/, "Z");
}

const STEPS = [1, 5, 15, 60, 180, 360, 720, 1440, 2880, 10080, 43200].map((minutes) => minutes * 60_000);

/** Return round moments within a time, at most eight. */
export function marks(from: number, to: number): number[] {
  const step = STEPS.find((each) => (to - from) / each <= 8) ?? (to - from) / 8;
  const first = Math.ceil(from / step) * step;
  const found = [];
  for (let at = first; at <= to; at += step) found.push(at);
  return found;
}

/** Return where a place of the drawing lies in time: a round moment near it. */
export function snapped(share: number, from: number, to: number): number {
  const step = Math.max(60_000, STEPS.findLast((each) => each <= (to - from) / 100) ?? 60_000);
  const at = Math.round((from + share * (to - from)) / step) * step;
  return Math.min(Math.max(at, from), to);
}
