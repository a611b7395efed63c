/** The trace of a run, a task or an event: its causes to the left, what followed to the right. */
import type { CausalTrace, TracedEvent, TracedRun } from "#routes";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { call } from "../core/api";
import { bind } from "../core/keys";
import { useResource } from "../core/resource";
import { address, setQuery, to } from "../core/router";
import { duration } from "../core/time";
import { type TraceEdge, type TraceNode, timesOf, traceGraph } from "../graph/causality";
import { type Bar, type Lane, Lanes, moment } from "../graph/lanes";
import { layout } from "../graph/layout";
import type { Change } from "../live/live";
import { Ago, Empty, Loaded, State } from "../ui/parts";

export interface Traced {
  kind: "run" | "event";
  id: string;
  /** Only effects of this task of the run. */
  task?: string;
}

interface Opened {
  kind: "run" | "event";
  id: string;
  side: "causes" | "effects";
  skip: number;
}

const AT_ONCE = 50;

/** What was opened, as it stands in the address. */
function textOf({ kind, id, side, skip }: Opened): string {
  return [kind, id, side, skip].join(" ");
}

function openedOf(texts: readonly string[]): Opened[] {
  return texts.flatMap((text): Opened[] => {
    const [kind, id, side, skip] = text.split(" ");
    const known = (kind === "run" || kind === "event") && (side === "causes" || side === "effects") && id;
    return known ? [{ kind, id, side, skip: Math.max(0, Number(skip) || 0) }] : [];
  });
}

function taskName(task: { task_id: string; map_index?: number | null }): string {
  return task.map_index == null ? task.task_id : `${task.task_id}.${task.map_index}`;
}

const LIVE = new Set(["running", "queued"]);

export function Trace({ of }: { of: Traced }) {
  const opened = openedOf(address.value.query.getAll("open"));
  const known = useRef<{ runs: Set<string>; dags: Set<string>; live: boolean }>({ runs: new Set(), dags: new Set(), live: false });
  const kept = useRef(new Map<string, CausalTrace>());
  const found = useResource(
    `trace ${of.kind} ${of.id} ${of.task} ${JSON.stringify(opened)}`,
    async (signal) => {
      // What was opened last is loaded again with the rest; what was opened before stays as it is.
      const again = opened.filter((each, index) => index >= opened.length - 3 || !kept.current.has(JSON.stringify(each)));
      const [main, ...more] = await Promise.all([
        load(of, { causes: 4, effects: 4 }, signal),
        ...again.map((each) =>
          load(each, { causes: 0, effects: 0, [each.side]: each.side === "causes" ? 2 : 1, breadth: AT_ONCE, skip: each.skip }, signal),
        ),
      ]);
      again.forEach((each, index) => kept.current.set(JSON.stringify(each), more[index]!));
      const parts = opened.flatMap((each) => kept.current.get(JSON.stringify(each)) ?? []);
      return [main, ...parts];
    },
    { filter: { kinds: ["run", "task", "dataset"] }, when: (change) => concerns(change, known.current) },
  );
  const shown = useRef<readonly CausalTrace[] | undefined>(undefined);
  if (found.value) shown.current = found.value;
  const resource = { ...found, value: found.value ?? shown.current };
  return (
    <Loaded of={resource} what="the trace">
      {(traces) => {
        known.current = watched(traces);
        return <Drawing traces={traces} open={(each) => setQuery({ open: [...address.peek().query.getAll("open"), textOf(each)] })} />;
      }}
    </Loaded>
  );
}

interface Bounds {
  causes: number;
  effects: number;
  breadth?: number;
  skip?: number;
}

function load(of: Traced, bounds: Bounds, signal: AbortSignal): Promise<CausalTrace> {
  if (of.kind === "event") {
    return call("GET /api/v1/datasets/events/{event_id}/trace", { path: { event_id: of.id }, query: bounds }, signal);
  }
  const query = of.task ? { ...bounds, task: of.task } : bounds;
  return call("GET /api/v1/runs/{run_id}/trace", { path: { run_id: of.id }, query }, signal);
}

