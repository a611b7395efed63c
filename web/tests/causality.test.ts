/** Properties of the graph of a trace: all there is, each once, and what is left out is counted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { eventKey, runKey, traceGraph } from "../src/graph/causality.ts";

type Trace = Parameters<typeof traceGraph>[0][number];

const AT = "2026-11-20T16:00:00.001Z";
const run = (id: string, hops: number, more: object = {}) => ({ run_id: id, dag_id: id, hops, state: "success", kind: "dataset", cause: "c", created_at: AT, ...more });
const event = (id: string, hops: number, more: object = {}) => ({ event_id: id, dataset: id, hops, time: AT, recorded_at: AT, source: "api", ...more });
const trace = (kind: string, id: string, more: object): Trace =>
  ({ kind, id, runs: [], events: [], consumed: [], counted: 10_000, ...more }) as unknown as Trace;

const main = trace("run", "r", {
  runs: [run("r", 0, { consumed: 3, emitted: 2 }), run("s", 2, { consumed: 1, emitted: 5, started: 1 })],
  events: [event("a", -1, { consumers: { success: 98 } }), event("b", 1, { run_id: "r", consumers: { success: 1 }, outcomes: [{ outcome: "pending", count: 7, dags: ["x"] }] })],
  consumed: [{ event_id: "a", run_id: "r" }, { event_id: "b", run_id: "s" }],
});

test("what is left out is counted, on both sides", () => {
  const { nodes, edges, focus } = traceGraph([main]);
  assert.equal(focus, runKey("r"));
  const texts = Object.fromEntries(nodes.filter((node) => node.kind === "more").map((node) => [node.key, node.text]));
  assert.deepEqual(texts, {
    "effects event a": "97 more runs",
    "causes run r": "2 more events",
    "effects run r": "1 more event",
    "effects run s": "5 more events, 1 more run",
  });
  assert.deepEqual(nodes.filter((node) => node.outcome).map((node) => node.outcome!.count), [7]);
  const keys = new Set(nodes.map((node) => node.key));
  for (const edge of edges) assert.ok(keys.has(edge.from) && keys.has(edge.to));
  assert.equal(keys.size, nodes.length);
});

test("what was opened is merged, and no node appears twice", () => {
  const opened = trace("event", "a", {
    runs: Array.from({ length: 97 }, (_, index) => run(`o${index}`, 1, { consumed: 1 })).concat(run("r", 1, { consumed: 3, emitted: 2 })),
    events: [event("a", 0, { consumers: { success: 98 } })],
    consumed: Array.from({ length: 97 }, (_, index) => ({ event_id: "a", run_id: `o${index}` })).concat({ event_id: "a", run_id: "r" }),
  });
  const { nodes, edges } = traceGraph([main, opened]);
  assert.equal(new Set(nodes.map((node) => node.key)).size, nodes.length);
  assert.equal(edges.filter((edge) => edge.from === eventKey("a")).length, 98);
  assert.ok(!nodes.some((node) => node.key === "effects event a"));
  assert.equal(nodes.find((node) => node.key === runKey("r"))!.run!.hops, 0);
});

test("a trail that was pruned says so, and one that goes on can be opened", () => {
  const { nodes } = traceGraph([
    trace("event", "b", { events: [event("b", 0, { pruned: true }), event("d", -2, { run_id: "gone", dag_id: "z" })], runs: [run("q", 1, { consumed: 4, consumed_pruned: 3 })], consumed: [{ event_id: "b", run_id: "q" }] }),
  ]);
  assert.deepEqual(nodes.filter((node) => node.kind === "end").map((node) => node.text), ["the run that emitted it was pruned", "3 pruned events"]);
  assert.deepEqual(nodes.filter((node) => node.kind === "more").map((node) => node.text), ["the run of z"]);
});
