import assert from "node:assert/strict";
import { test } from "node:test";
import { stateOf, rowsOf } from "../src/views/grid-rows.ts";
import { CELL, moved, signsOf } from "../src/views/grid-shapes.ts";

test("a path is moved by its absolute numbers alone", () => {
  assert.equal(moved("M4 8.5 7 11.5 12.5 5", 10, 1), "M14 9.5 17 12.5 22.5 6");
  assert.equal(moved("M4.5 8h7", 10, 1), "M14.5 9h7");
  assert.equal(moved("M3.5 4.5h9L9 9v3l-2 1V9z", 10, 1), "M13.5 5.5h9L19 10v3l-2 1V10z");
  assert.equal(moved("M11.5 6A4 4 0 1 0 12 9M12 4v2.5H9.5", 10, 1), "M21.5 7A4 4 0 1 0 22 10M22 5v2.5H19.5");
});

test("cells of a state are one path, each in its column; what is lacking is not drawn", () => {
  const signs = signsOf(["success", undefined, "failed", "success"], { success: "M1 1h1", failed: "M2 2h1" }, false);
  assert.deepEqual(
    signs.map(({ state, marks }) => [state, marks]),
    [
      ["success", `M6 6h1M${3 * CELL + 6} 6h1`],
      ["failed", `M${2 * CELL + 7} 7h1`],
    ],
  );
  const rings = (several: boolean) => signsOf(["success"], {}, several)[0]!.rings.split("M").length;
  assert.equal(rings(true), rings(false) + 1); // a foot says that it stands for several
});

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