/** What has to be loaded again when it changes: the runs that are shown, and those that may follow. */
function watched(traces: readonly CausalTrace[]) {
  const runs = traces.flatMap((trace) => trace.runs);
  const waiting = traces.flatMap((trace) => trace.events.flatMap((event) => (event.outcomes ?? []).flatMap((each) => (each.outcome === "pending" ? each.dags : []))));
  return {
    runs: new Set(runs.map((run) => run.run_id)),
    dags: new Set(waiting),
    live: runs.some((run) => LIVE.has(run.state)),
  };
}

function concerns(change: Change, known: { runs: Set<string>; dags: Set<string>; live: boolean }): boolean {
  if (change.run_id && known.runs.has(change.run_id)) return true;
  if (change.kind !== "run") return false;
  // A run that is not shown yet: one that consumed a pending event, or that a live task started.
  return known.live || (change.dag_id != null && known.dags.has(change.dag_id));
}

function Drawing({ traces, open }: { traces: readonly CausalTrace[]; open: (each: Opened) => void }) {
  const graph = useMemo(() => traceGraph(traces), [traces]);
  const byTime = address.value.query.get("by") === "time";
  useLayoutEffect(
    () =>
      bind({
        keys: "t",
        about: "Trace: by steps, or by time",
        act: () => setQuery({ by: address.peek().query.get("by") === "time" ? undefined : "time" }),
      }),
    [],
  );
  const opening = (node: TraceNode) => {
    const { kind, id, side } = node.of!;
    open({ kind, id, side, skip: skipOf(traces, node.of!) });
  };
  return (
    <>
      <div class="line tools">
        <div class="chips" role="group" aria-label="Drawn by">
          <button type="button" class="chip" aria-pressed={!byTime} onClick={() => setQuery({ by: undefined })}>
            By steps
          </button>
          <button type="button" class="chip" aria-pressed={byTime} onClick={() => setQuery({ by: "time" })}>
            By time
          </button>
        </div>
        <Summary nodes={graph.nodes} />
      </div>
      {byTime ? <Times nodes={graph.nodes} /> : <Steps nodes={graph.nodes} edges={graph.edges} focus={graph.focus} open={opening} />}
      {graph.cut && <p class="reason">There is more than one drawing can hold: open a run or an event further on.</p>}
      <details class="outline" open>
        <summary>As a list</summary>
        <Outline nodes={graph.nodes} edges={graph.edges} focus={graph.focus} open={opening} />
      </details>
    </>
  );
}

/** Return how many of a node's causes or effects are known, in the order in which they are listed. */
function skipOf(traces: readonly CausalTrace[], of: NonNullable<TraceNode["of"]>): number {
  const sign = of.side === "causes" ? -1 : 1;
  const main = traces[0]!;
  const node = of.kind === "run" ? main.runs.find((run) => run.run_id === of.id) : main.events.find((event) => event.event_id === of.id);
  if (node && node.hops * sign >= 0) return of.shown;
  // It was not followed in that direction: what is shown of that may be any part.
  const own = traces.slice(1).filter((trace) => trace.kind === of.kind && trace.id === of.id);
  return own.reduce((sum, trace) => sum + [...trace.runs, ...trace.events].filter((each) => each.hops === sign).length, 0);
}

function Summary({ nodes }: { nodes: readonly TraceNode[] }) {
  const runs = nodes.flatMap((node) => node.run ?? []);
  const counts = new Map<string, number>();
  for (const run of runs) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
  const times = nodes.flatMap((node) => timesOf(node) ?? []);
  const whole = times.length ? Math.max(...times.map((each) => each.end)) - Math.min(...times.map((each) => each.start)) : 0;
  return (
    <span class="line faint">
      {[...counts].map(([state, count]) => (
        <span key={state}>
          {count} <State name={state} />
        </span>
      ))}
      <span>{duration(whole)} from the first to the last</span>
    </span>
  );
}

const WIDTH = 216;
const HEIGHT = 62;
const ACROSS = 316;
const DOWN = 78;
const EDGE = 16;

