/** Properties of the layout, on random graphs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { layout } from "../src/graph/layout.ts";

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

function made(seed: number, count: number, cyclic: boolean): [number, number][] {
  const next = random(seed);
  const edges: [number, number][] = [];
  for (let node = 1; node < count; node++) {
    for (let each = 0; each < 1 + next() * 2; each++) edges.push([Math.floor(next() * node), node]);
    if (cyclic && next() < 0.2) edges.push([node, Math.floor(next() * node)]);
  }
  return edges;
}

for (const cyclic of [false, true]) {
  test(`edges lead to the right, and nodes do not overlap${cyclic ? ", with cycles" : ""}`, () => {
    for (let seed = 0; seed < 60; seed++) {
      const count = 2 + (seed % 30);
      const placed = layout(count, made(seed, count, cyclic));
      for (const { from, to, points } of placed.edges) {
        assert.ok(placed.x[from]! < placed.x[to]!);
        assert.deepEqual(points[0], [placed.x[from], placed.y[from]]);
        assert.deepEqual(points.at(-1), [placed.x[to], placed.y[to]]);
        points.forEach(([x], index) => assert.equal(x, placed.x[from]! + index));
      }
      for (let a = 0; a < count; a++) {
        assert.ok(placed.y[a]! >= -1e-9 && placed.y[a]! <= placed.height - 1 + 1e-9);
        for (let b = 0; b < a; b++) {
          if (placed.x[a] === placed.x[b]) assert.ok(Math.abs(placed.y[a]! - placed.y[b]!) >= 0.9 - 1e-9);
        }
      }
    }
  });
}

test("a graph without cycles keeps all edges", () => {
  const edges = made(7, 40, false);
  assert.equal(layout(40, edges).edges.length, edges.length);
});

test("the same graph is always laid out in the same way", () => {
  const edges = made(3, 50, true);
  assert.deepEqual(layout(50, edges), layout(50, edges));
});

test("there may be nothing, or one node", () => {
  assert.equal(layout(0, []).edges.length, 0);
  assert.deepEqual(layout(1, [[0, 0]]).x, [0]);
});
