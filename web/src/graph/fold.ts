/** Time axes on which idle time is folded: what happens gets the room, gaps get a mark. */

export interface Span {
  start: number;
  end: number;
}

export interface Gap extends Span {
  /** Where it is drawn, from 0 to 1. */
  at: number;
  to: number;
}

export interface Axis {
  /** Return where a time is drawn, from 0 to 1. */
  place: (time: number) => number;
  /** Return the time that is drawn at a place. */
  time: (place: number) => number;
  gaps: readonly Gap[];
  start: number;
  end: number;
}

const GAP = 0.04; // of the width, for each gap
const MOST = 0.5; // of the width, for all gaps
const LEAST_SHARE = 0.08; // of the time: shorter ones are not worth a mark

/** Return an axis over spans; without folding it is even. Times are in milliseconds. */
export function axisOf(spans: readonly Span[], folded = true): Axis {
  const start = spans.reduce((least, span) => Math.min(least, span.start), Number.POSITIVE_INFINITY);
  const end = spans.reduce((most, span) => Math.max(most, span.end), Number.NEGATIVE_INFINITY);
  if (!spans.length || !(end > start)) {
    const at = spans.length ? start : 0;
    return { place: () => 0, time: () => at, gaps: [], start: at, end: at };
  }
  const idle = folded ? gapsOf(spans, end - start) : [];
  const width = idle.length ? Math.min(GAP, MOST / idle.length) : 0;
  const busy = end - start - idle.reduce((sum, gap) => sum + gap.end - gap.start, 0);
  const scale = (1 - width * idle.length) / busy;
  // Corners of a broken line that rises throughout: (time, place).
  const corners: [number, number][] = [[start, 0]];
  const gaps: Gap[] = [];
  for (const gap of idle) {
    const [time, place] = corners[corners.length - 1]!;
    const at = place + (gap.start - time) * scale;
    corners.push([gap.start, at], [gap.end, at + width]);
    gaps.push({ ...gap, at, to: at + width });
  }
  corners.push([end, 1]);
  return {
    place: (time) => along(corners, 0, 1, time),
    time: (place) => along(corners, 1, 0, place),
    gaps,
    start,
    end,
  };
}

/** Return the idle times that are long enough to fold. */
function gapsOf(spans: readonly Span[], whole: number): Span[] {
  const sorted = [...spans].sort((a, b) => a.start - b.start);
  const found: Span[] = [];
  let until = sorted[0]!.end;
  for (const span of sorted) {
    if (span.start > until) found.push({ start: until, end: span.start });
    until = Math.max(until, span.end);
  }
  const idle = found.reduce((sum, gap) => sum + gap.end - gap.start, 0);
  if (idle >= whole) return []; // moments alone: their distances are all there is to see
  const busy = whole - idle;
  // Folded is what is long beside the whole, or beside what happens.
  return found.filter(({ start, end }) => end - start > whole * LEAST_SHARE || end - start > busy);
}

/** Follow a broken line from one coordinate to the other. */
function along(corners: readonly [number, number][], by: 0 | 1, to: 0 | 1, value: number): number {
  let low = 0;
  let high = corners.length - 1;
  if (value <= corners[low]![by]) return corners[low]![to];
  if (value >= corners[high]![by]) return corners[high]![to];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (corners[middle]![by] <= value) low = middle;
    else high = middle;
  }
  const [from, until] = [corners[low]!, corners[high]!];
  const part = until[by] === from[by] ? 0 : (value - from[by]) / (until[by] - from[by]);
  return from[to] + part * (until[to] - from[to]);
}

const STEPS = [1, 2, 5];
const SECOND = 1000;
const ROUND = [SECOND, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400].map(
  (each, index) => (index ? each * SECOND : each),
);

/** Return round times to mark on an axis, about so many of them, none inside a gap. */
export function marks(axis: Axis, from: number, to: number, count: number): number[] {
  const [first, last] = [axis.time(from), axis.time(to)];
  const width = (last - first - axis.gaps.reduce((sum, gap) => sum + overlap(gap, first, last), 0)) / Math.max(1, count);
  if (!(width > 0)) return [];
  const step = stepOf(width);
  const found: number[] = [];
  const spaced = (to - from) / (count * 2);
  let before = Number.NEGATIVE_INFINITY;
  // Round from the beginning on: a mark says how long after it.
  const from0 = axis.start;
  for (let time = from0 + Math.ceil((first - from0) / step) * step; time <= last && found.length < count * 4; time += step) {
    const gap = axis.gaps.find((each) => time > each.start && time < each.end);
    if (gap) {
      time = from0 + Math.floor((gap.end - from0) / step) * step;
      continue;
    }
    const place = axis.place(time);
    if (place - before < spaced) continue;
    before = place;
    found.push(time);
  }
  return found;
}

function overlap(gap: Span, first: number, last: number): number {
  return Math.max(0, Math.min(gap.end, last) - Math.max(gap.start, first));
}

function stepOf(width: number): number {
  if (width >= SECOND) {
    const day = 86_400_000;
    return ROUND.find((each) => each >= width) ?? Math.ceil(width / day) * day;
  }
  let unit = 0.001;
  while (unit * 10 < width) unit *= 10;
  return (STEPS.find((each) => each * unit >= width) ?? 10) * unit;
}

/** Return a time of the API in milliseconds with its microseconds, which `Date.parse` drops. */
export function moment(text: string): number {
  const fraction = /\.(\d+)/.exec(text)?.[1];
  if (!fraction) return Date.parse(text);
  return Date.parse(text.replace(`.${fraction}`, "")) + Number(`0.${fraction}`) * 1000;
}