function Steps(props: { nodes: readonly TraceNode[]; edges: readonly TraceEdge[]; focus: string; open: (node: TraceNode) => void }) {
  const { nodes, edges, focus } = props;
  const frame = useRef<HTMLDivElement>(null);
  const at = new Map(nodes.map((node, index) => [node.key, index]));
  const key = nodes.map((node) => node.key).join("\n");
  const placed = useMemo(
    () => layout(nodes.length, edges.flatMap(({ from, to: end }): [number, number][] => (at.has(from) && at.has(end) ? [[at.get(from)!, at.get(end)!]] : []))),
    [key, edges.length],
  );
  const left = (x: number) => EDGE + x * ACROSS;
  const top = (y: number) => EDGE + y * DOWN;
  const here = at.get(focus);
  useEffect(() => {
    const box = frame.current;
    if (!box || here === undefined) return;
    box.scrollLeft = left(placed.x[here]!) - (box.clientWidth - WIDTH) / 2;
    box.scrollTop = top(placed.y[here]!) - (box.clientHeight - HEIGHT) / 2;
  }, [focus]);
  const width = EDGE * 2 + Math.max(0, placed.layers - 1) * ACROSS + WIDTH;
  const height = EDGE * 2 + Math.max(0, placed.height - 1) * DOWN + HEIGHT;
  const between = new Map(edges.map((edge) => [`${edge.from}\n${edge.to}`, edge]));
  return (
    <div class="graph trace" ref={frame} role="region" aria-label="Causes and effects" tabIndex={0} onKeyDown={(event) => follow(event, edges, frame.current!)}>
      <div class="canvas" style={{ width: `${width}px`, height: `${height}px` }}>
        <svg class="edges" width={width} height={height} aria-hidden="true">
          {placed.edges.map(({ from, to: end, points }) => {
            const edge = between.get(`${nodes[from]!.key}\n${nodes[end]!.key}`);
            const [x, y] = points.at(-1)!;
            return (
              <g key={`${from} ${end}`} class={edge?.last ? "last" : ""}>
                <path d={curve(points, left, top)} />
                <path class="tip" d={`M${left(x) - 7} ${top(y) + HEIGHT / 2 - 4}l7 4-7 4z`} />
              </g>
            );
          })}
        </svg>
        {placed.edges.map(({ from, to: end, points }) => {
          const edge = between.get(`${nodes[from]!.key}\n${nodes[end]!.key}`);
          if (edge?.ms === undefined) return null;
          const [x, y] = points.at(-1)!;
          return (
            <span key={`${from} ${end}`} class="hop" style={{ left: `${left(x) - (ACROSS - WIDTH)}px`, top: `${top(y) + HEIGHT / 2 - 22}px`, width: `${ACROSS - WIDTH}px` }} title={hopText(edge)}>
              {edge.ms < 0 ? "while open" : duration(edge.ms)}
            </span>
          );
        })}
        {nodes.map((node, index) => (
          <Card key={node.key} node={node} focus={node.key === focus} left={left(placed.x[index]!)} top={top(placed.y[index]!)} open={props.open} />
        ))}
      </div>
    </div>
  );
}

function Card(props: { node: TraceNode; focus: boolean; left: number; top: number; open: (node: TraceNode) => void }) {
  const { node, focus } = props;
  const style = { left: `${props.left}px`, top: `${props.top}px` };
  if (node.kind === "more") {
    return (
      <button type="button" class="node more" data-key={node.key} style={style} onClick={() => props.open(node)}>
        <span>{node.text}</span>
        <small>{node.of!.side === "causes" ? "show what came before" : "show them"}</small>
      </button>
    );
  }
  if (node.kind === "end") {
    return (
      <span class="node end" data-key={node.key} style={style}>
        <small>{node.text}</small>
      </span>
    );
  }
  const state = node.run?.state ?? node.outcome?.outcome;
  return (
    <a
      class={`node ${node.kind === "event" ? "dataset" : node.kind} ${state ? `s-${state}` : ""} ${focus ? "focus" : ""}`}
      href={hrefOf(node)}
      title={titleOf(node)}
      aria-current={focus ? "true" : undefined}
      data-key={node.key}
      style={style}
    >
      {node.outcome ? <Others node={node} /> : node.run ? <RunText run={node.run} /> : <EventText event={node.event!} />}
    </a>
  );
}

