/** Properties of time axes, on random spans. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Span, axisOf, marks, moment } from "../src/graph/fold.ts";

/** Numbers that look random and are the same each time (mulberry32). */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Bursts of spans of 0.1 ms up to minutes, with up to days between them. */
function made(seed: number): Span[] {
  const next = random(seed);
  const spans: Span[] = [];
  let time = 1.7e12;
  for (let burst = 0; burst < 1 + next() * 8; burst++) {
    time += 10 ** (next() * 9);
    for (let each = 0; each < 1 + next() * 6; each++) {
      const start = time + 10 ** (next() * 3 - 1);
      spans.push({ start, end: start + (next() < 0.2 ? 0 : 10 ** (next() * 5 - 1)) });
    }
  }
  return spans;
}

for (const folded of [true, false]) {
  test(`an axis keeps the order of times, ${folded ? "with" : "without"} folding`, () => {
    for (let seed = 0; seed < 200; seed++) {
      const spans = made(seed);
      const axis = axisOf(spans, folded);
      const times = spans.flatMap((span) => [span.start, span.end]).sort((a, b) => a - b);
      let before = 0;
      for (const time of times) {
        const place = axis.place(time);
        assert.ok(place >= before - 1e-12 && place <= 1 + 1e-12, `${seed}: ${place} after ${before}`);
        before = place;
        assert.ok(Math.abs(axis.time(place) - time) < 1e-3 + (axis.end - axis.start) * 1e-9);
      }
      if (axis.end > axis.start) assert.deepEqual([axis.place(axis.start), axis.place(axis.end)], [0, 1]);
    }
  });
}

test("nothing that happens is in a gap, and gaps take half the room at most", () => {
  for (let seed = 0; seed < 200; seed++) {
    const spans = made(seed);
    const axis = axisOf(spans);
    assert.ok(axis.gaps.reduce((sum, gap) => sum + gap.to - gap.at, 0) <= 0.5 + 1e-9);
    for (const gap of axis.gaps) {
      assert.ok(gap.to > gap.at && gap.end > gap.start);
      for (const span of spans) assert.ok(span.end <= gap.start || span.start >= gap.end);
    }
  }
});

test("a burst of a millisecond is seen though days lie between it and the next", () => {
  const day = 86_400_000;
  const spans = [0, day, 3 * day].map((start) => ({ start, end: start + 1 }));
  const axis = axisOf(spans);
  for (const span of spans) assert.ok(axis.place(span.end) - axis.place(span.start) > 0.2);
  assert.deepEqual(axis.gaps.map((gap) => gap.end - gap.start), [day - 1, 2 * day - 1]);
});

test("marks are round, in order, in view and not in gaps", () => {
  for (let seed = 0; seed < 100; seed++) {
    const axis = axisOf(made(seed));
    for (const [from, to] of [[0, 1], [0.2, 0.4], [0.5, 0.50001]] as const) {
      const found = marks(axis, from, to, 8);
      assert.ok(found.length <= 40);
      for (let index = 0; index < found.length; index++) {
        const place = axis.place(found[index]!);
        assert.ok(place >= from - 1e-6 && place <= to + 1e-6, `${seed} ${place} ${from} ${to}`);
        if (index) assert.ok(found[index]! > found[index - 1]!);
        assert.ok(!axis.gaps.some((gap) => found[index]! > gap.start && found[index]! < gap.end));
      }
    }
  }
});

test("nothing, and one moment, have an axis", () => {
  assert.deepEqual([axisOf([]).place(5), axisOf([{ start: 3, end: 3 }]).time(0.5)], [0, 3]);
});

test("times keep their microseconds", () => {
  const time = moment("2026-11-20T16:00:00.001250Z");
  assert.ok(Math.abs(time - Date.parse("2026-11-20T16:00:00Z") - 1.25) < 1e-3);
  assert.equal(moment("2026-11-20T16:00:00Z"), Date.parse("2026-11-20T16:00:00Z"));
});
