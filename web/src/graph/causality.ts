/** The graph of a trace: runs and events, what is left out of it, and the arrows between. */
import type { CausalTrace, OutcomeCount, TracedEvent, TracedRun, TracedTask } from "#routes";
import { grouped } from "../core/numbers.ts";
import { moment } from "./fold.ts";

export interface TraceNode {
  key: string;
  kind: "run" | "event" | "more" | "outcome" | "end";
  run?: TracedRun;
  event?: TracedEvent;
  outcome?: OutcomeCount;
  /** What is left out, or why the trail ends. */
  text?: string;
  /** Of `more`: the node whose causes or effects are left out, and how many of them are shown. */
  of?: { kind: "run" | "event"; id: string; side: "causes" | "effects"; shown: number };
}

export interface TraceEdge {
  from: string;
  to: string;
  /** Milliseconds from the one to the other. */
  ms?: number;
  task?: TracedTask;
  /** Whether it is on the way to what happened last. */
  last?: boolean;
}

export interface TraceGraph {
  nodes: readonly TraceNode[];
  edges: readonly TraceEdge[];
  focus: string;
  cut: boolean;
}

const ONE_TRANSACTION_MS = 100;

export const runKey = (id: string): string => `run ${id}`;
export const eventKey = (id: string): string => `event ${id}`;

/** Merge a trace with those of nodes that were opened; the first one has the focus. */
export function traceGraph(traces: readonly CausalTrace[]): TraceGraph {
  const first = traces[0]!;
  const runs = new Map<string, TracedRun>();
  const events = new Map<string, TracedEvent>();
  const links = new Map<string, [event: string, run: string]>();
  // The first trace last, as what it says is about the focus: hops, and counts of one task.
  for (const trace of traces.toReversed()) {
    for (const run of trace.runs) runs.set(run.run_id, run);
    for (const event of trace.events) events.set(event.event_id, event);
    for (const { event_id, run_id } of trace.consumed) links.set(`${event_id} ${run_id}`, [event_id, run_id]);
  }
  const nodes: TraceNode[] = [];
  const edges: TraceEdge[] = [];
  const consumed = new Map<string, number>();
  const consumers = new Map<string, number>();
  for (const [event, run] of links.values()) {
    if (!events.has(event) || !runs.has(run)) continue;
    consumed.set(run, (consumed.get(run) ?? 0) + 1);
    consumers.set(event, (consumers.get(event) ?? 0) + 1);
    const between = moment(runs.get(run)!.created_at) - moment(events.get(event)!.recorded_at);
    // One transaction records an event and makes its run, and begins a little before the event.
    const ms = between < 0 && between > -ONE_TRANSACTION_MS ? 0 : between;
    edges.push({ from: eventKey(event), to: runKey(run), ms });
  }
  const emitted = new Map<string, number>();
  const started = new Map<string, number>();
  for (const event of events.values()) {
    const key = eventKey(event.event_id);
    nodes.push({ key, kind: "event", event });
    const by = event.run_id ? runs.get(event.run_id) : undefined;
    if (by) {
      emitted.set(by.run_id, (emitted.get(by.run_id) ?? 0) + 1);
      edges.push({ from: runKey(by.run_id), to: key, ...since(event.task, by, event.recorded_at) });
    } else if (event.run_id) add("causes", key, `the run of ${event.dag_id ?? "a DAG"}`, "event", event.event_id, 0);
    else if (event.pruned) end(key, "the run that emitted it was pruned");
    const more = sum(event.consumers) - (consumers.get(event.event_id) ?? 0);
    if (more > 0) add("effects", key, counted(more, "run", first.counted), "event", event.event_id, consumers.get(event.event_id) ?? 0);
    for (const outcome of event.outcomes ?? []) {
      const own = `${outcome.outcome} ${key}`;
      nodes.push({ key: own, kind: "outcome", outcome, event });
      edges.push({ from: key, to: own });
    }
  }
  for (const run of runs.values()) {
    const key = runKey(run.run_id);
    nodes.push({ key, kind: "run", run });
    const by = run.started_by ? runs.get(run.started_by.run_id) : undefined;
    if (by) {
      started.set(by.run_id, (started.get(by.run_id) ?? 0) + 1);
      edges.push({ from: runKey(by.run_id), to: key, ...since(run.starter, by, run.created_at) });
    } else if (run.started_by?.pruned) end(key, `task ${run.started_by.task_id} of ${run.started_by.dag_id}, pruned`);
    else if (run.started_by) add("causes", key, `task ${run.started_by.task_id} of ${run.started_by.dag_id}`, "run", run.run_id, 0);
    if (run.consumed_pruned) end(key, counted(run.consumed_pruned, "event", first.counted, "pruned"));
  }
  for (const run of runs.values()) {
    const key = runKey(run.run_id);
    const shown = consumed.get(run.run_id) ?? 0;
    const causes = (run.consumed ?? 0) - (run.consumed_pruned ?? 0) - shown;
    if (causes > 0) add("causes", key, counted(causes, "event", first.counted), "run", run.run_id, shown);
    const had = [emitted.get(run.run_id) ?? 0, started.get(run.run_id) ?? 0] as const;
    const left = [(run.emitted ?? 0) - had[0], (run.started ?? 0) - had[1]] as const;
    const words = [
      left[0] > 0 && counted(left[0], "event", first.counted),
      left[1] > 0 && counted(left[1], "run", first.counted),
    ].filter(Boolean);
    if (words.length) add("effects", key, words.join(", "), "run", run.run_id, had[0] + had[1]);
  }
  const focus = first.kind === "run" ? runKey(first.id) : eventKey(first.id);
  markLast(focus, nodes, edges);
  return { nodes, edges, focus, cut: traces.some((trace) => trace.cut) };

  function add(
    side: "causes" | "effects",
    key: string,
    text: string,
    kind: "run" | "event",
    id: string,
    shown: number,
  ): void {
    const own = `${side} ${key}`;
    nodes.push({ key: own, kind: "more", text, of: { kind, id, side, shown } });
    edges.push(side === "causes" ? { from: own, to: key } : { from: key, to: own });
  }

  function end(key: string, text: string): void {
    const own = `end ${key}`;
    nodes.push({ key: own, kind: "end", text });
    edges.push({ from: own, to: key });
  }
}