function RunText({ run }: { run: TracedRun }) {
  const waited = run.started_at ? moment(run.started_at) - moment(run.created_at) : undefined;
  const took = run.started_at && run.ended_at ? moment(run.ended_at) - moment(run.started_at) : undefined;
  return (
    <>
      <span>
        <strong>{run.dag_id}</strong> {run.partition}
      </span>
      <State name={run.state} />
      <small>
        {[
          run.error,
          took !== undefined && `took ${duration(took)}`,
          waited !== undefined && waited >= 1 && `waited ${duration(waited)}`,
          !run.consumed && !run.started_by && run.cause,
          run.cleared ? `cleared ${run.cleared} times` : "",
        ]
          .filter(Boolean)
          .join(" · ")}
      </small>
    </>
  );
}

function EventText({ event }: { event: TracedEvent }) {
  const from = event.run_id ? (event.task ? `task ${taskName(event.task)}` : event.dag_id) : event.pruned ? "a pruned run" : `from ${event.source}`;
  return (
    <>
      <span>{shortName(event.dataset)}</span>
      <small>
        {event.partition && `${event.partition} · `}
        {from}
      </small>
      {event.held && <small class="held">{event.held}</small>}
    </>
  );
}

function Others({ node }: { node: TraceNode }) {
  const { outcome, dags, count, reason } = node.outcome!;
  return (
    <>
      <State name={outcome} />
      <span>
        {dags.join(", ")}
        {count > dags.length && ` and ${count - dags.length} more`}
      </span>
      {reason && <small>{reason}</small>}
    </>
  );
}

function shortName(uri: string): string {
  return uri.length > 30 ? `…${uri.slice(-29)}` : uri;
}

function hrefOf(node: TraceNode): string {
  if (node.outcome?.dags.length === 1 && node.outcome.outcome === "pending") return to("dags", node.outcome.dags[0]!);
  if (node.outcome) return to("events", node.event!.event_id);
  if (node.run) return `${to("runs", node.run.run_id)}?tab=trace`;
  return `${to("events", node.event!.event_id)}?tab=trace`;
}

function titleOf(node: TraceNode): string {
  const { run, event, outcome } = node;
  if (outcome) return `${outcome.outcome}: ${outcome.dags.join(", ")}${outcome.reason ? ` (${outcome.reason})` : ""}`;
  if (run) return `Run of ${run.dag_id}, ${run.state}: ${run.cause}${run.error ? `; ${run.error}` : ""}`;
  return `Event of ${event!.dataset}, ${event!.recorded_at}${event!.held ? `; ${event!.held}` : ""}`;
}

function hopText({ ms, task }: TraceEdge): string {
  if (task) {
    const queued = task.queued_at && task.started_at ? `, queued for ${duration(moment(task.started_at) - moment(task.queued_at))}` : "";
    return `${duration(Math.max(0, ms!))} after the first line of task ${taskName(task)}${queued}`;
  }
  return ms! < 0 ? "The run was open, and took the event in later" : `${duration(ms!)} from the event to the run`;
}

function curve(points: [number, number][], left: (x: number) => number, top: (y: number) => number): string {
  let path = "";
  points.forEach(([x, y], index) => {
    const last = index === points.length - 1;
    const at = top(y) + HEIGHT / 2;
    if (!index) {
      path = `M${left(x) + WIDTH} ${at}`;
      return;
    }
    const [beforeX, beforeY] = points[index - 1]!;
    const start = left(beforeX) + WIDTH;
    const end = last ? left(x) - 5 : left(x);
    const bend = (start + end) / 2;
    path += `C${bend} ${top(beforeY) + HEIGHT / 2} ${bend} ${at} ${end} ${at}`;
    if (!last) path += `H${left(x) + WIDTH}`;
  });
  return path;
}

