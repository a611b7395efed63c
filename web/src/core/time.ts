/** Times and durations for people. */
import { signal } from "@preact/signals";

/** The time, to a second; moves only while the page is visible. */
export const now = signal(Date.now());

/** What was long ago is said in larger units: of a thousand rows that say when, few are drawn anew each second. */
const CLOCKS = [
  { from: 3_600_000, every: 60_000, time: signal(Date.now()) },
  { from: 60_000, every: 10_000, time: signal(Date.now()) },
];

setInterval(() => {
  if (document.hidden) return;
  now.value = Date.now();
  for (const { every, time } of CLOCKS) if (now.value - time.peek() >= every) time.value = now.value;
}, 1000);

/** Return the time, as exactly as one has to know it to say how far another one is from it. */
export function timeFor(other: number): number {
  const far = Math.abs(now.peek() - other);
  return (CLOCKS.find(({ from }) => far >= from)?.time ?? now).value;
}

const UNITS: readonly [number, string][] = [
  [86_400_000, "d"],
  [3_600_000, "h"],
  [60_000, "min"],
  [1000, "s"],
];

export function duration(ms: number): string {
  if (ms < 0) return "0 ms";
  if (ms < 1000) return `${ms < 10 ? Number(ms.toFixed(1)) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const index = UNITS.findIndex(([size]) => ms >= size);
  const [size, name] = UNITS[index]!;
  const [less, lessName] = UNITS[index + 1]!;
  const whole = Math.floor(ms / size);
  const rest = Math.floor((ms - whole * size) / less);
  return rest ? `${whole} ${name} ${rest} ${lessName}` : `${whole} ${name}`;
}

export function relative(time: number, at: number): string {
  const ms = at - time;
  if (Math.abs(ms) < 1000) return "now";
  const [size, name] = UNITS.find(([each]) => Math.abs(ms) >= each)!;
  const count = `${Math.floor(Math.abs(ms) / size)} ${name}`;
  return ms > 0 ? `${count} ago` : `in ${count}`;
}

/** Return a time in UTC, and on the clock of who looks, where that is another.
 *
 *  Without `Intl`, as in `grouped`.
 */
export function absolute(text: string): string {
  const time = new Date(text);
  const utc = `${time.toISOString().replace("T", " ").replace("Z", "")} UTC`;
  const ahead = -time.getTimezoneOffset();
  if (!ahead) return utc;
  const here = new Date(time.getTime() + ahead * 60_000).toISOString().slice(0, 19).replace("T", " ");
  const zone = [Math.floor(Math.abs(ahead) / 60), Math.abs(ahead) % 60].map((each) => String(each).padStart(2, "0")).join(":");
  return `${utc} (${here} UTC${ahead < 0 ? "−" : "+"}${zone})`;
}

export function between(start: string | null | undefined, end: string | null | undefined): number | undefined {
  if (!start) return undefined;
  return (end ? Date.parse(end) : now.value) - Date.parse(start);
}

export function bytes(count: number): string {
  if (count < 1024) return `${count} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let size = count;
  let unit = -1;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${size.toFixed(size < 10 ? 1 : 0)} ${units[unit]}`;
}
