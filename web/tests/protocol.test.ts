/** Filters of the live stream: what is asked for covers what each view wants. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { type Change, type Filter, passes, union } from "../src/live/protocol.ts";

const KINDS = ["run", "task", "dag"];
const NAMES = ["a", "b", "c"];

function* subsets(values: readonly string[]): Generator<string[]> {
  for (let mask = 1; mask < 1 << values.length; mask++) yield values.filter((_, index) => mask & (1 << index));
}

const filters: Filter[] = [];
for (const kinds of subsets(KINDS)) {
  filters.push({ kinds });
  for (const names of subsets(NAMES)) {
    filters.push({ kinds, dags: names }, { kinds, runs: names }, { kinds, dags: ["a"], runs: names });
  }
}
const changes: Change[] = KINDS.flatMap((kind) =>
  [undefined, ...NAMES].flatMap((dag) => [undefined, ...NAMES].map((run) => ({ kind, dag_id: dag, run_id: run, time: "" }))),
);

test("a union passes all that any of its filters passes", () => {
  for (let first = 0; first < filters.length; first++) {
    for (let second = first; second < filters.length; second += 7) {
      const both = [filters[first]!, filters[second]!];
      const wide = union(both)!;
      for (const change of changes) {
        if (both.some((filter) => passes(filter, change))) assert.ok(passes(wide, change), JSON.stringify([both, change]));
      }
    }
  }
});

test("a union of one is that one, and of none nothing", () => {
  for (const filter of filters) {
    const same = union([filter])!;
    for (const change of changes) assert.equal(passes(same, change), passes(filter, change));
  }
  assert.equal(union([]), null);
});

test("a union has at most as many values as a request takes", () => {
  const many = Array.from({ length: 101 }, (_, index) => ({ kinds: ["run"], runs: [String(index)] }));
  assert.deepEqual(union(many), { kinds: ["run"] });
  assert.equal(union(many.slice(1))!.runs!.length, 100);
});