/** Arrows follow causes and effects; up and down lead to the node above or below. */
function follow(event: KeyboardEvent, edges: readonly TraceEdge[], frame: HTMLElement): void {
  if (!event.key.startsWith("Arrow")) return;
  const now = document.activeElement instanceof HTMLElement ? document.activeElement : frame;
  const all = [...frame.querySelectorAll<HTMLElement>("[data-key]")];
  const key = now.dataset.key;
  let next: HTMLElement | undefined;
  if (!key) next = frame.querySelector<HTMLElement>("[aria-current]") ?? all[0];
  else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    const right = event.key === "ArrowRight";
    const near = new Map(edges.flatMap((edge) => ((right ? edge.from : edge.to) === key ? [[right ? edge.to : edge.from, edge] as const] : [])));
    // The way to what happened last goes first.
    const rank = (each: HTMLElement) => (near.get(each.dataset.key!)?.last ? 0 : 1e6) + distance(each, now);
    next = all.filter((each) => near.has(each.dataset.key!) && each.tagName !== "SPAN").sort((a, b) => rank(a) - rank(b))[0];
  } else {
    const below = event.key === "ArrowDown";
    next = all
      .filter((each) => each.style.left === now.style.left && each.tagName !== "SPAN" && (below ? y(each) > y(now) : y(each) < y(now)))
      .sort((a, b) => distance(a, now) - distance(b, now))[0];
  }
  if (!next) return;
  event.preventDefault();
  next.focus();
  next.scrollIntoView({ block: "nearest", inline: "nearest" });
}

function y(node: HTMLElement): number {
  return Number.parseFloat(node.style.top);
}

function distance(a: HTMLElement, b: HTMLElement): number {
  return Math.abs(y(a) - y(b));
}

/** A lane a DAG; events in the lane of the DAG whose task emitted them, or at the top. */
function Times({ nodes }: { nodes: readonly TraceNode[] }) {
  const lanes = new Map<string, Bar[]>();
  const add = (lane: string, bar: Bar) => lanes.set(lane, [...(lanes.get(lane) ?? []), bar]);
  for (const node of nodes) {
    const times = timesOf(node);
    if (!times) continue;
    if (node.event) {
      const name = `Event of ${node.event.dataset}`;
      add(node.event.dag_id ?? "from outside", { key: node.key, ...times, kind: "event", name, href: hrefOf(node) });
    } else if (node.run) {
      const { run } = node;
      const end = run.ended_at || !LIVE.has(run.state) ? times.end : Date.now();
      const started = run.started_at ? moment(run.started_at) : end;
      const name = `Run of ${run.dag_id}, ${run.state}`;
      if (started - times.start >= 0.5) add(run.dag_id, { key: `${node.key} queued`, start: times.start, end: started, kind: "queued", name: `${name}: waited`, href: hrefOf(node) });
      add(run.dag_id, { key: node.key, start: started, end: Math.max(started, end), kind: "run", state: run.state, name, href: hrefOf(node) });
    }
  }
  // Causes above, though a transaction may write an event after the run that it makes.
  const hops = new Map<string, number>();
  for (const node of nodes) {
    const lane = node.run?.dag_id ?? node.event?.dag_id ?? "from outside";
    hops.set(lane, Math.min(hops.get(lane) ?? 99, node.run?.hops ?? node.event?.hops ?? 99));
  }
  const rows: Lane[] = [...lanes].map(([name, bars]) => ({ key: name, name, bars: bars.sort((a, b) => a.start - b.start) }));
  rows.sort((a, b) => hops.get(a.key)! - hops.get(b.key)!);
  if (!rows.length) return <Empty>Nothing has a time yet.</Empty>;
  return <Lanes label="Runs and events by time" lanes={rows} />;
}

interface OutlineProps {
  nodes: readonly TraceNode[];
  edges: readonly TraceEdge[];
  focus: string;
  open: (node: TraceNode) => void;
}