/** Return the time from the first line of a task, or of its run, until a moment. */
function since(task: TracedTask | null | undefined, run: TracedRun, until: string): { ms: number; task?: TracedTask } {
  // The first line is of the worker's clock, the event of the database's.
  const ms = Math.max(0, moment(until) - moment(task?.started_at ?? run.started_at ?? run.created_at));
  return task ? { ms, task } : { ms };
}

function sum(counts: Readonly<Record<string, number>> | undefined): number {
  return Object.values(counts ?? {}).reduce((total, each) => total + each, 0);
}

function counted(count: number, what: string, limit: number, word = "more"): string {
  const least = count > limit / 2 ? "at least " : "";
  return `${least}${grouped(count)} ${word} ${what}${count === 1 ? "" : "s"}`;
}

/** Return when a node came about, and when it was over. */
export function timesOf(node: TraceNode): { start: number; end: number } | undefined {
  if (node.event) return node.kind === "event" ? at(node.event.recorded_at) : undefined;
  if (!node.run) return undefined;
  const start = moment(node.run.created_at);
  const end = node.run.ended_at ?? node.run.started_at;
  return { start, end: end ? Math.max(start, moment(end)) : start };
}

function at(text: string): { start: number; end: number } {
  const time = moment(text);
  return { start: time, end: time };
}

/** Mark the arrows on the way from the focus to what happened last. */
function markLast(focus: string, nodes: readonly TraceNode[], edges: TraceEdge[]): void {
  const into = new Map<string, TraceEdge[]>();
  const out = new Map<string, TraceEdge[]>();
  for (const edge of edges) {
    into.set(edge.to, [...(into.get(edge.to) ?? []), edge]);
    out.set(edge.from, [...(out.get(edge.from) ?? []), edge]);
  }
  const times = new Map(nodes.map((node) => [node.key, timesOf(node)?.end]));
  const reached = new Set([focus]);
  for (const key of reached) for (const edge of out.get(key) ?? []) reached.add(edge.to);
  let last = focus;
  for (const key of reached) if ((times.get(key) ?? -1) > (times.get(last) ?? -1)) last = key;
  const seen = new Set<string>();
  while (last !== focus && !seen.has(last)) {
    seen.add(last);
    let way: TraceEdge | undefined;
    for (const edge of into.get(last) ?? []) {
      if (reached.has(edge.from) && (!way || (times.get(edge.from) ?? 0) > (times.get(way.from) ?? 0))) way = edge;
    }
    if (!way) return;
    way.last = true;
    last = way.from;
  }
}
