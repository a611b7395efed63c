import assert from "node:assert/strict";
import { test } from "node:test";
import { diff, near } from "../src/core/diff.ts";
import { cellOf, rowsOf } from "../src/views/grid-rows.ts";

function random(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 1_103_515_245 + 12_345) % 2_147_483_648) / 2_147_483_648;
}

test("a difference has both texts whole, and its numbers are those of their lines", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const next = random(seed);
    const text = () => Array.from({ length: Math.floor(next() * 12) }, () => "abcd"[Math.floor(next() * 4)]).join("\n");
    const [before, after] = [text(), text()];
    const lines = diff(before, after);
    const side = (sign: string) => lines.filter((line) => line.sign === " " || line.sign === sign);
    assert.equal(side("-").map((line) => line.text).join("\n"), before);
    assert.equal(side("+").map((line) => line.text).join("\n"), after);
    side("-").forEach((line, at) => assert.equal(line.before, at + 1));
    side("+").forEach((line, at) => assert.equal(line.after, at + 1));
  }
});

test("what is far from any difference is left out, and said to be", () => {
  const before = Array.from({ length: 30 }, (_, at) => `line ${at}`);
  const lines = near(diff(before.join("\n"), before.with(15, "other").join("\n")));
  assert.deepEqual(
    lines.map((line) => line.sign),
    ["…", " ", " ", " ", "-", "+", " ", " ", " ", "…"],
  );
});

const GRID = {
  dag_id: "d",
  states: ["none", "success", "failed"],
  tasks: [
    { task_id: "a" },
    { task_id: "g.b", groups: ["g"] },
    { task_id: "c" },
    { task_id: "g.h.d", groups: ["g", "h"], mapped: true },
  ],
  runs: [
    { run_id: "r", state: "failed", created_at: "", kind: "", version: 1, cause: "", marks: "11 +", counts: { 3: { success: 2, failed: 1 } } },
  ],
} as never;

test("groups stand where their first task does, fold, and add up what is in them", () => {
  const names = (folded: readonly string[], text?: string) =>
    rowsOf(GRID, (group) => folded.includes(group), text).map((row) => `${row.depth} ${row.name}`);
  assert.deepEqual(names([]), ["0 a", "0 g", "1 g.b", "1 h", "2 g.h.d", "0 c"]);
  assert.deepEqual(names(["g"]), ["0 a", "0 g", "0 c"]);
  assert.deepEqual(names(["g/h"]), ["0 a", "0 g", "1 g.b", "1 h", "0 c"]);
  assert.deepEqual(names(["g"], "H.D"), ["0 g.h.d"]);
  const labels = (text?: string) => rowsOf(GRID, () => false, text).map((row) => row.label);
  assert.deepEqual(labels(), ["a", "g", "b", "h", "d", "c"]); // what stands above is not said again
  assert.deepEqual(labels("d"), ["g.h.d"]);
  const [a, g, c] = rowsOf(GRID, () => true);
  const run = (GRID as { runs: never[] }).runs[0]!;
  assert.deepEqual(cellOf(GRID, run, a!), { success: 1 });
  assert.deepEqual(cellOf(GRID, run, g!), { success: 3, failed: 1 });
  assert.equal(cellOf(GRID, run, c!), undefined); // its version has no such task
});