function Outline({ nodes, edges, focus, open }: OutlineProps) {
  const byKey = new Map(nodes.map((node) => [node.key, node]));
  const here = byKey.get(focus);
  if (!here) return null;
  const sides = [
    { side: "causes", name: "Because of" },
    { side: "effects", name: "Has led to" },
  ] as const;
  return (
    <>
      {sides.map(({ side, name }) => {
        const seen = new Set([focus]);
        return (
          <section key={side}>
            <h2>{name}</h2>
            <ul class="tree" aria-label={name}>
              <Branches of={focus} side={side} byKey={byKey} edges={edges} seen={seen} open={open} />
            </ul>
          </section>
        );
      })}
    </>
  );
}

function Branches(props: {
  of: string;
  side: "causes" | "effects";
  byKey: ReadonlyMap<string, TraceNode>;
  edges: readonly TraceEdge[];
  seen: Set<string>;
  open: (node: TraceNode) => void;
}) {
  const { side, byKey, edges, seen } = props;
  const effects = side === "effects";
  const near = edges.flatMap((edge) => ((effects ? edge.from : edge.to) === props.of ? [{ edge, node: byKey.get(effects ? edge.to : edge.from) }] : []));
  const own = byKey.get(props.of)!;
  const shown = near.filter(({ node }) => node && !(node.kind === "more" && node.of!.side !== side));
  if (!shown.length) {
    const text = effects ? nothingFollowed(own) : originOf(own);
    return text ? <li class="faint">{text}</li> : null;
  }
  return (
    <>
      {shown.map(({ edge, node }) => {
        const again = seen.has(node!.key);
        seen.add(node!.key);
        return (
          <li key={node!.key}>
            <div class="line">
              <Line node={node!} open={props.open} />
              {edge.ms !== undefined && <span class="faint number">{hopText(edge)}</span>}
              {again && <span class="faint">see above</span>}
            </div>
            {!again && (node!.kind === "run" || node!.kind === "event") && (
              <ul>
                <Branches {...props} of={node!.key} />
              </ul>
            )}
          </li>
        );
      })}
    </>
  );
}

function Line({ node, open }: { node: TraceNode; open: (node: TraceNode) => void }) {
  if (node.kind === "more") {
    return (
      <button type="button" onClick={() => open(node)}>
        Show {node.text}
      </button>
    );
  }
  if (node.kind === "end") return <span class="faint">{node.text}</span>;
  if (node.outcome) {
    const { outcome, dags, count, reason } = node.outcome;
    return (
      <>
        <State name={outcome} />
        {dags.map((dag) => (
          <a key={dag} href={to("dags", dag)}>
            {dag}
          </a>
        ))}
        {count > dags.length && <span>and {count - dags.length} more</span>}
        {reason && <span class="faint">{reason}</span>}
      </>
    );
  }
  if (node.run) {
    return (
      <>
        <State name={node.run.state} />
        <a href={`${to("runs", node.run.run_id)}?tab=trace`}>run of {node.run.dag_id}</a>
        {node.run.partition && <span class="chip">{node.run.partition}</span>}
        <Ago at={node.run.created_at} />
        {node.run.error && <span class="bad">{node.run.error}</span>}
      </>
    );
  }
  const event = node.event!;
  return (
    <>
      <span class="chip">event</span>
      <a href={`${to("events", event.event_id)}?tab=trace`}>{event.dataset}</a>
      {event.partition && <span class="chip">{event.partition}</span>}
      <Ago at={event.recorded_at} />
      {event.run_id && event.task && (
        <a href={to("runs", event.run_id, "tasks", taskName(event.task))}>
          task {taskName(event.task)} of {event.dag_id}
        </a>
      )}
      {event.held && <span class="reason">{event.held}</span>}
    </>
  );
}

function originOf(node: TraceNode): string | undefined {
  if (node.run) return `The origin: ${node.run.cause}.`;
  if (node.event && !node.event.run_id) return node.event.pruned ? "The run that emitted it was pruned." : `The origin: from outside (${node.event.source}).`;
  return undefined;
}

function nothingFollowed(node: TraceNode): string | undefined {
  if (node.run) return LIVE.has(node.run.state) ? "Nothing yet: it has not ended." : "Nothing: its tasks emitted no event and started no run.";
  if (node.event?.held) return node.event.held;
  return node.event ? "Nothing: no DAG subscribes to this dataset." : undefined;
}
