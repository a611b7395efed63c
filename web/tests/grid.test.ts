import assert from "node:assert/strict";
import { test } from "node:test";
import { stateOf, rowsOf } from "../src/views/grid-rows.ts";

test("a cell shows the state of its task, or the one that tells most of several", () => {
  const grid = {
    states: ["none", "success", "failed"],
    tasks: [{ task_id: "g.a", groups: ["g"] }, { task_id: "g.b", groups: ["g"], mapped: true }, { task_id: "c" }],
  };
  const run = { marks: "1+ ", counts: { 1: { success: 3, failed: 1 } } };
  const rows = rowsOf(grid as never, () => false);
  const telling = (counts: Record<string, number>) => Object.keys(counts).sort()[0]!; // `failed` before `success`
  const found = rows.map((row) => stateOf(grid as never, run as never, row, telling));
  assert.deepEqual(found, ["failed", "success", "failed", undefined]);
});
